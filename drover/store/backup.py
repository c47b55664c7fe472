"""A copy of the whole store in one file, made while others work."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import anyio

from drover import process
from drover.domain.errors import StoreError, UsageError
from drover.domain.ids import new_token
from drover.store.facts import SQLITE
from drover.store.sqlite_file import BUSY_TIMEOUT_MS, translated

PAGES = 2_000  # copied between two words of progress
HOURS_S = 6 * 3600.0
_KEPT = ("PATH", "HOME", "USER", "LANG", "TMPDIR")

Progress = Callable[[str, int, int], None]


async def backup(url: str, project_id: str | None, file: Path, environ: Mapping[str, str], progress: Progress) -> int:
    """Copy the store at ``url`` as it is at one moment to ``file``, which may not be there yet; its size in bytes.

    An SQLite file becomes another that drover can be started on; of a Postgres schema a dump is made by
    ``pg_dump``, for ``pg_restore``. The file appears under its name when it is whole and on the disk.
    """
    file = file.absolute()
    if file.exists():
        raise UsageError(f"{file} is there already", hint="name another file")
    if not file.parent.is_dir():
        raise UsageError(f"there is no directory {file.parent}", hint=f"mkdir -p {file.parent}")
    draft = file.with_name(f".{file.name}.{new_token()}")
    try:
        if url.startswith(SQLITE):
            await anyio.to_thread.run_sync(_copy_file, Path(url.removeprefix(SQLITE)), draft, progress)
        else:
            await _dump(url, project_id or "", draft, environ)
        return await anyio.to_thread.run_sync(_keep, draft, file)
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror or error}", hint="check the disk and the directory") from error
    finally:
        draft.unlink(missing_ok=True)


def _copy_file(source: Path, draft: Path, progress: Progress) -> None:
    if not source.exists():
        raise StoreError(f"there is no database at {source}", hint="drover init")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as mine,
            closing(sqlite3.connect(draft, isolation_level=None)) as copy,
        ):
            mine.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            # One snapshot for the whole copy: without it every commit of a run beside us would begin it anew.
            mine.execute("BEGIN")
            mine.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            mine.backup(copy, pages=PAGES, progress=lambda _, left, all: progress("copied", all - left, all))
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, whatever opens it next
            found = copy.execute("PRAGMA integrity_check(5)").fetchall()
    except sqlite3.Error as error:
        raise translated(error, source) from error
    if found != [("ok",)]:
        raise StoreError(f"{source} is damaged: {found[0][0]}", hint="drover db check")


async def _dump(url: str, project_id: str, draft: Path, environ: Mapping[str, str]) -> None:
    from drover.store.postgres_link import quote, schema_of  # noqa: PLC0415 - see facts.py

    program = shutil.which("pg_dump", path=environ.get("PATH"))
    if program is None:
        raise StoreError(
            "pg_dump is not installed",
            hint="install PostgreSQL's client programs, or: drover db copy --to sqlite:///FILE",
        )
    bare, password = _without_password(url)
    env = {name: environ[name] for name in _KEPT if name in environ}
    env |= {name: value for name, value in environ.items() if name.startswith("PG")}
    if password:
        env["PGPASSWORD"] = password  # never in the arguments, where every user of this machine could read it
    argv = [
        program, "--format=custom", "--no-owner", "--no-privileges", f"--schema={quote(schema_of(project_id))}",
        f"--file={draft}", "--", bare,
    ]  # fmt: skip
    try:
        done = await process.run(argv, env=env, timeout_s=HOURS_S)
    except TimeoutError:
        raise StoreError(f"pg_dump did not end within {HOURS_S / 3600:.0f} hours") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit {done.returncode}"]
        old = any("server version mismatch" in line for line in lines)
        hint = "put a pg_dump as new as the server first on the PATH" if old else "drover db status"
        raise StoreError(f"pg_dump failed: {lines[0].removeprefix('pg_dump: error: ')}", hint=hint)
    draft.chmod(0o600)


def _without_password(url: str) -> tuple[str, str]:
    """The URL as it may be shown to everybody, and the password that was in it."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=f"{name}{at}{host}")), unquote(password)


def _keep(draft: Path, file: Path) -> int:
    """Give the draft its name, never over something that is there; the file and its name are on the disk then."""
    with draft.open("rb") as whole:
        os.fsync(whole.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:
        raise UsageError(f"{file} is there already", hint="name another file") from None
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return file.stat().st_size
