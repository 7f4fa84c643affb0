"""Everything that can go wrong in a way the user can mend.

IsobenchError                 exit 2
├── UsageError                2   a name, number, file or configuration that makes no sense
├── PayloadError              6   a payload could not be built
├── UnavailableError          3   a target asked for by name cannot run here
├── NothingToRunError         5   the selection is empty
├── CellFailedError           6   measured, but at least one cell failed
├── SessionError              6   a target's session is gone: the runner makes a gap of it
│   └── PluginError           6   a plug-in did what its interface forbids
└── NotApplicableError        2   a target has no such thing: a gap that is nobody's failure

Each carries a `hint`: what to type or change. The command line prints both and exits with
`exit_code`.
"""

from typing import ClassVar


class IsobenchError(Exception):
    """Root of all errors that isobench explains instead of showing a traceback."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Say what is wrong (`message`) and the way out (`hint`)."""
        super().__init__(message)
        self.hint = hint


class UsageError(IsobenchError):
    """A name, number, file or configuration that makes no sense."""


class PayloadError(IsobenchError):
    """A payload could not be built."""

    exit_code = 6


class UnavailableError(IsobenchError):
    """A target asked for by name cannot run here."""

    exit_code = 3


class NothingToRunError(IsobenchError):
    """No target or no workload is left to run."""

    exit_code = 5


class CellFailedError(IsobenchError):
    """The run finished, and at least one cell failed."""

    exit_code = 6


class SessionError(IsobenchError):
    """The session itself is gone: not the command in it failed, but what should have run it."""

    exit_code = 6

    def __init__(self, message: str, *, hint: str = "", log: str = "") -> None:
        """Take as well what the instance said of its end at length (`log`, a serial console):
        bounded and printable, it goes into the logs of the run.
        """
        super().__init__(message, hint=hint)
        self.log = log


class PluginError(SessionError):
    """A target's plug-in did what its interface forbids: a fault of its author's.

    The hint names the distribution that it is from; the log has the traceback.
    """


class NotApplicableError(IsobenchError):
    """What was to be measured does not exist for this target, as it is configured."""
