"""The headline of a run: a short sentence for each question that a reader has. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from isobench import stats
from isobench.analysis.open_cells import DECIDED, best_command
from isobench.model import FEW_CODES, TIME, Status, Technology, Verdict
from isobench.model.units import TargetName, WorkloadName
from isobench.model.wording import counted, listed, outcome_text, range_text, seconds_text
from isobench.storage.schema import OpenCell
from isobench.workloads import classes

_MOST_NAMED: Final = 2
"""So many targets are named one by one; of more, their number and the worst of them."""
_MOST_LEFT_OUT: Final = 4
_ALPHA: Final = 0.05
_COLD: Final = "startup.cold"

StartTimes = Mapping[tuple[TargetName, WorkloadName], tuple[float, float | None]]
"""The times of starts and native's, in seconds, by target and workload; None: it is not known."""


def headline(
    verdicts: Sequence[Verdict],
    technologies: Mapping[TargetName, Technology],
    *,
    quick: bool,
    complete: bool,
    margin: float,
    starts: StartTimes | None = None,
    open_cells: Sequence[OpenCell] = (),
) -> list[str]:
    """Return the answers in sentences: one for each class of workloads and each other metric in it,
    with times for starts; one on what is undecided, and what settles it.

    Native and its control are left out. Classes are never merged: "near-native" is no verdict over
    different kinds of work. It says nothing that the verdicts do not say; a quick run gives
    ratios only.
    """
    cells = [
        each
        for each in verdicts
        if "#" not in each.target and technologies.get(each.target) is not Technology.NATIVE
    ]
    if not cells:
        ended = () if complete else ("The run was cut short.",)
        return ["Nothing was measured except native.", *ended]
    sentences = ["Quick run: ratios to native, no verdicts."] if quick else []
    sentences += _by_class(cells, starts or {}, margin, quick=quick)
    sentences += _together(cells)
    if not quick:
        sentences.append(_undecided(cells, open_cells))
    if not complete:
        sentences.append("The run was cut short: these answers are partial.")
    return sentences


def _by_class(
    cells: Sequence[Verdict], starts: StartTimes, margin: float, *, quick: bool
) -> Iterator[str]:
    together: dict[tuple[str, str], list[Verdict]] = {}
    for each in cells:
        together.setdefault((each.workload.partition(".")[0], each.metric), []).append(each)
    names = sorted(dict.fromkeys(name for name, _ in together), key=classes.rank)
    places = {name: place for place, name in enumerate(names)}
    near = f"near-native (within {100 * (margin - 1):g} %)"
    for name, metric in sorted(together, key=lambda key: (places[key[0]], *_time_first(key[1]))):
        own = together[name, metric]
        timed = _start_sentence(own, starts) if name == classes.START_UP else ""
        clauses = "; ".join(_ratios(own) if quick else _clauses(own, near))
        # The term is explained once.
        near = "near-native" if near in clauses else near
        yield timed or f"{_subject(name, metric, is_list=quick)} {clauses}."


def _time_first(metric: str) -> tuple[bool, str]:
    return metric != TIME.name, metric


def _subject(name: str, metric: str, *, is_list: bool) -> str:
    """Return the beginning of a sentence about a class, or about a metric in it."""
    opening = classes.opening(name)
    if metric != TIME.name:
        return f"{opening}, {metric}:"
    if is_list:
        return f"{opening}:"
    return f"{opening} {'are' if classes.get(name).plural else 'is'}"


def left_out_sentence(targets: Sequence[str], workloads: Sequence[str], command: str) -> str:
    """Say what the budget had no room for and what measures it; nothing where all is measured."""
    kinds = (("target", targets), ("workload", workloads))
    parts = [_counted(noun, names) for noun, names in kinds if names]
    return (
        f"Left out to keep the budget: {listed(parts)}; to measure all: {command}" if parts else ""
    )


def _counted(noun: str, names: Sequence[str]) -> str:
    """Return names, or of many their number and the first of them."""
    if len(names) <= _MOST_LEFT_OUT:
        return listed(names)
    first = ", ".join(names[: _MOST_LEFT_OUT - 1])
    return f"{len(names)} {noun}s ({first} and {len(names) - _MOST_LEFT_OUT + 1} more)"


# ---- starts


def _start_sentence(cells: Sequence[Verdict], starts: StartTimes) -> str:
    """Return how long a start takes, in time and as a ratio; empty where no time is known."""
    workloads = sorted({each.workload for each in cells}, key=lambda name: (name != _COLD, name))
    for workload in workloads:
        found = [
            (*starts[each.target, workload], each.target)
            for each in cells
            if each.workload == workload and (each.target, workload) in starts
        ]
        if found:
            ratios = sorted(
                each.estimate.ratio
                for each in cells
                if each.workload == workload and each.estimate is not None
            )
            kind = workload.partition(".")[2] or workload
            article = "An" if kind[0] in "aeiou" else "A"
            found.sort(key=lambda one: (one[0], one[2]))
            return f"{article} {kind} start takes {_times(found, ratios)}."
    return ""


def _times(found: Sequence[tuple[float, float | None, TargetName]], ratios: Sequence[float]) -> str:
    """Return the times of starts, which come the shortest first, and their ratios."""
    if len(found) <= _MOST_NAMED:
        named = listed([f"{seconds_text(time, 2)} in {target}" for time, _, target in found])
    else:
        (shortest, _, first), (longest, _, last) = found[0], found[-1]
        named = f"{seconds_text(shortest, 2)} ({first}) to {seconds_text(longest, 2)} ({last})"
    known = next((native for _, native, _ in found if native is not None), None)
    if known is None:
        return f"{named}; native's is not known"
    native = seconds_text(known, 2)
    beside = f"{range_text(ratios[0], ratios[-1])} native's {native}" if ratios else f"not {native}"
    return f"{named}, {beside}"


# ---- work


def _by_target(cells: Sequence[Verdict]) -> dict[TargetName, list[Verdict]]:
    found: dict[TargetName, list[Verdict]] = {}
    for each in cells:
        found.setdefault(each.target, []).append(each)
    return found


def _ratios(cells: Sequence[Verdict]) -> Iterator[str]:
    """Yield what each target took, as a range over its cells; of many, the ends alone."""
    targets = _by_target(cells)
    if len(targets) > _MOST_NAMED:
        yield _spanned({target: _found(own) for target, own in targets.items()})
        return
    for target, own in targets.items():
        found = _found(own)
        if found:
            yield f"{target} {range_text(found[0], found[-1])}"
        else:
            yield f"{target} without a figure"


def _found(cells: Sequence[Verdict]) -> list[float]:
    """Return the ratios of cells, from the lowest on."""
    return sorted(each.estimate.ratio for each in cells if each.estimate is not None)


def _clauses(cells: Sequence[Verdict], near_native: str) -> Iterator[str]:
    """Yield who is near-native, who is slower and by how much, and of whom nothing is known; the
    cells are of one metric. Whatever holds for some of a target's workloads holds "partly".
    """
    words = {status: outcome_text(status, cells[0].metric) for status in Status}
    targets = _by_target(cells)
    slower, partly_slower = _with(targets, Status.SLOWER)
    faster, partly_faster = _with(targets, Status.FASTER)
    # What is unlike native is what a reader must know: beside it, nothing is called near-native.
    unlike = {*slower, *partly_slower, *faster, *partly_faster}
    calm = {t: own for t, own in targets.items() if t not in unlike}
    near, partly_near = _with(calm, Status.NEAR_NATIVE)
    unknown = [t for t in calm if t not in near and t not in partly_near]
    if near:
        yield f"{near_native} in {_named([*near])}"
    if partly_near:
        yield f"partly {'near-native' if near else near_native} in {_named([*partly_near])}"
    if slower:
        figures = {t: _found(own) for t, own in slower.items()}
        yield f"{words[Status.SLOWER]} in {_spanned(figures)}"
    if partly_slower:
        yield f"partly {words[Status.SLOWER]} in {_parts(targets, partly_slower)}"
    if faster:
        yield f"{words[Status.FASTER]}, unexplained, in {_named([*faster])}"
    if partly_faster:
        parts = _parts(targets, partly_faster)
        yield f"partly {words[Status.FASTER]}, unexplained, in {parts}"
    few = [t for t in unknown if all(_lacks_blocks(each) for each in calm[t])]
    if few:
        figures = {t: _found(calm[t]) for t in few}
        yield f"undecided, with too few blocks to tell, in {_spanned(figures)}"
    if undecided := [t for t in unknown if t not in few]:
        yield f"undecided in {_named(undecided)}"


def _with(
    targets: Mapping[TargetName, Sequence[Verdict]], status: Status
) -> tuple[dict[TargetName, list[Verdict]], dict[TargetName, list[Verdict]]]:
    """Return the cells with a status, by target: of targets whose cells all have it, and of those
    where only some do.
    """
    whole: dict[TargetName, list[Verdict]] = {}
    partly: dict[TargetName, list[Verdict]] = {}
    for target, own in targets.items():
        having = [each for each in own if each.status is status]
        if having:
            (whole if len(having) == len(own) else partly)[target] = having
    return whole, partly


def _parts(
    targets: Mapping[TargetName, Sequence[Verdict]], parts: Mapping[TargetName, Sequence[Verdict]]
) -> str:
    """Join targets with the ratios of a part of their cells, and say which part; of many, only the
    worst is named.
    """
    if len(parts) > _MOST_NAMED:
        return _spanned({target: _found(own) for target, own in parts.items()})
    return listed(
        [f"{target} ({_part(own, len(targets[target]))})" for target, own in parts.items()]
    )


def _part(cells: Sequence[Verdict], of: int) -> str:
    """Return the ratios of some of a target's `of` cells: of one by its name."""
    found = _found(cells)
    spread = range_text(found[0], found[-1]) if found else ""
    if len(cells) == 1:
        name = cells[0].workload
        return f"{name.partition('.')[2] or name} {spread}".rstrip()
    return ", ".join(filter(None, (f"{len(cells)} of {of} workloads", spread)))


def _named(targets: Sequence[TargetName]) -> str:
    """Join targets; of many, return only how many there are."""
    return listed(targets) if len(targets) <= _MOST_NAMED else f"{len(targets)} targets"


def _spanned(figures: Mapping[TargetName, Sequence[float]]) -> str:
    """Join targets with the range of their ratios; of many, only the worst is named."""
    if len(figures) <= _MOST_NAMED:
        return listed(
            [
                f"{target} ({range_text(found[0], found[-1])})" if found else str(target)
                for target, found in figures.items()
            ]
        )
    known = {target: found for target, found in figures.items() if found}
    if not known:
        return _named(list(figures))
    worst = max(known, key=lambda target: known[target][-1])
    low = min(found[0] for found in known.values())
    spread = range_text(low, known[worst][-1])
    return f"{len(figures)} targets ({spread}, worst {worst})"


def _lacks_blocks(each: Verdict) -> bool:
    return any(doubt.code in FEW_CODES for doubt in each.doubts)


# ---- how sure all this is


def _together(cells: Sequence[Verdict]) -> Iterator[str]:
    """Yield how many near-native cells hold for all cells together, if not all of them do."""
    tested = [
        (each, each.estimate.p_equivalence)
        for each in cells
        if each.estimate is not None and each.estimate.standard_error > 0
    ]
    adjusted = stats.holm(np.array([p for _, p in tested], dtype=np.float64))
    near = [
        (each, bool(p <= _ALPHA))
        for (each, _), p in zip(tested, adjusted, strict=True)
        if each.status is Status.NEAR_NATIVE
    ]
    alone = [f"{each.target} {each.workload}" for each, holds in near if not holds]
    if alone:
        verb = "holds" if len(alone) == 1 else "hold"
        yield (
            f"{len(near) - len(alone)} of {len(near)} near-native verdicts also hold for all cells"
            f" together (Holm's correction); {_counted('cell', alone)} {verb} alone."
        )


def _undecided(cells: Sequence[Verdict], open_cells: Sequence[OpenCell]) -> str:
    """Return how many cells are undecided, and the command that settles most of them."""
    number = sum(each.status not in DECIDED for each in cells)
    if not number:
        return "No cell is undecided."
    command, settled = best_command(open_cells)
    verb = "is" if number == 1 else "are"
    share = f"{number} of {counted(len(cells), 'cell')} {verb} undecided"
    if not command:
        return f"{share}."
    which = "them" if settled == number else f"{settled} of them"
    return f"{share}: {command} would settle {which}."
