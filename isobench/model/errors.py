"""Every error that a user can fix, with its exit code.

IsobenchError                 exit 2
├── UsageError                2   an invalid name, number, file or configuration
├── PayloadError              6   a payload could not be built
├── UnavailableError          3   a target that was requested by name cannot run here
├── NothingToRunError         5   the selection is empty
├── CellFailedError           6   measured, but at least one cell failed
├── IncomparableError         7   runs that cannot be compared with each other
├── SessionError              6   a session broke: the runner records a gap
│   └── PluginError           6   a plug-in violated its interface
└── NotApplicableError        2   the target has no such feature: a gap, but not a failure

Each has a `hint`: what to type or change. The command line prints message and hint, and exits with
`exit_code`.
"""

from typing import ClassVar


class IsobenchError(Exception):
    """Root of all errors that isobench explains instead of showing a traceback."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Take what is wrong (`message`) and what to type or change (`hint`)."""
        super().__init__(message)
        self.hint = hint


class UsageError(IsobenchError):
    """A name, number, file or configuration is invalid."""


class PayloadError(IsobenchError):
    """A payload could not be built."""

    exit_code = 6


class UnavailableError(IsobenchError):
    """A target that was requested by name cannot run here."""

    exit_code = 3


class NothingToRunError(IsobenchError):
    """No target or no workload is left to run."""

    exit_code = 5


class TimeIsUpError(IsobenchError):
    """The time limit passed before anything was measured."""

    exit_code = 124  # as timeout(1) of coreutils does


class CellFailedError(IsobenchError):
    """The run finished, and at least one cell failed."""

    exit_code = 6


class IncomparableError(IsobenchError):
    """The runs have nothing that can be compared: other processors, or no cell in common."""

    exit_code = 7


class LeftoverError(IsobenchError):
    """Something that isobench has made could not be removed."""

    exit_code = 6


class SessionError(IsobenchError):
    """The session itself broke. A command that fails in a session is a `Completed` instead."""

    exit_code = 6

    def __init__(self, message: str, *, hint: str = "", log: str = "") -> None:
        """Take the output of the instance too (`log`, for example its serial console). It must be
        bounded and printable; the runner writes it to the logs of the run.
        """
        super().__init__(message, hint=hint)
        self.log = log


class PluginError(SessionError):
    """The plug-in of a target violated its interface: a bug of the plug-in.

    The hint names the distribution of the plug-in; the log holds the traceback.
    """


class NotApplicableError(IsobenchError):
    """The target, as it is configured, does not have what was to be measured."""
