"""Reads the standard output of a payload: JSON lines, version 1 of the protocol.

workloads/_include/isobench.h describes the lines. Output from inside a target is untrusted: all of
it is limited in size and checked.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from isobench.model import Evidence, Fact
from isobench.model.bounds import LARGEST, MOST_FACT_TEXT, MOST_FACTS, MOST_NANOSECONDS

VERSION: Final = 1
MOST_BYTES: Final = 1 << 20
MOST_TEXT: Final = 4096
# Linux never returns a larger one from a system call (MAX_ERRNO is 4095).
_MOST_ERRNO: Final = 4096

_Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
# At least 1, since times are divided by it.
_Operations = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]


class _Line(msgspec.Struct):
    """The fields of all kinds of lines. Those that are set show the kind."""

    isobench: int | None = None
    nonce: str | None = None
    clock_ns: _Count | None = None
    fact: str | None = None
    value: str | Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)] | bool | None = None
    source: str = ""
    warmup_ns: _Count | None = None
    i: _Count | None = None
    ns: _Count | None = None
    ops: _Operations | None = None
    loops: _Count | None = None
    end: _Count | None = None
    check: str = ""
    steady: bool = False
    error: str | None = None
    errno: int = 0


class WireError(Exception):
    """The output is not a valid reply."""


class WrongAnswerError(Exception):
    """The output is a valid reply with the wrong nonce, checksum or number of iterations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One timed iteration, by the payload's own clock."""

    nanoseconds: int
    operations: int
    loops: int | None = None
    """Its loops, where it was made on request: then it has a checksum of its own."""
    check: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The whole output of a payload."""

    iterations: tuple[Iteration, ...]
    warmup: int | None
    """Nanoseconds of the untimed pass before the iterations; None: there was none."""
    facts: tuple[Evidence, ...]
    check: str
    steady: bool
    """Whether all iterations computed the same checksum."""
    span: int
    """Nanoseconds from the first line to the last, by the payload's own clock."""


def printable(text: str, most: int = MOST_TEXT) -> str:
    """Return at most `most` characters of untrusted text, with control characters made visible."""
    # A control character could move the cursor of a terminal or change its title.
    shown = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text[:most])
    return shown + ("…" if len(text) > most else "")


ASK: Final = "ask"
"""The number of iterations that makes a payload wait for requests."""
WARM: Final = b'{"warmup_ns":'
"""The beginning of the line after which a payload waits for the first request."""
ITERATION: Final = b'{"i":'
"""The beginning of the line that answers a request."""
END: Final = b"end\n"
"""The request to end."""


def request(loops: int, untimed: int) -> bytes:
    """Return the request for an iteration of so many loops, after an untimed pass of `untimed`."""
    return b"%d %d\n" % (loops, untimed)


def hello(nonce: str) -> bytes:
    """Return the beginning of the first line of the payload with this nonce. Its arrival proves
    that the payload has started.
    """
    return b'{"isobench":%d,"nonce":"%s"' % (VERSION, nonce.encode())


def read(stdout: bytes, *, nonce: str, iterations: int) -> Reply:
    """Read a whole reply. WireError: it is invalid. WrongAnswerError: it has another nonce or
    another number of iterations.
    """
    # Output is cut at this length (plugins.api.Completed), so that its end may be missing.
    if len(stdout) >= MOST_BYTES:
        raise WireError(f"the payload printed more than {MOST_BYTES} bytes")
    numbered_lines = enumerate(stdout.splitlines(), 1)
    numbered = [(number, _decode(line, number)) for number, line in numbered_lines if line.strip()]
    lines = [line for _, line in numbered]
    # An error of the payload explains whatever else is missing, so it is reported first.
    failed = next((line for line in lines if line.error is not None), None)
    if failed is not None:
        detail = printable(failed.error or "", 300)
        raise WireError(detail + _reason(failed.errno))
    first = next((line for line in lines if line.isobench is not None), None)
    if first is None:
        raise WireError("the payload did not print its first line")
    if first.isobench != VERSION:
        raise WireError(f"the payload uses version {first.isobench} of the protocol, not {VERSION}")
    last = next((line for line in lines if line.end is not None), None)
    if last is None:
        raise WireError("the payload stopped before its last line")
    # The last line has the nonce too: both must come from one process, and not from an earlier run.
    if first.nonce != nonce or last.nonce != nonce:
        raise WrongAnswerError("the payload returned another nonce than it was given")
    count = sum(line.i is not None for line in lines)
    if count != iterations or last.end != iterations:
        raise WrongAnswerError(f"the payload returned {count} iterations instead of {iterations}")
    measured = tuple(_iterations(numbered))
    warmup = next((line.warmup_ns for line in lines if line.warmup_ns is not None), None)
    span = (last.clock_ns or 0) - (first.clock_ns or 0)
    within = sum(each.nanoseconds for each in measured) + (warmup or 0)
    # All iterations lie between the first line and the last.
    if within > span:
        raise WireError(f"the clock inside ran backwards: {within} ns of work in {span} ns")
    if span > MOST_NANOSECONDS:
        raise WireError(f"the clock inside shows {span} ns between the first line and the last")
    return Reply(
        iterations=measured,
        warmup=warmup,
        facts=_facts(lines),
        check=printable(last.check, 64),
        steady=last.steady,
        span=span,
    )


def _iterations(numbered: Iterable[tuple[int, _Line]]) -> Iterator[Iteration]:
    """Yield the timed iterations. WireError names a line that is incomplete or out of order."""
    due = 0
    for number, line in numbered:
        if line.i is None:
            continue
        if line.ns is None or line.ops is None:
            raise WireError(f"line {number} of its output: iteration {line.i} lacks ns or ops")
        if line.i != due:
            raise WireError(f"line {number} of its output is iteration {line.i} instead of {due}")
        due += 1
        yield Iteration(
            nanoseconds=line.ns,
            operations=line.ops,
            loops=line.loops,
            check=printable(line.check, 64),
        )


def _reason(errno: int) -> str:
    """Return an error number of a payload as text."""
    # The numbers of the payload's ISA and of the host's are the same up to 34 on Linux
    # (asm-generic/errno-base.h).
    numbered_lines = f": {os.strerror(errno)}" if 0 < errno < _MOST_ERRNO else ""
    return f"{numbered_lines} (errno {errno})" if errno else ""


def _decode(line: bytes, number: int) -> _Line:
    try:
        return msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = printable(line[:120].decode("utf-8", "replace"))
        where = f"line {number} of its output"
        raise WireError(f"{where} is not a line of the protocol: {shown!r} ({error})") from None


def _facts(lines: list[_Line]) -> tuple[Evidence, ...]:
    facts: list[Evidence] = []
    room = MOST_FACT_TEXT
    for line in [line for line in lines if line.fact is not None][:MOST_FACTS]:
        fact = Evidence(
            # The lengths are generous for honest payloads and keep a hostile one from filling the
            # report.
            key=printable(line.fact or "", 80),
            value=_clean(line.value),
            source=printable(line.source, 200),
        )
        room -= fact.size
        if room < 0:
            break
        facts.append(fact)
    return tuple(facts)


def _clean(value: Fact) -> Fact:
    return printable(value).replace("\\x00", "").strip() if isinstance(value, str) else value
