"""The database: what it is, and moving, saving and checking it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from drover.cli.options import NOTHING_SAID, Common, option
from drover.cli.output import Part, Printer, Styled
from drover.cli.session import opened, printer_of, project_of, settings_of
from drover.cli.text import counted
from drover.domain.quantities import format_size

if TYPE_CHECKING:
    from drover.store.audit import Fault
    from drover.store.facts import Facts

PROGRESS_EVERY_S = 1.0
FAULTS_SHOWN = 50

db = App(
    name="db",
    help="""The database: status, migrate, copy, backup, check, adopt.

    Which database it is, is said by DROVER_DATABASE_URL, by DBOS_SYSTEM_DATABASE_URL, or by database_url in
    .drover.toml; otherwise it is the file .drover/drover.db of the project.
    """,
)


@db.command
async def status(*, common: Common = NOTHING_SAID) -> int:
    """Where the backlog is kept, of which version and how large it is, and the settings that matter.

    Looks, and changes nothing: a database that is missing or of another version is said to be. Exit 1 if drover
    cannot use it as it is.
    """
    from drover.app import databases

    project = project_of(common)
    settings = settings_of(project)
    facts = await databases.look(project, settings)
    other = databases.other_than(facts, project, settings)
    out = printer_of(common)
    bad = [setting for setting in facts.settings if not setting.good]
    if common.json:
        out.document({**_facts_json(facts), "elsewhere": other, "ok": not bad and not facts.trouble})
    else:
        _print_facts(out, facts)
        if other is not None:
            out.warning(other)
    return 1 if bad or facts.trouble else 0


@db.command
async def migrate(*, common: Common = NOTHING_SAID) -> None:
    """Bring the database up to this version of drover; every other command does so, too, before it begins.

    Migrations only go up. A database of a newer drover is refused and left as it is.
    """
    from drover.app import databases

    project = project_of(common)
    facts, applied = await databases.migrate(project, settings_of(project))
    out = printer_of(common)
    if common.json:
        out.document({**_facts_json(facts), "migrated": list(applied)})
        return
    for name in applied:
        out.line(f"applied {name}")
    out.line(f"{facts.url} is up to date ({(facts.applied or ('nothing',))[-1]})")


@db.command
async def copy(
    *,
    to: Annotated[str | None, option("--to", metavar="URL", help="Where to; the project's own when left out.")] = None,
    source: Annotated[
        str | None, option("--from", metavar="URL", help="Where from; the project's own when left out.")
    ] = None,
    common: Common = NOTHING_SAID,
) -> None:
    """Move the backlog with its whole history to another database: SQLite to Postgres, back, or file to file.

    Everything is read at one moment, written in one transaction, and read back: the same number of rows and the same
    digest of each table, or nothing is kept. The database it is copied from stays as it is. Refused: a target that
    holds a backlog, and a backlog that a run is at work on.

    A password is better kept in PGPASSWORD or ~/.pgpass than in a URL that you type.
    """
    from drover.app import databases

    project = project_of(common)
    out = printer_of(common)
    settings = settings_of(project)
    moved = await databases.copy(project, settings, source=source, target=to, progress=_Teller(out))
    if common.json:
        tables = {name: {"rows": t.rows, "sha256": t.digest} for name, t in moved.tables.items()}
        out.document({"from": moved.source, "to": moved.target, "rows": moved.rows, "tables": tables})
        return
    out.line(f"{counted(moved.tables['tasks'].rows, 'task')} with {moved.rows:,} rows of history: {moved.target}")
    if to is not None:
        out.note("to work there from now on, set DROVER_DATABASE_URL (or database_url in .drover.toml) to it")


@db.command
async def backup(
    file: Annotated[Path, Parameter(name="FILE", help="The file to make; it may not be there yet.")],
    /,
    *,
    common: Common = NOTHING_SAID,
) -> None:
    """Copy the database as it is now to FILE, also while a run is at work.

    Of SQLite, FILE is another such database, checked before it gets its name. Of Postgres, it is a dump made by
    pg_dump, for pg_restore.
    """
    from drover.app import databases

    project = project_of(common)
    out = printer_of(common)
    size = await databases.backup(project, settings_of(project), file, _Teller(out))
    if common.json:
        out.document({"file": str(file.absolute()), "bytes": size})
    else:
        out.line(f"{file.absolute()} ({format_size(size)})")


@db.command
async def check(*, common: Common = NOTHING_SAID) -> int:
    """Look over the whole database, and compare it with git and the event log; exit 1 if anything is wrong.

    Reads every row; compares every counter with what it counts; and holds the three ledgers against each other:
    landings in the database, commits and refs in git, and events. Changes nothing.
    """
    from drover.app import databases

    out = printer_of(common)
    async with opened(common) as drover:
        faults = await databases.check(drover, _Teller(out))
    wrong = [fault for fault in faults if fault.about != "strangers"]
    if common.json:
        out.document({"ok": not wrong, "faults": [{**fault._asdict(), "level": _level(fault)} for fault in faults]})
    else:
        _print_faults(out, faults, wrong)
    return 1 if wrong else 0


@db.command
async def adopt(*, common: Common = NOTHING_SAID) -> None:
    """Record this repository as the one whose backlog the database is, after its history was rewritten.

    Postgres only: a project id that another repository uses on the same server is refused, and a repository whose
    first commit has changed looks like another. Never for a second repository: give that an id of its own.
    """
    from drover.app import databases

    project = project_of(common)
    recorded = await databases.adopt(project, settings_of(project))
    out = printer_of(common)
    if common.json:
        out.document({"repository": recorded})
    else:
        out.line(f"this backlog belongs to this repository now: {recorded}")


def _level(fault: Fault) -> str:
    return "warning" if fault.about == "strangers" else "problem"


def _print_faults(out: Printer, faults: Sequence[Fault], wrong: Sequence[Fault]) -> None:
    rows: list[tuple[Part, ...]] = []
    for fault in faults[:FAULTS_SHOWN]:
        level = _level(fault)
        rows.append((Styled(level, "yellow" if level == "warning" else "red"), fault.about, fault.what))
        if fault.fix:
            rows.append(("", "", Styled(f"→ {fault.fix}", "dim")))
    if rows:
        out.table(rows, cut=False)
    if len(faults) > FAULTS_SHOWN:
        out.line(f"and {len(faults) - FAULTS_SHOWN} more; --json lists all")
    if wrong:
        out.line(counted(len(wrong), "problem"))
    else:
        out.line("the database is whole, and agrees with git and the event log")


def _facts_json(facts: Facts) -> dict[str, object]:
    return {
        "url": facts.url,
        "kind": facts.dialect,
        "where": facts.where,
        "version": facts.version,
        "bytes": facts.size,
        "tasks": facts.tasks,
        "settings": [setting.model_dump() for setting in facts.settings],
        "schema": facts.applied[-1] if facts.applied else None,
        "applied": list(facts.applied or ()),
        "pending": list(facts.pending),
        "trouble": facts.trouble or None,
    }


def _print_facts(out: Printer, facts: Facts) -> None:
    schema = facts.applied[-1] if facts.applied else "not made yet; the first command that needs it makes it"
    rows: list[tuple[Part, ...]] = [
        ("database", facts.url),
        ("file" if facts.dialect == "sqlite" else "schema", facts.where),
        ("version", facts.version),
        ("size", f"{format_size(facts.size)}, {counted(facts.tasks, 'task')}"),
        ("migrated to", schema),
    ]
    if facts.applied is not None and facts.pending:
        rows.append(("to be applied", f"{', '.join(facts.pending)} (drover db migrate)"))
    for setting in facts.settings:
        rows.append((setting.name, setting.value if setting.good else Styled(setting.value, "red")))
    if facts.trouble:
        rows.append(("trouble", Styled(facts.trouble, "red")))
    out.table(rows, cut=False)


class _Teller:
    """Says on the way how far something is, at most once a second; called from any thread."""

    def __init__(self, out: Printer) -> None:
        self._out = out
        self._next = time.monotonic() + PROGRESS_EVERY_S
        self._lock = threading.Lock()

    def __call__(self, what: str, done: int, total: int) -> None:
        with self._lock:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + PROGRESS_EVERY_S
                self._out.note(f"{what} {done:,} of {total:,}")
