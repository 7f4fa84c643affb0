"""Measures blocks in which a target and native run at the same time, each on half of the CPUs.

Noise that hits both at once cancels out of their ratio (Bulej et al., Duet Benchmarking, ICPE 2020,
arXiv 2001.05811). In return both share caches, memory and power: so it is not for I/O or starts,
and not the default. The halves are swapped from block to block, since they may differ.
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
    """Return two sets of equally many CPUs; None for fewer than two CPUs. The hardware threads of a
    core are in one set where that is possible.

    `siblings` returns the same text for two CPUs if and only if they are threads of one core.
    """
    cores: dict[str, list[int]] = {}
    for cpu in sorted(cpus):
        cores.setdefault(siblings(cpu), []).append(cpu)
    size = len(cpus) // 2
    if not size:
        return None
    ordered = [cpu for core in cores.values() for cpu in core]
    # Of an odd number the middle CPU stays unused, so that the halves are equal.
    return tuple(ordered[:size]), tuple(ordered[-size:])


def siblings(cpu: int) -> str:
    """Return the kernel's list of the hardware threads of a CPU's core; without one, the CPU."""
    # https://docs.kernel.org/admin-guide/cputopology.html
    with contextlib.suppress(OSError):
        return Path(_SIBLINGS.format(cpu)).read_text().strip()
    return str(cpu)


@dataclass(kw_only=True)
class _Sessions:
    """The sessions of one side in one block."""

    stack: contextlib.ExitStack
    good: Mapping[TargetName, OpenSession]
    bad: Mapping[TargetName, Gap]


class _Side:
    """One half of the CPUs, with a thread that starts all programs there.

    The processes that it starts inherit its CPUs (sched_setaffinity(2)); a target passes them to an
    engine, from its stage.
    """

    # The thread must live as long as its processes. The kernel sends the parent-death signal when
    # the thread ends that started a process, and not when isobench does: prctl(2),
    # PR_SET_PDEATHSIG.

    def __init__(self, runner: Runner) -> None:
        self.timer = StartTimer()
        self._runner, self._cpus = runner, ""
        self._sessions: _Sessions | None = None
        self._thread = ThreadPoolExecutor(1)

    def submit(self, work: Callable[[], _T]) -> "Future[_T]":
        """Run a function in the thread of this side."""
        return self._thread.submit(work)

    def move(self, cpus: Sequence[int]) -> None:
        """Use these CPUs for all that is started from now on."""
        os.sched_setaffinity(0, cpus)  # 0 means the calling thread, not the process
        self._cpus = ",".join(map(str, cpus))

    def open(self, block: Block, failures: OpeningFailures, kept: Sessions | None) -> None:
        """Open and prove a session for each label of a block."""
        stack = contextlib.ExitStack()
        self._sessions = _Sessions(stack=stack, good={}, bad={})
        opened = self._runner.sessions(block, failures, kept, cpus=self._cpus)
        good, bad = stack.enter_context(opened)
        self._sessions = _Sessions(stack=stack, good=good, bad=bad)

    def visit(self, visit: Visit, work: Work, delay: float) -> Sequence[Record]:
        """Measure one cell after `delay` seconds."""
        assert self._sessions is not None
        time.sleep(delay)
        if visit.target in self._sessions.bad:
            return (gap_of(visit, self._sessions.bad[visit.target]),)
        opened = self._sessions.good.get(visit.target)
        context = self._runner.context(visit, timer=self.timer, cpus=self._cpus)
        return self._runner.visit_in_session(opened, visit, work, context)

    def close(self) -> None:
        """Close what is open. It may be called from any thread: programs that still run end."""
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            sessions.stack.close()

    def leave(self) -> None:
        """Close what is open and end the thread."""
        self.close()
        self._thread.shutdown(wait=True)


class Duet:
    """Measures blocks of pairs. At the end of its context both sides end."""

    def __init__(self, runner: Runner, cpus: Halves) -> None:
        """Take the runner of a run, and the two halves of the CPUs."""
        self._sides = (_Side(runner), _Side(runner))
        self._sink, self._cpus = runner.sink, cpus
        self._dispatch: dict[TargetName, float] = {}
        """Seconds from the latest request for a program of a target to its first line."""

    def __enter__(self) -> Self:
        """Return itself."""
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
        """Measure one block like `Runner.block`, but two visits at a time: those of a target and of
        its partner, which follow each other in the plan.
        """
        # Sessions serve one block only, since the CPUs of an open session cannot be swapped.
        pairs = [block.visits[at : at + 2] for at in range(0, len(block.visits), 2)]
        with undisturbed(), self._opened(block, pairs, failures, kept):
            for pair in pairs:
                tick(pair[0])
                both = zip(self._sides, pair, self._delays(pair), strict=True)
                futures = [
                    side.submit(lambda s=side, v=visit, d=delay: s.visit(v, work[v.workload], d))  # type: ignore[misc]
                    for side, visit, delay in both
                ]
                records_of_sides = [future.result() for future in futures]
                for record in (
                    *records_of_sides[0],
                    *records_of_sides[1],
                    *self._overlap(*records_of_sides),
                ):
                    self._sink.write(record)
                self._sink.sync()

    def _delays(self, pair: Sequence[Visit]) -> list[float]:
        """Return how many seconds each side must wait so that both programs start together."""
        takes = [self._dispatch.get(actual(visit.target), 0.0) for visit in pair]
        return [max(takes) - own for own in takes]

    def _overlap(self, *records_of_sides: Sequence[Record]) -> Iterator[Record]:
        """Yield how long both ran at the same time, as records with the metric `overlap`: one for
        each side, in nanoseconds of the host's clock.
        """
        samples = [
            each for records in records_of_sides for each in records if isinstance(each, Sample)
        ]
        for each in samples:
            if each.metric == "dispatch":
                self._dispatch[actual(each.target)] = each.value / SECOND
        spans = [each for each in samples if each.metric == "span.host"]
        # A visit that failed has no span, and then there is no overlap either.
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
                # One side after the other, so that neither disturbs the start of the other.
                side.submit(lambda s=side, b=own: s.open(b, failures, kept)).result()  # type: ignore[misc]
            yield
        finally:
            for side in self._sides:
                side.close()
