"""Runs a fuzzer: a function that takes bytes and raises where the program is wrong.

    python -m tests.faults.fuzz_wire 60      for a minute; guided by coverage where atheris is
                                             installed, else by chance

The corpus of a fuzzer is in tests/data/corpus/NAME: what it starts from, and every input that was a
defect once. `tests/faults/test_fuzz.py` tries a short share of all fuzzers.
"""

import atexit
import contextlib
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from isobench.model.errors import IsobenchError

try:
    import atheris
except ImportError:
    atheris = None

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
Check = Callable[[bytes], None]
_PIECES = (
    b"", b"\n", b"\r\n", b"\0", b"\xff", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"=",
    b".", b"#", b"-1", b"0", b"1e400", b"NaN", b"1" + b"0" * 400, b"9223372036854775808", b"true",
    b"null", b'"\\ud800"', b"\x1b[2J", b"\xe2\x80\xae", b"[" * 2000, b'{"a":' * 2000, b"'",
    b'"""', b"[[", b"nan", b"inf", b"1979-05-27T07:32:00Z", b"0xffffffffffffffffffffffff", b" ",
    b"PK\x01\x02",
)  # fmt: skip


class Fuzzer(NamedTuple):
    """A fuzzer and its name, which is that of its corpus."""

    name: str
    check: Check

    def corpus(self) -> list[bytes]:
        """Return what it starts from."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]


def mutations(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield changed inputs without end, the same ones for a seed."""
    rng = random.Random(seed)  # noqa: S311 - inputs to repeat, not a secret
    while True:
        data = bytearray(rng.choice(corpus))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            _change(data, rng, corpus)
        yield bytes(data)


def _change(data: bytearray, rng: random.Random, corpus: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((0, 1, 2, 8, 64)))
    match rng.randrange(6):
        case 0 if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            data[at:end] = rng.choice(_PIECES)
        case 2:
            del data[at:end]
        case 3:
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            data[at:end] = other[start : start + rng.choice((1, 8, 64, 512))]
        case 4:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        case _:
            _swap_value(data, rng)


def _swap_value(data: bytearray, rng: random.Random) -> None:
    """Replace what stands between two marks of JSON or TOML, such as a number or a text."""
    marks = [at for at, byte in enumerate(data[:20_000]) if byte in b',:=[]{}\n"']
    if len(marks) > 1:
        first = rng.randrange(len(marks) - 1)
        data[marks[first] + 1 : marks[first + 1]] = rng.choice(_PIECES)


def by_chance(fuzzer: Fuzzer, seconds: float, seed: int) -> int:
    """Run a fuzzer by chance; return the number of executions. What `check` raises is raised."""
    end, count = time.monotonic() + seconds, 0
    for data in mutations(fuzzer.corpus(), seed):
        _run(fuzzer, data)
        count += 1
        if time.monotonic() > end:
            break
    return count


def _run(fuzzer: Fuzzer, data: bytes) -> None:
    try:
        fuzzer.check(data)
    except BaseException:
        kept = Path(tempfile.gettempdir()) / f"fuzz-{fuzzer.name}-{abs(hash(data)):x}"
        kept.write_bytes(data)
        print(f"{fuzzer.name}: the input is kept in {kept}", file=sys.stderr)  # noqa: T201 - a tool
        traceback.print_exc()
        raise


def main(fuzzer: Fuzzer) -> None:
    """Run a fuzzer for as many seconds as the command line says."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    if atheris is None:
        count = by_chance(fuzzer, seconds, int(time.time()))
        print(f"{fuzzer.name}: {count} executions in {seconds} s by chance, no defect")  # noqa: T201
        return
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{fuzzer.name}-"))
    shutil.copytree(CORPUS / fuzzer.name, place / "corpus")
    # One allocation is bounded, and the sum only loosely: under atheris the fuzzer of records grows
    # by 20 kB an input, which the same inputs without it do not.
    bounds = ("-timeout=20", "-max_len=200000", "-malloc_limit_mb=2048", "-rss_limit_mb=8192")
    options = (f"-max_total_time={seconds}", *bounds)
    kept = f"-artifact_prefix={place}/"
    words = [sys.argv[0], *options, kept, "-print_final_stats=1", str(place / "corpus")]
    atheris.Setup(words, lambda data: _run(fuzzer, data))
    atheris.Fuzz()


def instrumented() -> Any:
    """Return the context in which imports are prepared for coverage."""
    if atheris is None:
        return contextlib.nullcontext()
    return atheris.instrument_imports(include=["isobench"])


def scratch(name: str) -> Path:
    """Return a new folder, which is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def clear(error: IsobenchError, begins: str = "") -> None:
    """Check an error: it says where something is wrong and what to type, in printable words."""
    assert str(error).startswith(begins), error
    assert error.hint, error
    printable(str(error))
    printable(error.hint)


def printable(text: str) -> None:
    """Check that a text cannot control a terminal."""
    bad = [one for one in text if not one.isprintable() and one not in "\n\t"]
    assert not bad, f"raw characters {bad[:5]} in {text[:200]!r}"
