"""The payload's standard output: JSON lines in, a Reply out. What comes from inside is untrusted:
bounded and checked.

Version 1. The lines are described in workloads/_include/isobench.h.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from isobench.model import Evidence, Fact

VERSION: Final = 1
MOST_BYTES: Final = 1 << 20
MOST_FACTS: Final = 500
MOST_TEXT: Final = 4096
_MOST_ERRNO: Final = 4096

_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""Sums and differences of two of them fit into 64 bits with a sign, which tables are made of."""
_Operations = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
"""Times are divided by it."""


class _Line(msgspec.Struct):
    """The union of all lines; which fields are set says which it is."""

    isobench: int | None = None
    nonce: str | None = None
    clock_ns: _Count | None = None
    fact: str | None = None
    value: str | Annotated[int, msgspec.Meta(ge=-(1 << 62), lt=1 << 62)] | bool | None = None
    source: str = ""
    warmup_ns: _Count | None = None
    i: _Count | None = None
    ns: _Count | None = None
    ops: _Operations | None = None
    end: _Count | None = None
    check: str = ""
    steady: bool = False
    error: str | None = None
    errno: int = 0


class WireError(Exception):
    """What came back is no reply."""


class WrongAnswerError(Exception):
    """What came back is a reply, and not to what was asked: its nonce or its count is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One timed iteration by the payload's own clock."""

    nanoseconds: int
    operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """All that a payload said."""

    iterations: tuple[Iteration, ...]
    warmup: int | None
    facts: tuple[Evidence, ...]
    check: str
    steady: bool
    span: int
    """From its first line to its last on the payload's own clock, ns."""


def printable(text: str, most: int = MOST_TEXT) -> str:
    """Return untrusted text cut to `most` characters, control characters made visible."""
    shown = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text[:most])
    return shown + ("…" if len(text) > most else "")


def hello(nonce: str) -> bytes:
    """Return the bytes whose arrival proves that the payload with this nonce has started."""
    return b'{"isobench":%d,"nonce":"%s"' % (VERSION, nonce.encode())


def read(stdout: bytes, *, nonce: str, iterations: int) -> Reply:
    """Read a whole reply; WireError: there is none, WrongAnswerError: not to this question."""
    if len(stdout) >= MOST_BYTES:
        raise WireError(f"the payload said more than {MOST_BYTES} bytes")
    said = enumerate(stdout.splitlines(), 1)
    numbered = [(number, _decode(line, number)) for number, line in said if line.strip()]
    lines = [line for _, line in numbered]
    failed = next((line for line in lines if line.error is not None), None)
    if failed is not None:
        detail = printable(failed.error or "", 300)
        raise WireError(detail + _reason(failed.errno))
    first = next((line for line in lines if line.isobench is not None), None)
    if first is None:
        raise WireError("the payload never said its first line")
    if first.isobench != VERSION:
        raise WireError(f"the payload speaks version {first.isobench}, not {VERSION}")
    last = next((line for line in lines if line.end is not None), None)
    if last is None:
        raise WireError("the payload stopped before its last line")
    if first.nonce != nonce or last.nonce != nonce:
        raise WrongAnswerError("the nonce that came back is not the one that was sent")
    count = sum(line.i is not None for line in lines)
    if count != iterations or last.end != iterations:
        raise WrongAnswerError(f"{count} iterations came back, {iterations} were asked for")
    measured = tuple(_iterations(numbered))
    warmup = next((line.warmup_ns for line in lines if line.warmup_ns is not None), None)
    span = (last.clock_ns or 0) - (first.clock_ns or 0)
    within = sum(each.nanoseconds for each in measured) + (warmup or 0)
    if within > span:  # all of it lies between the first line and the last
        raise WireError(f"the clock inside ran backwards: {within} ns lie within {span} ns")
    return Reply(
        iterations=measured,
        warmup=warmup,
        facts=_facts(lines),
        check=printable(last.check, 64),
        steady=last.steady,
        span=span,
    )


def _iterations(numbered: Iterable[tuple[int, _Line]]) -> Iterator[Iteration]:
    """Yield the timed iterations; WireError names the line of one that is incomplete or out of its
    order.
    """
    due = 0
    for number, line in numbered:
        if line.i is None:
            continue
        if line.ns is None or line.ops is None:
            raise WireError(f"line {number} of its output: iteration {line.i} lacks ns or ops")
        if line.i != due:
            raise WireError(f"line {number} of its output is iteration {line.i}: {due} was due")
        due += 1
        yield Iteration(nanoseconds=line.ns, operations=line.ops)


def _reason(errno: int) -> str:
    """Spell out an error number; Linux counts the common ones alike on every ISA."""
    said = f": {os.strerror(errno)}" if 0 < errno < _MOST_ERRNO else ""
    return f"{said} (errno {errno})" if errno else ""


def _decode(line: bytes, number: int) -> _Line:
    try:
        return msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = printable(line[:120].decode("utf-8", "replace"))
        where = f"line {number} of its output"
        raise WireError(f"{where} is not a line of the protocol: {shown!r} ({error})") from None


def _facts(lines: list[_Line]) -> tuple[Evidence, ...]:
    said = [line for line in lines if line.fact is not None][:MOST_FACTS]
    return tuple(
        Evidence(
            key=printable(line.fact or "", 80),
            value=_clean(line.value),
            source=printable(line.source, 200),
        )
        for line in said
    )


def _clean(value: Fact) -> Fact:
    return printable(value).replace("\\x00", "").strip() if isinstance(value, str) else value
