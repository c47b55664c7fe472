"""What may be spent, and what is left of it. Money is in millionths of a US dollar."""

from __future__ import annotations

from datetime import datetime, timedelta

from drover.domain.models import Frozen

FIRST_GUESS_MICROUSD = 500_000  # of an agent of which nothing is known yet
FIRST_GUESS_TOKENS = 200_000


class Budget(Frozen):
    """Limits; None: there is none. ``tokens`` is of one run, ``day`` of the executions that begin on a day."""

    task: int | None = None
    epic: int | None = None
    run: int | None = None
    day: int | None = None
    tokens: int | None = None
    estimate: int | None = None  # of one execution; None: the mean of those before
    warn_percent: int = 80

    @property
    def any(self) -> bool:
        return any(limit is not None for limit in (self.task, self.epic, self.run, self.day, self.tokens))


class Line(Frozen):
    """One limit and how it stands."""

    scope: str  # task, epic, run, day, tokens
    id: str
    limit: int
    spent: int = 0
    reserved: int = 0  # by executions that are not over, beyond what they have used

    @property
    def used_up(self) -> bool:
        return self.spent >= self.limit

    def room(self, estimate: int) -> int:
        """What an execution that is expected to use ``estimate`` may reserve; 0: it may not begin now.

        What is left of the end of a budget, smaller than an estimate, is for one execution at a time: the sum of
        what is spent and reserved never passes the limit.
        """
        left = self.limit - self.spent - self.reserved
        if left >= estimate:
            return estimate
        return left if left > 0 and not self.reserved else 0

    @property
    def words(self) -> str:
        """``the run's budget of $5.00 is used up ($5.12)``."""
        whose = {"task": "the task's", "epic": f"the budget of {self.id}", "run": "the run's", "day": "the day's"}
        name = "the run's budget" if self.scope == "tokens" else whose[self.scope]
        name += "" if "budget" in name else " budget"
        limit, spent = self.amount(self.limit), self.amount(self.spent)
        if self.used_up:
            return f"{name} of {limit} is used up ({spent})"
        return f"{spent} of {name} of {limit} spent" + (
            f", {self.amount(self.reserved)} reserved by tasks at work" if self.reserved else ""
        )

    def amount(self, value: int) -> str:
        return f"{value:,} tokens" if self.scope == "tokens" else dollars(value)


def dollars(microusd: int) -> str:
    """``$12.34``; less than a cent is not shown as nothing."""
    return f"${microusd / 1e6:,.2f}" if microusd >= 10_000 or not microusd else f"${microusd / 1e6:.4f}"


def day_of(at: int) -> str:
    """The local day of a time (unix ms): ``2026-11-23``."""
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%Y-%m-%d")


def next_day(at: int) -> int:
    """When the local day after that of ``at`` begins, unix ms."""
    here = datetime.fromtimestamp(at / 1000)
    return int(datetime(here.year, here.month, here.day).timestamp() * 1000) + _length_of_day_ms(here)


def _length_of_day_ms(day: datetime) -> int:
    midnight = datetime(day.year, day.month, day.day)
    return int(((midnight + timedelta(days=1)).timestamp() - midnight.timestamp()) * 1000)
