"""How many tasks are worked on at the same time: half as many after a refusal, one more with each success."""

from __future__ import annotations

from drover.domain.models import Frozen


class Concurrency(Frozen):
    """The number as it stands, never below ``floor`` or above ``ceiling``."""

    limit: int
    floor: int
    ceiling: int
    cut_at: int | None = None  # unix ms of the last cut
    proven: bool = True  # an agent has ended well since then

    @classmethod
    def of(cls, workers: int, *, start: int | None = None, floor: int = 1, ceiling: int | None = None) -> Concurrency:
        """For so many workers; what is asked for beyond them, or beyond the ceiling, is not had."""
        ceiling = min(workers, ceiling or workers)
        floor = min(floor, ceiling)
        return cls(limit=max(floor, min(start or ceiling, ceiling)), floor=floor, ceiling=ceiling)

    @property
    def throttled(self) -> bool:
        return self.limit < self.ceiling

    def refused(self, *, begun_at: int, now: int) -> Concurrency:
        """After a refusal for too many requests: half.

        Once only for all that were at work together, and not again before an agent has ended well: that a
        provider goes on refusing says that it needs time, not that half was still too many.
        """
        if not self.proven or (self.cut_at is not None and begun_at < self.cut_at):
            return self
        return self.model_copy(update={"limit": max(self.floor, self.limit // 2), "cut_at": now, "proven": False})

    def overloaded(self) -> Concurrency:
        """After an answer that the provider has too much to do, with whomever: one less."""
        return self.model_copy(update={"limit": max(self.floor, self.limit - 1)})

    def succeeded(self) -> Concurrency:
        """After an agent that ended well: one more."""
        return self.model_copy(update={"limit": min(self.ceiling, self.limit + 1), "proven": True})
