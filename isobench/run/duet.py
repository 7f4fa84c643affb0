"""Blocks in which a target and native run at the same time, each on half of the CPUs, the halves
swapped from block to block.

What a machine does to both at once cancels out of their ratio, which visits one after the other
cannot guarantee (Bulej et al., Duet Benchmarking, ICPE 2020). In return the two share caches,
memory and power: so it is not for I/O, nor for starts, and never the default.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from isobench.model import Block, Gap, Record, Sample, Visit, Work
from isobench.model.plan import actual
from isobench.model.units import SECOND, TargetName, WorkloadName
from isobench.run.context import StartTimer
from isobench.run.measure import Runner, undisturbed
from isobench.run.proving import gap_of
from isobench.run.sessions import OpeningFailures, OpenSession, Sessions

_T = TypeVar("_T")
_SIBLINGS: Final = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
Halves = tuple[tuple[int, ...], tuple[int, ...]]


def halves(cpus: Collection[int], siblings: Callable[[int], str]) -> Halves | None:
    """Return two sets of as many CPUs each; hardware threads of one core stay on one side where
    they can. None where there are fewer than two CPUs.

    `siblings` says the same of two CPUs exactly if they are threads of one core.
    """
    cores: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        cores.setdefault(siblings(cpu), []).append(cpu)
    size = len(cpus) // 2
    if not size:
        return None
    ordered = [cpu for core in cores.values() for cpu in core]
    return tuple(ordered[:size]), tuple(ordered[-size:])


def siblings(cpu: int) -> str:
    """Return the hardware threads of a CPU's core as the kernel lists them; itself, where it does
    not say.
    """
    with contextlib.suppress(OSError):
        return Path(_SIBLINGS.format(cpu)).read_text().strip()
    return str(cpu)


@dataclass(kw_only=True)
class _Sessions:
    """What is open on one side in one block."""

    stack: contextlib.ExitStack
    good: Mapping[TargetName, OpenSession]
    bad: Mapping[TargetName, Gap]


class _Side:
    """One half of the CPUs: a thread that starts and asks whatever runs there.

    The processes that it starts inherit its CPUs; an engine is told them by the stage. The thread
    lives as long as they do, since they end with the thread that has started them.
    """

    def __init__(self, runner: Runner) -> None:
        self.timer = StartTimer()
        self._runner, self._cpus = runner, ""
        self._sessions: _Sessions | None = None
        self._thread = ThreadPoolExecutor(1)

    def submit(self, work: Callable[[], _T]) -> "Future[_T]":
        """Have something done on this side."""
        return self._thread.submit(work)

    def move(self, cpus: Sequence[int]) -> None:
        """Let what is started from here on run on these CPUs."""
        os.sched_setaffinity(0, cpus)  # of this thread alone
        self._cpus = ",".join(map(str, cpus))

    def open(self, block: Block, failures: OpeningFailures, kept: Sessions | None) -> None:
        """Open and prove a session for each label of a block."""
        stack = contextlib.ExitStack()
        self._sessions = _Sessions(stack=stack, good={}, bad={})
        opened = self._runner.sessions(block, failures, kept, cpus=self._cpus)
        good, bad = stack.enter_context(opened)
        self._sessions = _Sessions(stack=stack, good=good, bad=bad)

    def visit(self, visit: Visit, work: Work, delay: float) -> Sequence[Record]:
        """Measure one cell, so many seconds from now."""
        assert self._sessions is not None
        time.sleep(delay)
        if visit.target in self._sessions.bad:
            return (gap_of(visit, self._sessions.bad[visit.target]),)
        opened = self._sessions.good.get(visit.target)
        context = self._runner.context(visit, timer=self.timer, cpus=self._cpus)
        return self._runner.visit_in_session(opened, visit, work, context)

    def close(self) -> None:
        """Close what is open, whoever calls: a program that still runs there ends with it."""
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            sessions.stack.close()

    def leave(self) -> None:
        """Close what is open and let the thread end."""
        self.close()
        self._thread.shutdown(wait=True)


class Duet:
    """Measures blocks of pairs. A context: leaving it ends both sides."""

    def __init__(self, runner: Runner, cpus: Halves) -> None:
        """Take the runner of a run, and the two halves."""
        self._sides = (_Side(runner), _Side(runner))
        self._sink, self._cpus = runner.sink, cpus
        self._dispatch: dict[TargetName, float] = {}
        """Seconds from asking a target for a program to its first line, as last seen."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End both sides."""
        for side in self._sides:
            side.leave()

    def block(
        self,
        block: Block,
        work: Mapping[WorkloadName, Work],
        failures: OpeningFailures,
        tick: Callable[[Visit], None],
        kept: Sessions | None = None,
    ) -> None:
        """Measure one block as `Runner.block` does, two visits at a time: those of a target and of
        its partner, which follow each other in the plan.

        Sessions serve one block: the CPUs of a session cannot be swapped.
        """
        pairs = [block.visits[at : at + 2] for at in range(0, len(block.visits), 2)]
        with undisturbed(), self._opened(block, pairs, failures, kept):
            for pair in pairs:
                tick(pair[0])
                both = zip(self._sides, pair, self._delays(pair), strict=True)
                asked = [
                    side.submit(lambda s=side, v=visit, d=delay: s.visit(v, work[v.workload], d))  # type: ignore[misc]
                    for side, visit, delay in both
                ]
                answered = [future.result() for future in asked]
                for record in (*answered[0], *answered[1], *self._overlap(*answered)):
                    self._sink.write(record)
                self._sink.sync()

    def _delays(self, pair: Sequence[Visit]) -> list[float]:
        """Return by how many seconds to ask each side later, that both begin at the same time."""
        takes = [self._dispatch.get(actual(visit.target), 0.0) for visit in pair]
        return [max(takes) - own for own in takes]

    def _overlap(self, *answered: Sequence[Record]) -> Iterator[Record]:
        """Yield how long both ran at the same time: `overlap`, by the host's clock, as a record of
        either.
        """
        samples = [each for records in answered for each in records if isinstance(each, Sample)]
        for each in samples:
            if each.metric == "dispatch":
                self._dispatch[actual(each.target)] = each.value / SECOND
        spans = [each for each in samples if each.metric == "span.host"]
        if len(spans) == len(self._sides):
            ends = [side.timer.last_output_at for side in self._sides]
            begun = max(end - span.value for end, span in zip(ends, spans, strict=True))
            both = max(0, min(ends) - begun)
            for span in spans:
                yield replace(span, metric="overlap", value=both)

    @contextlib.contextmanager
    def _opened(
        self,
        block: Block,
        pairs: Sequence[Sequence[Visit]],
        failures: OpeningFailures,
        kept: Sessions | None,
    ) -> Iterator[None]:
        cpus = self._cpus[::-1] if block.number % 2 else self._cpus
        try:
            for number, side in enumerate(self._sides):
                labels = {pair[number].target for pair in pairs}
                own = replace(block, sessions=tuple(x for x in block.sessions if x in labels))
                side.submit(lambda s=side, c=cpus[number]: s.move(c)).result()  # type: ignore[misc]
                # One after the other: neither disturbs how the other starts.
                side.submit(lambda s=side, b=own: s.open(b, failures, kept)).result()  # type: ignore[misc]
            yield
        finally:
            for side in self._sides:
                side.close()
