"""The search for change points of many series, in a process of its own.

ruptures imports scipy.stats, which takes longer than to read 60,000 rows of a store: the process
starts before the rows are read, and before this one imports anything that takes long itself.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Searched = tuple["NDArray[np.float64]", float]
"""What `stats.change_points` needs of a series: log-ratios by time, and the least deviation."""
Search = Callable[[Sequence[Searched]], list[list[int]]]
"""Returns the change points of each series."""


def here(series: Sequence[Searched]) -> list[list[int]]:
    """Search in this process. UsageError: ruptures is not installed."""
    from isobench import stats

    return [stats.change_points(values, least) for values, least in series]


@contextlib.contextmanager
def beside() -> Iterator[Search]:
    """Search in a process that starts now, and ends with the context: as often as it is called."""
    # Its own session: Ctrl-C is for the process that waits, which then ends this one.
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def search(series: Sequence[Searched]) -> list[list[int]]:
        from isobench.stats.special import special

        plain = [(values.tolist(), least) for values, least in series]
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(plain) + b"\n")
            process.stdin.flush()
        special()  # what is found is tested with it
        answer = process.stdout.readline()
        if not answer.endswith(b"\n"):  # whatever ended it, the search here raises it
            return here(series)
        return msgspec.json.decode(answer, type=list[list[int]])

    try:
        yield search
    finally:
        process.kill()
        # Closes the streams, and waits. What was not written has no reader any more.
        with contextlib.suppress(BrokenPipeError), process:
            pass


def _main() -> None:
    import numpy as np

    from isobench.stats.change_points import library

    library()
    while line := sys.stdin.buffer.readline():
        series = msgspec.json.decode(line, type=list[tuple[list[float], float]])
        found = here([(np.array(values), least) for values, least in series])
        sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main()
