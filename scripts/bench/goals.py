"""Every goal: what is measured, against what, and how far it may be off."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Goal:
    """One line of the table. ``ratio`` is figure over limit where less is better, limit over figure where more is."""

    what: str
    figure: float | None
    unit: str
    limit: float
    against: str
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        if self.figure is None or not self.figure or not self.limit:
            return None if self.figure is None else 0.0
        return self.limit / self.figure if self.more_is_better else self.figure / self.limit

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return "not measured"
        return "pass" if self.ratio <= 1.0 else "short"

    def row(self) -> tuple[str, str, str, str, str]:
        figure = "–" if self.figure is None else f"{_short(self.figure)} {self.unit}".strip()
        bound = ("≥ " if self.more_is_better else "≤ ") + f"{_short(self.limit)} {self.unit}".strip()
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}"
        return self.what, figure, f"{bound} ({self.against})", ratio, self.verdict

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


HEAD = ("goal", "figure", "limit", "of the limit", "")


def table(goals: list[Goal]) -> str:
    """As text in columns."""
    rows = [HEAD, *(goal.row() for goal in goals)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
