"""What the earlier executions of a task mean for the next one: its session, what was said, what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drover.domain.models import Attempt, Task, Usage
from drover.domain.verdicts import Outcome
from drover.process import adopt, boot_id, parse_identity

SESSION_LOST = frozenset({Outcome.CONTEXT_OVERFLOW.value})  # after these the session is not gone on with
# Ends of an execution that the agent came to by itself; after any other it has to be told that it was interrupted.
BY_ITSELF = frozenset({Outcome.QUESTION.value, Outcome.PERMISSION.value, Outcome.LATER.value})
CUT_OFF = frozenset({None, Outcome.INTERRUPTED.value, Outcome.FENCED.value})  # outcomes of what nobody saw the end of


@dataclass(frozen=True)
class Past:
    """The earlier executions of a task that the next one builds upon, oldest first."""

    task: Task
    executions: tuple[Attempt, ...]

    @classmethod
    def of(cls, task: Task, attempts: Sequence[Attempt], fence: int, purpose: str) -> Past:
        """Those for the same purpose before the claim with this fence; after a fresh start only those since."""
        first = task.first_attempt if task.fresh else 0
        mine = [a for a in attempts if a.fence < fence and a.purpose == purpose and a.attempt >= first]
        return cls(task, tuple(mine))

    @property
    def asked(self) -> bool:
        """Whether the agent has been asked in this attempt why it changed nothing."""
        return any(a.asked and _was_heard(a) for a in self._mine)

    @property
    def interrupted(self) -> bool:
        """Whether the agent was at work in this attempt before, and did not end by itself."""
        mine = [a for a in self._mine if a.agent_started_at is not None]
        return bool(mine) and mine[-1].outcome not in BY_ITSELF

    @property
    def lost_power(self) -> bool:
        """Whether the machine was started again since the agent was at work in this attempt."""
        mine = [a.process for a in self._mine if a.process is not None]
        identity = parse_identity(mine[-1]) if mine else None
        return identity is not None and identity.boot_id != boot_id()

    @property
    def last(self) -> Attempt | None:
        """The last execution in which an agent was started."""
        started = [a for a in self.executions if a.agent_started_at is not None]
        return started[-1] if started else None

    def session(self, agent: str) -> str | None:
        """The session that ``agent`` can go on with."""
        known = self._with_session(agent)
        return known[-1].session_id if known and known[-1].outcome not in SESSION_LOST else None

    def spent(self, agent: str, session_id: str | None) -> Usage:
        """What the session has used so far."""
        told = [a.usage for a in self._with_session(agent) if a.session_id == session_id]
        return sum(told, Usage())

    def ended_unseen(self, state: Path) -> Attempt | None:
        """The last execution of this attempt, if its agent ended by itself while no drover was there to see it.

        Only here, in the clone whose ``state`` that is: what it did elsewhere is not in the files that are here. And
        not before the machine was started again: its record was forced to the disk, its work was not.
        """
        mine = [a for a in self._mine if a.log is not None]
        if not mine or mine[-1].outcome not in CUT_OFF:
            return None  # what has been reported (a limit, say) was seen
        if not Path(str(mine[-1].log)).is_relative_to(state):
            return None
        record = adopt(Path(str(mine[-1].log)) / "exit.json")
        if record is None or record.stopped or record.timed_out or record.stalled or record.lost or record.signal:
            return None
        return mine[-1] if record.is_of_this_boot else None

    def without(self, execution: Attempt | None) -> Past:
        return Past(self.task, tuple(a for a in self.executions if a != execution))

    @property
    def _mine(self) -> list[Attempt]:
        return [a for a in self.executions if a.attempt == self.task.attempt]

    def _with_session(self, agent: str) -> list[Attempt]:
        return [a for a in self.executions if a.agent == agent and a.session_id]


def _was_heard(execution: Attempt) -> bool:
    """Whether its last run came so far as to say a word. A drover that died before that has told the agent nothing."""
    log_dir = Path(execution.log or "")
    if execution.log is None or not log_dir.is_dir():
        return True  # on another host, or cleared away: it has to be taken for heard
    said = [log_dir / "exit.json", *(path for path in log_dir.glob("output.*") if path.suffixes == [path.suffix])]
    return any(path.exists() and path.stat().st_size for path in said)
