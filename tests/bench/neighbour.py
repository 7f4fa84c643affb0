"""A neighbour that keeps a CPU busy in bursts: `python neighbour.py CPU SEED PARENT`.

It is busy for half a second to three, then quiet for as long, lengths drawn at random from SEED,
until its parent, which started it, is gone.
"""

import contextlib
import os
import random
import sys
import time
from typing import Final

SHORTEST: Final = 0.5
LONGEST: Final = 3.0
"""Seconds of a burst, and of a pause."""
MOMENT: Final = 0.05
"""So often it looks whether its parent still lives, in seconds."""


def spend(seconds: float, *, busy: bool, parent: int) -> None:
    """Let time pass; end the process where the parent has gone."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        if os.getppid() != parent:
            sys.exit(0)
        pause = min(end, now + MOMENT)
        if not busy:
            time.sleep(pause - now)
        while time.monotonic() < pause:
            pass


def main(cpu: int, seed: int, parent: int) -> None:
    """Be busy and quiet in turn."""
    with contextlib.suppress(OSError):  # it may have been taken from us since it was listed
        os.sched_setaffinity(0, {cpu})
    rng = random.Random(f"{seed}/{cpu}")  # noqa: S311 - a pattern, not a secret
    busy = rng.random() < 0.5
    while True:
        spend(rng.uniform(SHORTEST, LONGEST), busy=busy, parent=parent)
        busy = not busy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
