"""What to say of an error: a stable code, one line, a hint, and the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from cyclopts import (
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from drover.cli.commands import NAMES
from drover.domain.errors import DroverError

_USAGE = 2


def described(error: BaseException, words: Sequence[str]) -> tuple[str, str, str | None, int]:
    """(code, message, hint, exit code). ``words`` are what was typed."""
    if isinstance(error, DroverError):
        return error.code, error.message, error.hint, error.exit_code
    if isinstance(error, CycloptsError):
        message, hint = _usage(error, words)
        return "usage", message, hint, _USAGE
    if isinstance(error, OSError):
        return "os", f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", None, 1
    return "internal", f"{type(error).__name__}: {error}", None, 1


def _usage(error: CycloptsError, words: Sequence[str]) -> tuple[str, str]:
    chain = [str(word) for word in error.command_chain or ()]
    command = " ".join(["drover", *chain])
    shown = f"{command} --help"
    left = [str(word) for word in error.unused_tokens or ()]
    if isinstance(error, UnknownCommandError):
        return _unknown_command(left[0] if left else next(iter(words), ""), chain)
    if isinstance(error, UnknownOptionError):
        return _unknown_option(error, command)
    if isinstance(error, UnusedCliTokensError):
        quoted = "put the title in quotes" if chain[-1:] in (["add"], ["quick"]) else shown
        return f"{command} has no use for {' '.join(left)!r}", quoted
    if isinstance(error, MissingArgumentError):
        if error.keyword:
            return f"{error.keyword} needs a value", shown
        return f"{command} needs {error.argument.name if error.argument else 'more'}", shown
    if isinstance(error, RepeatArgumentError):
        return str(error).replace("Parameter ", "").replace(" specified multiple times", " is given twice"), shown
    return str(error), shown


def _unknown_option(error: UnknownOptionError, command: str) -> tuple[str, str]:
    word = error.token.keyword or error.token.value
    names = [name for argument in error.argument_collection for name in argument.names]
    near = difflib.get_close_matches(word.partition("=")[0], names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"{command} --help"
    if " " in word:
        hint = "put -- before what begins with a dash and is no option"
    return f"{command} has no option {word}", hint


def _unknown_command(word: str, chain: Sequence[str]) -> tuple[str, str]:
    command = " ".join(["drover", *chain])
    near = [] if chain else difflib.get_close_matches(word, NAMES, n=1)
    return f"{command} has no command {word!r}", f"did you mean {near[0]}?" if near else f"{command} --help"
