"""What can go wrong, each with the exit status that design and README promise."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit status of every verb."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    MISCONFIGURED = 4
    REFUSED = 5
    INTERRUPTED = 130


class HikeshiError(Exception):
    """An error for the operator: what is wrong, the value seen, what is allowed, and the command that fixes it.

    `message` is one or more plain sentences; `fix` is the next command or action; `status` the exit status.
    """

    status = ExitStatus.FAILED

    def __init__(self, message: str, fix: str = "") -> None:
        """Keep the sentence and the way out apart, so that `--json` can show both."""
        super().__init__(message)
        self.message = message
        self.fix = fix


class UsageError(HikeshiError):
    """The words of the command are wrong."""

    status = ExitStatus.USAGE


class UnreachableError(HikeshiError):
    """A host does not answer or does not let us in."""

    status = ExitStatus.UNREACHABLE


class HostKeyError(UnreachableError):
    """A host shows another key than the one that is known: another machine, or one whose key was changed."""


class MisconfiguredError(HikeshiError):
    """The project, the site's data or this machine is not set up."""

    status = ExitStatus.MISCONFIGURED


class RefusedError(HikeshiError):
    """Not allowed now: no permission, a lock held by somebody, or unsafe."""

    status = ExitStatus.REFUSED
