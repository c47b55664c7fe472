"""The train: results in line for one lane, each tested on top of those before it.

A car is a result as the commit that would land, standing on the commit of the car before it; the first
stands on the lane's tip. So several are tested side by side, and when those before it have landed a car
lands as the very commit that was tested. A car that leaves, or a lane that moves in any other way, derails
the cars behind, which stand up anew. Kept in this process only: that what lands was tested is decided by
verdicts on trees, and that it lands once by compare-and-swap. Without a train results would only be slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

OVERTAKEN_ENOUGH = 2  # how often commits from elsewhere may send the first car back to its tests


@dataclass(eq=False)
class Car:
    """One task's place in line. ``tip`` is None while it stands nowhere."""

    task_id: str
    on: str | None = None  # the commit it stands on
    tip: str | None = None  # its own commit on that
    tree: str = ""
    proven: bool = False  # nothing is left to be known before it may land
    landed: bool = False
    tests: anyio.CancelScope | None = None  # of its tests, while they run


class Train:
    """The cars, first to land first. Its methods change it at once; what waits is woken."""

    def __init__(self) -> None:
        self._cars: list[Car] = []
        self._lane: str | None = None
        self._overtaken = 0  # times the lane moved under the first car; falls with each landing
        self._changed = anyio.Event()

    @property
    def empty(self) -> bool:
        return not self._cars

    @property
    def pinned(self) -> bool:
        """Whether the lane should stay where it is until the first car has landed: it was overtaken often enough."""
        return bool(self._cars) and self._overtaken >= OVERTAKEN_ENOUGH

    # ------------------------------------------------------------ getting on and off

    def find(self, task_id: str) -> Car | None:
        return next((car for car in self._cars if car.task_id == task_id), None)

    def board(self, task_id: str) -> Car:
        """The task's car, at the end of the train if it is not in it yet."""
        car = self.find(task_id)
        if car is None:
            car = Car(task_id)
            self._cars.append(car)
        return car

    def leave(self, task_id: str) -> None:
        """The task does not land now. Those behind it close up."""
        car = self.find(task_id)
        if car is not None:
            self._cars.remove(car)
            self._derail(car)
            self._straighten()

    def stand(self, car: Car, *, on: str, tip: str, tree: str) -> bool:
        """Put the car onto ``on``; False when that is not what is before it any more."""
        if car not in self._cars or self.under(car) != on:
            return False
        car.on, car.tip, car.tree, car.proven = on, tip, tree, False
        self._straighten()
        return True

    def prove(self, car: Car) -> None:
        """The car may land when it is the first."""
        car.proven = True
        self._tell()

    def follow(self, lane_tip: str) -> None:
        """The lane is at ``lane_tip``, as somebody who has the lane's turn sees it."""
        if lane_tip == self._lane:
            return
        self._lane = lane_tip
        if self._cars and self._cars[0].tip is not None and self._cars[0].on != lane_tip:
            self._overtaken += 1
        self._straighten()

    def landed(self, task_id: str, tip: str) -> None:
        """The task has landed as ``tip``, which is the lane's tip now."""
        car = self.find(task_id)
        if car is not None:
            self._cars.remove(car)
            car.landed = car.tip == tip
            car.tip = tip if car.landed else None
        self._lane = tip
        self._overtaken = max(0, self._overtaken - 1)
        self._straighten()

    # ------------------------------------------------------------ standing in line

    def before(self, car: Car) -> Car | None:
        place = self._cars.index(car)
        return self._cars[place - 1] if place else None

    def under(self, car: Car) -> str | None:
        """What the car has to stand on now; None when that is not known yet."""
        before = self.before(car)
        return self._lane if before is None else before.tip

    async def reach_window(self, car: Car, width: int) -> None:
        """Until the car is the first, or has something to stand on and fewer than ``width`` before it are unproven."""
        while (before := self.before(car)) is not None:
            ahead = self._cars[: self._cars.index(car)]
            if before.tip is not None and sum(not other.proven for other in ahead) < width:
                return
            await self._changed.wait()

    async def reach_head(self, task_id: str) -> bool:
        """Until the task's car is the first; False when it was derailed. A task without a car need not wait."""
        car = self.find(task_id)
        if car is None:
            return True
        while car.tip is not None and self.before(car) is not None:
            await self._changed.wait()
        return car.tip is not None

    async def fate(self, car: Car | None, tip: str) -> bool:
        """Until it is known whether the car that was at ``tip`` has landed as that; no car stands for the lane."""
        while car is not None and not car.landed and car.tip == tip:
            await self._changed.wait()
        return car is None or (car.landed and car.tip == tip)

    # ------------------------------------------------------------ derailing

    def _straighten(self) -> None:
        """Derail every car that does not stand on what is before it."""
        under = self._lane
        for car in self._cars:
            if car.tip is not None and (under is None or car.on != under):
                self._derail(car)
            under = car.tip
        self._tell()

    def _derail(self, car: Car) -> None:
        car.tip, car.proven = None, False
        if car.tests is not None:
            car.tests.cancel()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
