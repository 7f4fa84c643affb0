"""The handlers of signals that end isobench. Little is imported: they come before all that is."""

import _thread
import os
import signal
import time
from types import FrameType
from typing import Final

_IMPORTING: Final = "<frozen importlib._bootstrap>"
"""The file of the frames of Python's own importer."""
_PAUSE: Final = 0.02
_LONGEST: Final = 6.0
"""Seconds for which an import may postpone an interruption: that of a plug-in may never end."""


class _Postponed:
    """An interruption that arrived in an import, and is sent again until that has ended.

    What interrupts an import is not only lost at times. Modules in C take it for another error, say
    that a package is not installed, or work on with half of what they need and crash later.
    """

    def __init__(self) -> None:
        self.has_ended_import = False
        self._since: float | None = None
        self._is_coming = False

    def take(self, number: int, frame: FrameType | None) -> bool:
        """Return whether an interruption is postponed."""
        if not _is_importing(frame):
            self._since = None
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since > _LONGEST:
            self.has_ended_import = True
            return False
        if not self._is_coming:
            try:
                # Not by `threading`: the import may be holding its locks.
                _thread.start_new_thread(self._send_again, (number,))
            except RuntimeError:  # the system has no thread left
                self.has_ended_import = True
                return False
            self._is_coming = True
        return True

    def _send_again(self, number: int) -> None:
        time.sleep(_PAUSE)
        self._is_coming = False
        os.kill(os.getpid(), number)


_postponed: Final = _Postponed()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def has_ended_import() -> bool:
    """Return whether an interruption has ended an import: any error may be what comes of it."""
    return _postponed.has_ended_import


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _postponed.take(number, frame):
        raise KeyboardInterrupt


def _hang_up(number: int, frame: FrameType | None) -> None:
    if not _postponed.take(number, frame):
        # A terminal that is closed sends it twice: the shell to its jobs, and the kernel when the
        # shell ends. The second must not end the writing of the report.
        signal.signal(signal.SIGHUP, lambda *_: None)
        raise KeyboardInterrupt


def handle() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, but not in an import.

    What is ignored stays so, but for SIGTERM.
    """
    # nohup starts a program with SIGHUP ignored. Likewise a shell without job control starts
    # background jobs with SIGINT ignored; Python then installs no handler for it. Nothing ignores
    # SIGTERM by convention: it always ends a run.
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hang_up)
