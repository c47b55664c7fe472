# Targets for people and for CI; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types floors unit sweep proof soak mutation agents conformance format schema docs sizes lock wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  %-11s %s\n", $$1, $$2}'

$(VENV)/.runtime: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "drover needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

setup: $(VENV)/.dev ## make the virtual environment that the other targets use

demo: $(VENV)/.runtime ## the whole promise in one command: a run, a hard kill, a resume, a proof
	$(BIN)/python -m drover demo

test: check ## the whole gate, as CI runs it

check: lint types floors unit ## lint, types, floors, tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

floors: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

sweep: $(VENV)/.dev ## the long sweeps that the gate only samples: every kill point of git and of a run
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

proof: $(VENV)/.dev ## every suite of docs/guarantees.md in full; writes proof.json and its counts [SUITES="T2 T3"]
	WORKERS=$(WORKERS) $(BIN)/python -m tests.proof run $(SUITES)

soak: $(VENV)/.dev ## hours of faults over three processes on both databases; writes soak.json [HOURS=8 or MINUTES=10, TASKS=5000]
	$(BIN)/python -m tests.proof.soak $(if $(MINUTES),--minutes $(MINUTES),--hours $(or $(HOURS),8)) --tasks $(or $(TASKS),5000)

mutation: $(VENV)/.dev ## small wrongs in a copy of the code, each of which some test must see [EACH=50 SEED=7 AREAS=store,lease]
	$(BIN)/python -m tests.proof.mutation --each $(or $(EACH),50) --seed $(or $(SEED),7) $(if $(AREAS),--areas $(AREAS))

agents: $(VENV)/.dev ## install the real agent CLIs from npm into .cache/agents
	$(BIN)/python scripts/install_agents.py

conformance: $(VENV)/.dev ## drive every real agent through every event, and write docs/reference/conformance.md
	$(BIN)/python -m tests.conformance --write

format: $(VENV)/.dev ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/.dev ## dump the migrated schemas to tests/golden
	$(BIN)/python scripts/dump_schema.py

docs: $(VENV)/.dev ## write docs/reference from the program itself
	$(BIN)/python scripts/generate_docs.py

bench: $(VENV)/.dev ## measure drover beside the floors and DBOS; writes bench.json and docs/performance.md
	$(BIN)/python -m scripts.bench

sizes: ## the longest files and functions
	@$(PYTHON) scripts/sizes.py

lock: $(VENV)/.dev ## resolve the dependencies anew
	$(PYTHON) -m venv .cache/uv && .cache/uv/bin/pip install --quiet uv
	.cache/uv/bin/uv pip compile pyproject.toml --generate-hashes --no-emit-index-url --universal --python-version 3.11 -q -o requirements.lock
	.cache/uv/bin/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url --universal --python-version 3.11 -q -o requirements-dev.lock

wheel: $(VENV)/.dev ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean: ## remove what these targets made
	rm -rf $(VENV) dist .cache .pytest_cache .mypy_cache .ruff_cache
