"""The command line: parses, calls one verb, prints, and returns the contract's exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drover import __version__

if TYPE_CHECKING:
    from threading import ExceptHookArgs

    from drover.cli.output import Printer

_SWITCHES = ("--json", "--plain", "--debug")
_ENDED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done, 1 error, 2 usage, 3 the run left something undone, 4 no such thing or not in a state for it,
    130 interrupted. Nothing is raised, and no traceback shown unless ``--debug`` asks for it.
    """
    words = _globals_last(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        sys.stdout.write(f"drover {__version__}\n")
        return 0
    from drover.cli.output import Printer

    for stream in (sys.stdout, sys.stderr):
        # Text that the terminal's encoding lacks is shown escaped; it never stops a command.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    options = words[: words.index("--")] if "--" in words else words
    printer = Printer(as_json="--json" in options, plain="--plain" in options)
    try:
        code = _run(words)
        sys.stdout.flush()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException as raised:  # noqa: BLE001 - the one place where every error becomes a line and a code
        return _reported(raised, printer, words, debug="--debug" in options)
    return code


def _run(words: list[str]) -> int:
    from drover.domain.garbage import no_looks

    if words == ["status", "--oneline"]:
        with no_looks():
            import anyio

            from drover.cli.glance import glance

        anyio.run(glance)
        return 0
    import inspect

    with no_looks():
        from drover.cli.commands import build

        command, bound, _ = build(words).parse_args(words)
    if inspect.iscoroutinefunction(command):
        import anyio

        result = anyio.run(lambda: command(*bound.args, **bound.kwargs))
    else:
        result = command(*bound.args, **bound.kwargs)
    return result if isinstance(result, int) else 0


def _globals_last(argv: Sequence[str]) -> list[str]:
    """``drover --json list`` is ``drover list --json``, and ``drover help add`` is ``drover add --help``."""
    words, moved = list(argv), []
    while words and (words[0] in _SWITCHES or words[0].partition("=")[0] == "--project"):
        moved.append(words.pop(0))
        if moved[-1] == "--project" and words:
            moved.append(words.pop(0))
    if words[:1] == ["help"]:
        words, moved = words[1:], [*moved, "--help"]
    at = words.index("--") if "--" in words else len(words)
    return words[:at] + moved + words[at:]


def _hush_threads() -> None:
    """Interrupted while it opens its database, a program ends before the database's thread, which has nobody to tell.

    That is no news for whoever interrupted it; any other error of a thread is.
    """
    import threading

    told = threading.excepthook

    def hook(error: ExceptHookArgs) -> None:
        if str(error.exc_value) != "Event loop is closed":
            told(error)

    threading.excepthook = hook


def _reported(raised: BaseException, printer: Printer, words: Sequence[str], *, debug: bool) -> int:
    """Say what went wrong; the exit code."""
    error = _innermost(raised)
    if isinstance(error, BrokenPipeError):
        printer.give_up()
        return 0
    if isinstance(error, KeyboardInterrupt):
        _hush_threads()
        return _ENDED
    if debug:
        import traceback

        traceback.print_exception(raised)
    from drover.cli.mistakes import described

    code, message, hint, exit_code = described(error, words)
    with contextlib.suppress(OSError):  # stderr may be gone, with the terminal it was
        printer.error(code, message, hint)
    return exit_code


def _innermost(raised: BaseException) -> BaseException:
    """The error that a person should hear of: of a group the first that drover raised on purpose."""
    from drover.domain.errors import DroverError

    if not isinstance(raised, BaseExceptionGroup):
        return raised
    inner = [_innermost(one) for one in raised.exceptions]
    return next((one for one in inner if isinstance(one, DroverError)), inner[0])
