"""The closing words of a run: what was found in each class of workload, and how sure. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from isobench import stats
from isobench.model import TIME, Status, Technology, Verdict
from isobench.model.units import TargetName
from isobench.model.wording import listed, outcome_text, range_text
from isobench.workloads import classes

_MOST_NAMED: Final = 4
"""So many targets of a clause are named one by one; of more, the first and how many there are."""
_ALPHA: Final = 0.05
_DECIDED: Final = frozenset({Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER})


def headline(
    verdicts: Sequence[Verdict],
    technologies: Mapping[TargetName, Technology],
    *,
    quick: bool,
    complete: bool,
    margin: float,
    remarks: Sequence[str] = (),
) -> str:
    """Return one sentence a class of workloads, and one for each other metric in it, one on how
    sure all this is, and the `remarks`.

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
        return " ".join(["Nothing was measured except native.", *ended, *remarks])
    together: dict[tuple[str, str], list[Verdict]] = {}
    for each in cells:
        together.setdefault((each.workload.partition(".")[0], each.metric), []).append(each)
    sentences = ["Quick run: ratios to native, no verdicts."] if quick else []
    names = sorted(dict.fromkeys(name for name, _ in together), key=classes.rank)
    for name, metric in sorted(
        together, key=lambda key: (names.index(key[0]), *_time_first(key[1]))
    ):
        own = together[name, metric]
        clauses = _ratios(own) if quick else _clauses(own)
        subject = classes.opening(name) + ("" if metric == TIME.name else f", {metric}")
        sentences.append(f"{subject}: {'; '.join(clauses)}.")
    sure = _sureness(cells, quick=quick, complete=complete, margin=margin)
    return " ".join([*sentences, *sure, *remarks])


def _time_first(metric: str) -> tuple[bool, str]:
    return metric != TIME.name, metric


def left_out_sentence(targets: Sequence[str], workloads: Sequence[str], command: str) -> str:
    """Say what the budget had no room for and what measures it; nothing where all is measured."""
    kinds = (("target", targets), ("workload", workloads))
    parts = [_counted(noun, names) for noun, names in kinds if names]
    return (
        f"Left out to keep the budget: {listed(parts)}; to measure all: {command}" if parts else ""
    )


def _counted(noun: str, names: Sequence[str]) -> str:
    """Return names, or of many their number and the first of them."""
    if len(names) <= _MOST_NAMED:
        return listed(names)
    first = ", ".join(names[: _MOST_NAMED - 1])
    return f"{len(names)} {noun}s ({first} and {len(names) - _MOST_NAMED + 1} more)"


def _by_target(cells: Sequence[Verdict]) -> dict[TargetName, list[Verdict]]:
    found: dict[TargetName, list[Verdict]] = {}
    for each in cells:
        found.setdefault(each.target, []).append(each)
    return found


def _ratios(cells: Sequence[Verdict]) -> Iterator[str]:
    """Yield what each target took, as a range over its cells; of very many, the ends alone."""
    targets = _by_target(cells)
    if len(targets) > 2 * _MOST_NAMED:
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


def _clauses(cells: Sequence[Verdict]) -> Iterator[str]:
    """Yield who is near-native, who is slower and by how much, and of whom nothing is known; the
    cells are of one metric.
    """
    words = {status: outcome_text(status, cells[0].metric) for status in Status}
    targets = _by_target(cells)
    slower = {t: own for t, own in targets.items() if _any(own, Status.SLOWER)}
    calm = {t: own for t, own in targets.items() if t not in slower}
    near = [t for t, own in calm.items() if all(c.status is Status.NEAR_NATIVE for c in own)]
    part = [t for t, own in calm.items() if t not in near and _any(own, Status.NEAR_NATIVE)]
    faster = [t for t, own in calm.items() if t not in part and _any(own, Status.FASTER)]
    unknown = [t for t in calm if t not in near and t not in part and t not in faster]
    if near:
        yield f"near-native in {_named(near)}"
    if part:
        yield f"partly near-native in {_named(part, _shares(calm, part))}"
    if slower:
        figures = {t: _found([c for c in own if _is_slower(c)]) for t, own in slower.items()}
        yield f"{words[Status.SLOWER]} in {_spanned(figures)}"
    if faster:
        yield f"{words[Status.FASTER]}, unexplained, in {_named(faster)}"
    few = [t for t in unknown if all(_lacks_blocks(each) for each in calm[t])]
    if few:
        yield f"too few blocks to tell in {_spanned({t: _found(calm[t]) for t in few})}"
    if undecided := [t for t in unknown if t not in few]:
        yield f"undecided in {_spanned({t: _found(calm[t]) for t in undecided})}"


def _named(targets: Sequence[TargetName], words: Sequence[str] = ()) -> str:
    """Join targets, or words about each; of many, only some are named."""
    if len(targets) <= _MOST_NAMED:
        return listed(words or targets)
    shown = ", ".join(targets[: _MOST_NAMED - 1])
    return f"{len(targets)} targets ({shown} and {len(targets) - _MOST_NAMED + 1} more)"


def _spanned(figures: Mapping[TargetName, Sequence[float]]) -> str:
    """Join targets with the range of their ratios; of many, only those at the ends are named."""
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
    least = min(known, key=lambda target: known[target][0])
    most = max(known, key=lambda target: known[target][-1])
    low, high = known[least][0], known[most][-1]
    return f"{len(figures)} targets ({range_text(low, high)}, from {least} to {most})"


def _lacks_blocks(each: Verdict) -> bool:
    return any(doubt.code in {"few-blocks", "no-estimate"} for doubt in each.doubts)


def _is_slower(each: Verdict) -> bool:
    return each.status is Status.SLOWER


def _any(cells: Sequence[Verdict], status: Status) -> bool:
    return any(each.status is status for each in cells)


def _shares(cells: Mapping[TargetName, Sequence[Verdict]], part: Sequence[TargetName]) -> list[str]:
    """Return targets, each with how many of its cells are near-native."""
    return [
        f"{target} ({sum(each.status is Status.NEAR_NATIVE for each in cells[target])}"
        f" of {len(cells[target])} cells)"
        for target in part
    ]


def _together(cells: Sequence[Verdict]) -> str:
    """Return how many near-native cells hold for all cells together, if not all of them do."""
    tested = [
        (each, each.estimate.p_equivalence)
        for each in cells
        if each.estimate is not None and each.estimate.standard_error > 0
    ]
    adjusted = stats.holm(np.array([p for _, p in tested], dtype=np.float64))
    held = [
        bool(p <= _ALPHA)
        for (each, _), p in zip(tested, adjusted, strict=True)
        if each.status is Status.NEAR_NATIVE
    ]
    if all(held):
        return ""
    return f" in each cell; for all cells together, {sum(held)} of {len(held)} hold (Holm)"


def _sureness(
    cells: Sequence[Verdict], *, quick: bool, complete: bool, margin: float
) -> Iterator[str]:
    """Yield what near-native means and how much is open; that a run is partial."""
    if not quick:
        open_cells = sum(each.status not in _DECIDED for each in cells)
        share = (
            f"{open_cells} of {len(cells)} cells are undecided"
            if open_cells
            else "No cell is undecided"
        )
        yield f"Near-native means shown within {100 * (margin - 1):g} %{_together(cells)}. {share}."
    if not complete:
        yield "The run was cut short: these answers are partial."
