"""Text as it may be shown: without what could steer a terminal, in the room there is."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

# Whole escape sequences first, so that `\x1b[31mred` becomes `red` and not `[31mred`; what is left of an
# unfinished one loses its introducer below. Sequences are short: a terminal's title may not swallow a page.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"  # CSI: colours
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]{0,512}(?:\x07|\x1b\\|\x9c)"  # OSC, DCS: titles
    r"|\x1b[ -/]{0,2}[0-~]"
)
# Control characters of both sets but tab and newline; the marks that turn text round; separators some terminals
# take for a newline; what is invisible and copied along (zero width, tags); lone halves of surrogate pairs.
_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def clean(text: str) -> str:
    """One line that can be shown anywhere: foreign text without controls, line ends and tabs as spaces."""
    return re.sub(r"[\n\t]+", " ", clean_block(text)).strip()


def clean_block(text: str) -> str:
    """Several lines that can be shown anywhere; every kind of line end becomes a newline."""
    if text.isascii() and text.isprintable():
        return text
    unified = re.sub("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", _SEQUENCES.sub("", text))
    return _UNSHOWN.sub("", unified)


def width(text: str) -> int:
    """The columns that cleaned text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(one) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def fit(text: str, columns: int) -> str:
    """Cleaned text in at most that many columns, its cut end shown as ``…``."""
    if width(text) <= columns:
        return text
    kept, room = [], columns - 1
    for character in text:
        room -= width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def pad(text: str, columns: int) -> str:
    """Cleaned text filled with spaces to that many columns."""
    return text + " " * (columns - width(text))


def spoken(milliseconds: float) -> str:
    """A duration in its two largest units: ``850ms``, ``12s``, ``2m10s``, ``3h``, ``1d4h``."""
    if milliseconds < 1_000:
        return f"{max(0, round(milliseconds))}ms"
    seconds = round(milliseconds / 1_000)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append((count, unit))
    return "".join(f"{count}{unit}" for count, unit in parts[:2] if count)


def moment(at: int | None) -> str:
    """Unix milliseconds as the operator's local date and time; ``-`` for never."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(at: int) -> str:
    """Unix milliseconds as the operator's local time of day."""
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%H:%M:%S")


def usage_words(tokens: int, cost_usd: float) -> str:
    """``18,200 tokens, $0.11``, without what is nothing."""
    return ", ".join([f"{tokens:,} tokens"] * bool(tokens) + [f"${cost_usd:.2f}"] * bool(cost_usd))


def counted(count: int, noun: str) -> str:
    """``1 task``, ``3 tasks``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
