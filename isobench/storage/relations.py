"""What the files of a run must agree on: names, blocks and ranges. Pure.

The types of a document bound each value. What is here is between values, and between files.
Analysis relies on it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from isobench.model import Plan, Scope
from isobench.model.bounds import LARGEST, MOST_BLOCKS, MOST_FACTS, MOST_ITERATIONS
from isobench.model.cleaning import LONGEST_NAME, cleaned, is_name
from isobench.storage.records import Known
from isobench.storage.schema import History, RunMetadata, TargetEntry, TargetState

_LONGEST_MESSAGE: Final = 1000
_MOST_PAYLOADS: Final = 10_000
_MOST_EACH: Final = 2 * MOST_FACTS
"""Facts, expectations or limits of a target, each: facts of a payload and those of a witness."""


def check_metadata(run: RunMetadata, name: str) -> None:
    """Check run.json. ValueError: it contradicts itself; names the place."""
    _check(name, _metadata_faults(run))


def cells_of(run: RunMetadata) -> int:
    """Return how many cells a run may have."""
    rows = sum(max(1, len(entry.metrics)) for entry in run.workloads)
    return max(1, len(run.targets)) * max(1, rows)


def check_state(state: TargetState, target: str, name: str) -> None:
    """Check the state of a target. ValueError: it is that of another one, or has more facts than a
    target; names the place.
    """
    if state.name not in (None, target):
        _check(name, iter([("name", f"it is the state of {state.name}")]))
    sizes = {"facts": state.facts, "promises": state.expectations, "limits": state.limits}
    _check(
        name,
        ((place, "they are too many") for place, one in sizes.items() if len(one) > _MOST_EACH),
    )


def evidence_fault(state: TargetState, entry: TargetEntry) -> str:
    """Return in words why a target's state is no evidence for its numbers; empty: it is."""
    if state.name is None:
        return "is missing"
    if state.status == "unavailable":
        return "says that the target was unavailable"
    if state.technology not in (None, entry.technology):
        return f"is of class {state.technology}, and in run.json the class is {entry.technology}"
    if not state.facts:
        return "has no facts"
    unmet = sum(not one.kept for one in state.expectations)
    return f"has {unmet} of {len(state.expectations)} expectations not met" if unmet else ""


def check_plan(plan: Plan, run: RunMetadata, name: str) -> None:
    """Check plan.json. ValueError: it contradicts itself or run.json; names the place."""
    _check(name, _plan_faults(plan, run))


def check_history(history: History, run: RunMetadata, name: str) -> None:
    """Check history.json. ValueError: it names what run.json does not; names the place."""
    names = known(run, None, has_rounds=False)
    targets = {one.target for one in history.cells if not names.knows(one.target)}
    workloads = {one.workload for one in history.cells} - {*names.workloads}
    _check(name, _unknown("target", targets, "cells"))
    _check(name, _unknown("workload", workloads, "cells"))


def known(run: RunMetadata, plan: Plan | None, *, has_rounds: bool) -> Known:
    """Return the names that the records of a run may have."""
    # How many instances a visit starts may differ from target to target.
    alike = {one.name for one in run.workloads if one.scope in {Scope.LOOP, Scope.EXEC}}
    starts = {one.name for one in run.workloads if one.scope in {Scope.EXEC, Scope.SESSION}}
    work = () if plan is None or has_rounds else plan.work
    return Known(
        targets=frozenset(one.name for one in run.targets),
        workloads=frozenset(one.name for one in run.workloads),
        blocks=None if plan is None else frozenset(block.number for block in plan.blocks),
        has_rounds=has_rounds,
        reference=run.reference,
        iterations={one.workload: one.iterations for one in work if one.workload in alike},
        starts=frozenset(starts),
    )


def _check(name: str, faults: Iterator[tuple[str, str]]) -> None:
    for place, why in faults:
        # The names of a plan are not cleaned: they must be those of run.json, which are.
        message = cleaned(f"{name}: {why} - at `$.{place}`", longest=_LONGEST_MESSAGE)
        raise ValueError(message)


def _metadata_faults(run: RunMetadata) -> Iterator[tuple[str, str]]:
    targets = [one.name for one in run.targets]
    yield from _name_faults("targets", targets)
    yield from _name_faults("workloads", [one.name for one in run.workloads])
    if targets and run.reference not in targets:
        yield "reference", f'"{run.reference}" is not one of the targets'
    yield from _name_faults("variations", [one.name for one in run.variations])
    if len(run.payloads) > _MOST_PAYLOADS:
        yield "payloads", "they are too many"
    known_targets = {*targets}
    for one in run.variations:
        if not {one.name, one.base} <= known_targets or one.name == one.base:
            yield "variations", f'"{one.name}" or its base "{one.base}" is not one of the targets'
    for entry in run.workloads:
        metrics = [metric.name for metric in entry.metrics]
        yield from _name_faults(f"workloads[{entry.name}].metrics", metrics)
        if any(metric.is_time != (not metric.fact) for metric in entry.metrics):
            yield "workloads", f'each metric of "{entry.name}" but time needs a fact'
        if not entry.group:
            yield "workloads", f'"{entry.name}" has no class'


def _name_faults(place: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    for name, times in Counter(names).items():
        if times > 1:
            yield place, f'"{name}" occurs {times} times'
        # "#" marks the control and partners.
        if not is_name(name):
            yield place, f'"{name[:LONGEST_NAME]}" is not a name'


def _plan_faults(plan: Plan, run: RunMetadata) -> Iterator[tuple[str, str]]:
    if plan.reference != run.reference:
        yield "reference", f'"{plan.reference}", and in run.json "{run.reference}"'
    numbers = [block.number for block in plan.blocks]
    if numbers != [*range(1, len(numbers) + 1)] or len(numbers) > MOST_BLOCKS:
        yield "blocks", "they are not numbered from 1"
    yield from _work_faults(plan)
    names = known(run, plan, has_rounds=False)
    labels = {*plan.expensive, *plan.blocks_per_session}
    labels.update(label for work in plan.work for label in (*work.turns, *work.seconds))
    workloads = {work.workload for work in plan.work}
    for block in plan.blocks:
        labels.update(block.sessions)
        labels.update(visit.target for visit in block.visits)
        workloads.update(visit.workload for visit in block.visits)
        if any(visit.block != block.number for visit in block.visits):
            yield f"blocks[{block.number - 1}]", "a visit is of another block"
    yield from _unknown("target", (label for label in labels if not names.knows(label)))
    yield from _unknown("workload", workloads - {*names.workloads})


def _unknown(what: str, found: Iterable[str], place: str = "blocks") -> Iterator[tuple[str, str]]:
    for name in sorted(found):
        yield place, f'run.json names no {what} "{name[:LONGEST_NAME]}"'


def _work_faults(plan: Plan) -> Iterator[tuple[str, str]]:
    for work in plan.work:
        turns = work.turns.values()
        loops = [work.loops, *(one.loops for one in turns)]
        times = [work.iterations, *(one.rounds for one in turns)]
        if not all(0 < each <= LARGEST for each in loops):
            yield "work", f'the loops of "{work.workload}" are out of range'
        if not all(0 <= each <= MOST_ITERATIONS for each in (*times, work.warmups)):
            yield "work", f'the iterations of "{work.workload}" are out of range'
        if not 0 <= work.untimed_share <= 1:
            yield "work", f'the untimed share of "{work.workload}" is out of range'
    if not all(0 < each <= MOST_BLOCKS for each in plan.blocks_per_session.values()):
        yield "blocks_per_session", "a number is out of range"
    yield from _name_faults("work", [work.workload for work in plan.work])
