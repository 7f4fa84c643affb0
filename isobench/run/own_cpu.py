"""Counts the CPU time that isobench itself uses while payloads take their turns."""

import contextlib
import time
from collections.abc import Iterator


class OwnCpu:
    """The CPU time of this process during the turns of a block."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._used = self._passed = 0.0

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count the CPU time of all threads in this context."""
        used, began = time.process_time(), time.monotonic()
        try:
            yield
        finally:
            self._used += time.process_time() - used
            self._passed += time.monotonic() - began

    def take(self) -> float | None:
        """Return what was used of one CPU since the last call, in percent; None: nothing ran."""
        used, passed = self._used, self._passed
        self._used = self._passed = 0.0
        return round(100 * used / passed, 2) if passed > 0 else None
