"""Making a project and looking after it: init, doctor, config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App

from drover.cli.options import NOTHING_SAID, Common, option
from drover.cli.output import Styled
from drover.cli.session import opened, printer_of, project_around, settings_of
from drover.cli.shapes import check_json
from drover.cli.text import spoken

_LEVELS = {"ok": "green", "warning": "yellow", "problem": "red"}
_HIDDEN = "set"  # tables of given values may hold secrets


async def init(*, common: Common = NOTHING_SAID) -> None:
    """Make the repository around a drover project. Safe to run again.

    Makes .drover/ (database, worktrees, logs), kept out of git, and a commented .drover.toml that is meant to
    be committed. The branch that is checked out becomes the target: work lands there.
    """
    from drover.app import init as make

    out = printer_of(common)
    made = await make(Path(common.project).expanduser() if common.project else Path.cwd())
    if common.json:
        notes = list(made.notes)
        out.document({"root": str(made.project.root), "created": made.created, "target": made.target, "notes": notes})
        return
    what = "is now a drover project" if made.created else "is a drover project already"
    out.line(f"{made.project.root} {what}; work lands on {made.target}")
    for note in made.notes:
        out.warning(note)
    if made.created:
        out.note('next: drover add "What is to be done", then: drover run')


async def doctor(
    *, fix: Annotated[bool, option("--fix", help="Repair what is safe to repair.")] = False, common: Common = NOTHING_SAID
) -> int:
    """Check what an unattended night needs: one line a check, with the fix; exit 1 when there is a problem."""
    out = printer_of(common)
    async with opened(common) as drover:
        checks = await drover.doctor(fix=fix)
    if common.json:
        out.document([check_json(check) for check in checks])
    else:
        out.table(
            [
                (Styled(c.level, _LEVELS[c.level]), c.name, c.message + (f"; fix: {c.fix}" if c.fix else ""))
                for c in checks
            ]
        )
    return 1 if any(check.level == "problem" for check in checks) else 0


config = App(name="config", help="Show the settings and where each came from.", help_format="plaintext")


@config.command
def show(*, common: Common = NOTHING_SAID) -> None:
    """Print each setting, its value and where it came from."""
    out = printer_of(common)
    settings = settings_of(project_around(common))
    values = settings.model_dump(mode="json", exclude={"sources", "warnings"}, by_alias=False)
    rows = [
        (key, value, settings.sources.get(key.removesuffix("_ms"), settings.sources.get(key, "default")))
        for key, value in _flat(values)
    ]
    if common.json:
        out.document({key: {"value": value, "source": source} for key, value, source in rows})
        return
    out.table([(key.removesuffix("_ms"), _shown(key, value), source) for key, value, source in rows])
    for warning in settings.warnings:
        out.warning(warning)


@config.command
def path(*, common: Common = NOTHING_SAID) -> None:
    """Print the files that settings are read from."""
    import os

    from drover.settings import user_file

    out = printer_of(common)
    project = project_around(common)
    files = [*([project.config_file] if project else []), user_file(os.environ)]
    if common.json:
        out.document([{"path": str(file), "exists": file.exists()} for file in files])
        return
    for file in files:
        out.line(f"{file}{'' if file.exists() else '  (not there)'}")


def _flat(values: dict[str, object], above: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and key != _HIDDEN:
            found += _flat(value, f"{name}.")
        elif isinstance(value, dict):
            found += [(f"{name}.{inner}", "(given)") for inner in value]
        elif name == "database_url" and isinstance(value, str):
            from drover.settings import redact

            found.append((name, redact(value)))
        else:
            found.append((name, value))
    return found


def _shown(key: str, value: object) -> str:
    if key.endswith("_ms") and isinstance(value, int):
        return spoken(value) if value else "off"
    if value is None or value in ("", []):
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
