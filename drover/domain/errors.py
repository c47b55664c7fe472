"""Every error drover raises on purpose.

A message is one line that says what is wrong with which value; ``hint`` says what to type next.
``code`` is the stable name seen in ``--json`` output, ``exit_code`` what the command line returns.
"""

from __future__ import annotations

import errno


class DroverError(Exception):
    """Something went wrong."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        self.message = message or (self.__doc__ or "").strip()
        self.hint = hint


class UsageError(DroverError):
    """The command was not understood."""

    code = "usage"
    exit_code = 2


class SettingsError(UsageError):
    """A setting does not parse; the message names the key and the file or variable it came from."""

    code = "settings"


class NotFound(DroverError):
    """No such task, epic or plan."""

    code = "not_found"
    exit_code = 4


class WrongState(DroverError):
    """The task is not in a state that allows this."""

    code = "wrong_state"
    exit_code = 4


class CycleError(WrongState):
    """These blockers would wait for each other for ever."""

    code = "cycle"
    exit_code = 1

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__("a cycle of blockers: " + " → ".join(path))
        self.path = path


class NoProject(DroverError):
    """No drover project here."""

    code = "no_project"


class StoreError(DroverError):
    """The database refused; nothing of the transaction was kept."""

    code = "store"


class StoreUnavailable(StoreError):
    """The database cannot be used now (locked, full, away); the same call may succeed later."""

    code = "store_unavailable"


class OutcomeUnknown(StoreUnavailable):
    """The connection broke during COMMIT: read before doing it again."""

    code = "outcome_unknown"


class SchemaError(StoreError):
    """The database was made by another version of drover."""

    code = "schema"


class LeaseLost(DroverError):
    """Another worker holds this task now; what this one still wanted to write was refused."""

    code = "lease_lost"


class GitError(DroverError):
    """A git command failed."""

    code = "git"

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        command: tuple[str, ...] = (),
        returncode: int = 0,
        stderr: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.command = command
        self.returncode = returncode
        self.stderr = stderr


class Unreachable(GitError):
    """The remote does not answer, or does not take what it is given; the same call may succeed later."""

    code = "remote"


class AgentError(DroverError):
    """The agent cannot be used: not installed, not signed in, or of a version drover cannot drive."""

    code = "agent"


class NotApproved(DroverError):
    """The repository supplies commands that nobody has approved on this machine."""

    code = "not_approved"


class DiskFull(DroverError):
    """There is no space left on the disk drover writes to."""

    code = "disk_full"


def says_disk_full(error: BaseException) -> bool:
    """Whether there was no space left: as drover says it, or as the system does (the disk, or what a user may use)."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


class AttemptFailed(DroverError):
    """An attempt ended without a result that can land.

    ``error_class`` is one of :data:`drover.domain.verdicts.ErrorClass`; ``advice`` tells a person
    what to do about it. The engine turns it into a verdict with :func:`drover.domain.verdicts.judge`.
    """

    code = "attempt_failed"

    def __init__(self, error_class: str, message: str, *, advice: str = "", overtaken: bool = False) -> None:
        super().__init__(message, hint=advice or None)
        self.overtaken = overtaken  # of a conflict: the agent had resolved one, and others landed meanwhile
        self.error_class = error_class
        self.advice = advice
