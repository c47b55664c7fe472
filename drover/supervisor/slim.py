"""What is taken of the standard library without all that it brings along: each agent waits for its supervisor's start.

``json``, ``typing``, ``signal`` and ``contextlib`` together cost more than twice what starting Python costs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import TracebackType
else:
    try:
        import _signal as signal  # all that `signal` has, as plain numbers: its enums cost 5 ms
    except ImportError:
        import signal

__all__ = ["adopt_orphans", "signal", "suppress", "to_json"]

_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class suppress:  # noqa: N801 - it is contextlib's
    """As :class:`contextlib.suppress`."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self.errors = errors

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool:
        return kind is not None and issubclass(kind, self.errors)


def to_json(value: object) -> str:
    """As ``json.dumps`` of None, truth values, finite numbers, text, and lists and dictionaries of them."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(map(_escape, value)) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_json(str(name))}: {to_json(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(to_json, value)) + "]"
    raise TypeError(f"{type(value).__name__} is not for JSON")


def _escape(letter: str) -> str:
    number = ord(letter)
    if letter in _ESCAPED:
        return _ESCAPED[letter]
    if 0x20 <= number < 0x7F:
        return letter
    if number > 0xFFFF:
        number -= 0x10000
        return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
    return f"\\u{number:04x}"


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own (Linux; there is nothing like it elsewhere)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - not on other systems

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
