"""The search for change points of many series, in a process of its own.

ruptures imports scipy.stats, which takes longer than to read 60,000 rows of a store: the process
starts before the rows are read, and before this one imports anything that takes long itself.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Searched = tuple["NDArray[np.float64]", float]
"""What `stats.change_points` needs of a series: log-ratios by time, and the least deviation."""
Search = Callable[[Sequence[Searched]], list[list[int]]]
"""Returns the change points of each series."""
_PROGRAM: Final = f"import sys; sys.path[:] = sys.argv[1:]; from {__name__} import serve; serve()"


def here(series: Sequence[Searched]) -> list[list[int]]:
    """Search in this process. UsageError: ruptures is not installed."""
    from isobench import stats

    return [stats.change_points(values, least) for values, least in series]


@contextlib.contextmanager
def beside() -> Iterator[Search]:
    """Search in a process that starts now, and ends with the context: as often as it is called."""
    # Its own session: Ctrl-C is for the process that waits, which then ends this one.
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM, *_import_path()],
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


def _import_path() -> list[str]:
    """Return where this process imports from. Without the working folder, unless isobench itself
    lies there: somebody else may have put a file into it that is called like a library.
    """
    own = str(Path(__file__).parents[2])
    return [one for one in sys.path if one == own or not _is_working_folder(one)]


def _is_working_folder(entry: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(entry).samefile(os.curdir)  # the path of nothing is the working folder, too
    return False


def serve() -> None:
    """Answer each line of standard input: the series in it."""
    import numpy as np

    from isobench.stats.change_points import library

    library()
    while line := sys.stdin.buffer.readline():
        series = msgspec.json.decode(line, type=list[tuple[list[float], float]])
        found = here([(np.array(values), least) for values, least in series])
        sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
        sys.stdout.buffer.flush()
