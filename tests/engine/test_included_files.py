"""Files that the operator lists are there for agents and tests, and never land."""

from __future__ import annotations

import pytest

from drover.domain.states import State
from tests.engine.places import Site

pytestmark = pytest.mark.anyio


async def test_agents_and_tests_have_what_is_listed_and_it_does_not_land(site: Site) -> None:
    site.write(".worktreeinclude", ".env\n")
    site.commit("list")
    site.write(".env", "KEY=1\n")
    site.says("cp .env seen.txt")
    async with site.open(**{"verify.command": "cmp .env seen.txt"}) as drover:
        task = await drover.add("Work")
        await drover.run()
        assert (await drover.task(task.id)).state is State.COMPLETED
    assert site.git("diff", "--name-only", "HEAD~1", "HEAD") == "seen.txt"


async def test_a_secret_that_an_agent_stops_ignoring_is_refused(site: Site) -> None:
    site.write(".worktreeinclude", ".env\n")
    site.commit("list")
    site.write(".env", "KEY=1\n")
    site.says("echo built/ > .gitignore")
    async with site.open() as drover:
        task = await drover.add("Tidies up")
        await drover.run()
        error = (await drover.task(task.id)).error
        assert error is not None and error.error_class == "refused"
        assert ".env: is a copy of yours" in error.message
    assert site.git("log", "--format=%s", "--all", "--", ".env") in ("", f"work in progress: {task.title}")
    assert site.git("log", "--format=%s", "main") == "list\nfirst"
