"""What one run says about a claim: cells and facts weighed, and put in words. Pure."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isobench.claims import condition
from isobench.model import (
    TIME,
    Claim,
    ClaimKind,
    ClaimStatus,
    ClaimVerdict,
    Direction,
    Interval,
    LimitCheck,
    Status,
    TargetStatus,
    Technology,
)
from isobench.model.units import TargetName, WorkloadName
from isobench.model.wording import (
    duration_text,
    interval_text,
    listed,
    outcome_text,
    ratio_text,
    seconds_text,
    series_text,
    times_text,
)

_MOST_NAMED: Final = 3
"""So many cells are named in a sentence; the rest is counted."""
_MEDIAN: Final = 0.5
_SUPPORTED: Final = ClaimStatus.SUPPORTED
_REFUTED: Final = ClaimStatus.REFUTED
_INCONCLUSIVE: Final = ClaimStatus.INCONCLUSIVE
_UNTESTED: Final = ClaimStatus.UNTESTED


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """What a run knows about one cell, as far as a claim asks: at its margin and level, to its
    reference.
    """

    target: TargetName
    technology: Technology
    workload: WorkloadName
    metric: str = "time"
    status: Status
    reference: str = "native"
    """What `ratio` is taken to."""
    ratio: float | None = None
    interval: Interval | None = None
    """The reported interval of `ratio`."""
    sided: Interval | None = None
    """Its one-sided bounds at the claim's level, both: what the standing rests on."""
    margin: float = 1.05
    """The ratio above 1 that `status` was judged at."""
    value_seconds: float | None = None
    """The median, or the claim's quantile, per operation or start."""
    upper_seconds: float | None = None
    """One-sided upper bound of `value_seconds` at the claim's level."""
    lower_seconds: float | None = None
    """One-sided lower bound: without it a bound is never refuted."""
    barred: bool = False
    """A doubt takes its time away as well as its ratio: more than that the machine is noisy, which
    an absolute bound need not mind.
    """
    advice: str = ""
    """What would decide an open cell."""
    checks_equal: bool | None = None
    """Whether the payload computed what it computes natively; None: it has no checksum."""

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.target} {series_text(self.workload, self.metric)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """What a run knows about one target, as far as claims ask."""

    name: TargetName
    technology: Technology
    status: TargetStatus
    variation: bool = False
    """It is another target with an option changed: only a claim that names it speaks of it."""
    relations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fact key -> "same", "unlike" or "unknown" against the host, or the value itself."""
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fact key -> the value, in small letters."""
    limits: Sequence[LimitCheck] = ()
    """The limits that were set in an instance of it, and pushed past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """What one cell, or one fact of one target, says about a claim."""

    axis: str
    target: TargetName
    status: ClaimStatus
    text: str
    room: float = 0.0
    """How far from refuting, to name the closest; comparable within a claim only."""
    change: str = ""
    """What would turn it."""


_Judged = tuple[ClaimStatus, str, float, str]
"""Standing, text, room and change of a finding."""


# Judging


def judge(claim: Claim, cells: Sequence[CellFacts], targets: Sequence[TargetFacts]) -> ClaimVerdict:
    """Return what the run says about the claim.

    Only targets whose status is "measured" speak: an unproven one is not what its name says. In a
    claim about cells each class of workload is an axis; in one about evidence each fact is weighed
    alone, and `axes` stays empty. An axis is supported if every such target has cells in it and all
    of them support it, refuted by one cell that refutes it, untested without any; the claim follows
    from its axes by the same rule.
    """
    subjects = [target for target in targets if _speaks_of(claim, target)]
    measured = [target for target in subjects if target.status is TargetStatus.MEASURED]
    evident = claim.kind is ClaimKind.EVIDENCE
    match claim.kind:
        case ClaimKind.EVIDENCE:
            findings = list(_weigh_facts(claim, measured))
        case ClaimKind.ENFORCEMENT:
            # One that sets no limits here is no witness of whether limits hold.
            findings = list(_weigh_limits(claim, [each for each in measured if each.limits]))
        case _:
            findings = list(_weigh_cells(claim, cells, measured))
    axes = {
        axis: _together([each.status for each in findings if each.axis == axis])
        for axis in dict.fromkeys(each.axis for each in findings)
    }
    status = _together(list(axes.values()))
    untested = status is _UNTESTED
    return ClaimVerdict(
        claim=claim,
        status=status,
        sentence=_untested(claim, subjects) if untested else _sentence(claim, findings, axes),
        axes={} if evident or claim.limits else axes,
        change=_change(claim, findings, status),
    )


def _speaks_of(claim: Claim, target: TargetFacts) -> bool:
    """Say whether the claim is about this target. The control ("native#2") is nobody's subject."""
    return (
        claim.technology in {"", target.technology}
        and (not claim.targets or target.name in claim.targets)
        and condition.holds(claim.when, {"target": target.name, "technology": target.technology})
        and "#" not in target.name
        and (target.name in claim.targets or _usual(target))
    )


def _usual(target: TargetFacts) -> bool:
    """Say whether a target stands for its technology: not native, no variation of another."""
    return target.technology is not Technology.NATIVE and not target.variation


def _together(standings: Sequence[ClaimStatus]) -> ClaimStatus:
    """Return what several standings come to."""
    if _REFUTED in standings:
        return _REFUTED
    if all(each is _UNTESTED for each in standings):
        return _UNTESTED
    return _SUPPORTED if set(standings) == {_SUPPORTED} else _INCONCLUSIVE


def _weigh_facts(claim: Claim, targets: Sequence[TargetFacts]) -> Iterator[_Finding]:
    """Yield one finding for each fact that the claim names and each target."""
    relations = {"same", "unlike"}
    for key, expected in (claim.evidence or {}).items():
        for target in targets:
            seen = target.relations.get(key, "unknown")
            if expected not in relations:  # a value is claimed: it is held against the value
                seen = target.values.get(key, seen)
            if seen == "unknown":
                status = _UNTESTED
            elif expected in {seen, seen.lower()} or seen == expected.lower():
                status = _SUPPORTED
            elif (seen in relations) != (expected in relations):
                status = _INCONCLUSIVE  # a relation tells no value, a value no relation
            else:
                status = _REFUTED
            text = f"{_relation_words(seen)} in {target.name}"
            if seen == "unknown" and key not in target.values:
                text = f"no such fact was seen in {target.name}"
            otherwise = "not " if status is _SUPPORTED else ""
            change = f"{key} seen to be {otherwise}{_relation_words(expected)} in {target.name}"
            yield _Finding(axis=key, target=target.name, status=status, text=text, change=change)


def _weigh_limits(claim: Claim, targets: Sequence[TargetFacts]) -> Iterator[_Finding]:
    """Yield one finding for each limit that the claim names and each target."""
    standings = {True: _SUPPORTED, False: _REFUTED, None: _INCONCLUSIVE}
    for resource in claim.limits:
        for target in targets:
            check = next((each for each in target.limits if each.resource is resource), None)
            if check is None:
                status, text = _UNTESTED, f"no such limit can be set in {target.name} here"
            else:
                status, text = standings[check.held], f"{target.name} {limit_words(check)}"
            held = "not holding" if status is _SUPPORTED else "holding"
            yield _Finding(
                axis=resource,
                target=target.name,
                status=status,
                text=text,
                room=0.0 if check is None else _slack(check),
                change=f"the limit of {resource} {held} in {target.name}",
            )


def _slack(check: LimitCheck) -> float:
    """Return how far below the limit the program was stopped, as a share; to name the closest."""
    return 0.0 if check.reached is None else 1 - check.reached / check.limit


def limit_words(check: LimitCheck) -> str:
    """Return what was set and how far a program came, in words."""
    words = f"{_amount(check.reached)} of {_amount(check.limit)} {check.unit}"
    if check.native is not None:
        words += f" ({_amount(check.native)} natively)"
    return f"{words}: {check.why}" if check.why else words


def _amount(number: float | None) -> str:
    return "an unknown number" if number is None else f"{float(f'{number:.3g}'):,g}"


def _weigh_cells(
    claim: Claim, cells: Sequence[CellFacts], targets: Sequence[TargetFacts]
) -> Iterator[_Finding]:
    """Yield a finding for each cell that the claim is about, and for each target without any."""
    names = [target.name for target in targets]
    telling = [
        cell
        for cell in cells
        if cell.target in names
        and _selects(claim.workloads, cell.workload)
        and condition.holds(
            claim.when,
            {
                "workload": cell.workload,
                "class": _class(cell.workload),
                "target": cell.target,
                "technology": cell.technology,
            },
        )
        and (claim.kind is not ClaimKind.CHECKSUM or cell.checks_equal is not None)
    ]
    selected = claim.workloads or tuple(cell.workload for cell in telling)
    for axis in dict.fromkeys(_class(workload) for workload in selected):
        for name in names:
            own = [
                cell for cell in telling if cell.target == name and _class(cell.workload) == axis
            ]
            yield from (_finding(claim, cell, axis) for cell in own)
            if not own:
                text = f"{name} has no such cell" + _metric_words(claim) + _beside(claim)
                yield _Finding(axis=axis, target=name, status=_UNTESTED, text=text)


def _class(workload: str) -> str:
    return workload.partition(".")[0]


def _selects(selectors: Sequence[str], workload: str) -> bool:
    """Say whether a workload or its class is among the selectors; none selects all."""
    return not selectors or workload in selectors or _class(workload) in selectors


def _finding(claim: Claim, cell: CellFacts, axis: str) -> _Finding:
    """Return what one cell says."""
    status, text, room, change = _RULES[claim.kind](claim, cell)
    if status is _INCONCLUSIVE and cell.advice:
        change = f"{cell.name}: {cell.advice}"
    return _Finding(
        axis=axis, target=cell.target, status=status, text=text, room=room, change=change
    )


def _equivalent(_: Claim, cell: CellFacts) -> _Judged:
    words, room = _ratio_words(cell), -_distance(cell)
    limits = interval_text((1 / cell.margin, cell.margin))
    if cell.status is Status.NEAR_NATIVE:
        return _SUPPORTED, words, room, f"{_bounds_words(cell)} leaving {limits}"
    # Isolation does not make work faster: a faster cell wants an explanation before it counts
    # for or against anything.
    refuted = cell.status is Status.SLOWER
    change = f"{_bounds_words(cell)} coming inside {limits}"
    return (_REFUTED if refuted else _INCONCLUSIVE), words, room, change


def _order(claim: Claim, cell: CellFacts) -> _Judged:
    words, room = _ratio_words(cell), _distance(cell)
    claimed, opposite, limit = Status.SLOWER, Status.FASTER, cell.margin
    if claim.direction is Direction.FASTER:
        claimed, opposite, limit = opposite, claimed, 1 / limit
    side = "above" if claimed is Status.SLOWER else "below"
    if cell.status is claimed:
        change = f"{_bounds_words(cell)} not lying {side} {ratio_text(limit)}"
        return _SUPPORTED, words, room, change
    # A difference too small to matter may still be one in the direction claimed.
    refuted = cell.status is opposite or (
        cell.status is Status.NEAR_NATIVE
        and (claim.margin is not None or not _leans(cell.interval, claimed))
    )
    change = f"{_bounds_words(cell)} lying {side} {ratio_text(limit)}"
    return (_REFUTED if refuted else _INCONCLUSIVE), words, room, change


def _leans(interval: Interval | None, status: Status) -> bool:
    """Say whether the reported interval leaves out 1 on the side of the standing."""
    if interval is None:
        return False
    return interval.low > 1 if status is Status.SLOWER else interval.high < 1


def _bound(claim: Claim, cell: CellFacts) -> _Judged:
    ratio = claim.below_ratio if claim.below_ratio is not None else claim.above_ratio
    seconds = claim.below_seconds if claim.below_seconds is not None else claim.above_seconds
    below = claim.below_ratio is not None or claim.below_seconds is not None
    side = "below" if below else "above"
    if ratio is not None:
        low, high = (cell.sided.low, cell.sided.high) if cell.sided else (None, None)
        limit, shown = ratio, f"{side} {ratio_text(ratio)}"
        words = f"{_ratio_words(cell)}, claimed {shown}"
    else:
        low, high, limit = cell.lower_seconds, cell.upper_seconds, seconds or 0.0
        shown = f"{side} {duration_text(limit)}"
        words = f"{_bound_words(claim, cell)}, claimed {shown}"
    if not below:  # mirrored, what is above becomes what is below
        low, high, limit = (
            None if high is None else -high,
            None if low is None else -low,
            -limit,
        )
    room = limit - (limit if high is None else high)
    change = f"{cell.name} measured surely {shown}"
    if cell.barred or (ratio is not None and cell.status is Status.UNPROVEN):
        return _INCONCLUSIVE, words, room, change
    if high is not None and high < limit:
        return _SUPPORTED, words, room, f"{cell.name} not staying {shown}"
    refuted = low is not None and low >= limit
    return (_REFUTED if refuted else _INCONCLUSIVE), words, room, change


def _checksum(_: Claim, cell: CellFacts) -> _Judged:
    name = cell.name
    if cell.checks_equal:
        return _SUPPORTED, f"{name} computes what native does", 0.0, f"{name} computing another"
    return _REFUTED, f"{name} computes another answer than native", 0.0, f"{name} computing it too"


_RULES: Final[Mapping[ClaimKind, Callable[[Claim, CellFacts], _Judged]]] = {
    ClaimKind.EQUIVALENT: _equivalent,
    ClaimKind.ORDER: _order,
    ClaimKind.BOUND: _bound,
    ClaimKind.CHECKSUM: _checksum,
}
"""What each kind of claim about cells makes of one; evidence is a matter of targets."""


# Words


def _sentence(claim: Claim, findings: Sequence[_Finding], axes: Mapping[str, ClaimStatus]) -> str:
    """Return what was found, axis by axis, and what would settle what is open."""
    parts = []
    for axis, status in axes.items():
        own = [each for each in findings if each.axis == axis]
        if claim.evidence:
            words = _fact_words(own, status, claim.evidence[axis])
        else:
            words = _axis_words(claim, own, status)
        parts.append(f"{axis} {status}: {words}")
    open_standings = {each.status for each in findings}
    if _INCONCLUSIVE in open_standings and _REFUTED not in open_standings and not claim.limits:
        parts.append("more blocks, or what the doubts of these cells advise, would decide")
    if _UNTESTED in open_standings and claim.needs:
        parts.append(f"a full test needs {claim.needs}")
    return "; ".join(parts) + "."


def _fact_words(findings: Sequence[_Finding], status: ClaimStatus, claimed: str) -> str:
    """Return how one fact stands in the targets, and how it was claimed to."""
    if status is _SUPPORTED:
        return f"{_relation_words(claimed)} in {_targets(findings)}"
    return f"{_telling(findings, status)}, claimed {_relation_words(claimed)}"


def _change(claim: Claim, findings: Sequence[_Finding], status: ClaimStatus) -> str:
    """Return what would change the standing, from the finding that comes closest to doing so."""
    told = [each for each in findings if each.status is status and each.change]
    if status is _UNTESTED or not told:
        return "" if status is not _UNTESTED else claim.needs or f"measuring {_wanted(claim)}"
    if status is _SUPPORTED:
        closest = min(told, key=lambda each: each.room)
        return closest.change
    if status is _REFUTED:
        others = f", and {len(told) - 1} more likewise" if len(told) > 1 else ""
        return min(told, key=lambda each: each.room).change + others
    others = f"; {len(told) - 1} more are open" if len(told) > 1 else ""
    return f"{told[0].change}{others}"


def _axis_words(claim: Claim, findings: Sequence[_Finding], status: ClaimStatus) -> str:
    """Return the cells that made the standing; of many that support, the closest to refuting."""
    if status is _SUPPORTED and len(findings) > 1:
        closest = min(findings, key=lambda each: each.room)
        what = "held in" if claim.limits else f"all {len(findings)} cells of"
        cells = f"{what} {_targets(findings)}"
        return f"{cells}, the closest call {closest.text}"
    return _telling(findings, status)


def _telling(findings: Sequence[_Finding], status: ClaimStatus) -> str:
    """Return the findings that made the standing, the strongest first, many of them counted."""
    if status is _INCONCLUSIVE:
        told = [each for each in findings if each.status is not _SUPPORTED]
    else:
        told = [each for each in findings if each.status is status]
    told.sort(key=lambda each: each.room)
    named = ", ".join(each.text for each in told[:_MOST_NAMED])
    more = len(told) - _MOST_NAMED
    return f"{named}, and {more} more" if more > 0 else named


def _targets(findings: Sequence[_Finding]) -> str:
    return listed(list(dict.fromkeys(each.target for each in findings)))


def _untested(claim: Claim, subjects: Sequence[TargetFacts]) -> str:
    """Return why nothing was measured, and what would have to be."""
    whose = listed(list(claim.targets)) or f"{claim.technology} target"
    absent = [f"{each.name} {each.status}" for each in subjects if each.status != "measured"]
    if not subjects:
        why = f"no {whose} in this run"
    elif len(absent) == len(subjects):
        why = f"no {whose} was measured ({', '.join(absent)})"
    else:
        why = "this run measured nothing that tells"
    needs = claim.needs or f"a run that measures {_wanted(claim)}"
    return f"Not tested: {why}; needs {needs}."


def _beside(claim: Claim) -> str:
    return "" if claim.reference == "native" else f" beside {claim.reference}"


def _metric_words(claim: Claim) -> str:
    return "" if claim.metric == TIME.name else f" of {claim.metric}"


def _wanted(claim: Claim) -> str:
    """Return what a claim is about, from its fields alone."""
    whom = listed(list(claim.targets)) or f"{claim.technology} targets"
    limits = [f"limits of {resource}" for resource in claim.limits]
    what = listed(list(claim.workloads or claim.evidence or limits))
    return (f"{what} on {whom}" if what else whom) + _metric_words(claim) + _beside(claim)


def _relation_words(relation: str) -> str:
    """Return how a fact inside stands to the host's; a value speaks for itself."""
    return {"same": "the host's own", "unlike": "unlike the host's"}.get(relation, relation)


def _ratio_words(cell: CellFacts) -> str:
    if cell.ratio is None:
        return f"{cell.name} without a ratio ({cell.status})"
    interval, decides = "", cell.sided or cell.interval
    if decides is not None:
        interval = f" {interval_text(decides.ends)}"
    figure = f"{times_text(cell.ratio)} {cell.reference}{interval}"
    return f"{cell.name} {figure} ({outcome_text(cell.status, cell.metric)})"


def _bounds_words(cell: CellFacts) -> str:
    """Return the bounds that a standing rests on."""
    name = cell.name
    if cell.sided is None:
        return f"the interval of {name}"
    return f"the {cell.sided.level * 100:g} % interval of {name}"


def _bound_words(claim: Claim, cell: CellFacts) -> str:
    middle = "median" if claim.quantile == _MEDIAN else f"p{claim.quantile * 100:g}"
    known = [
        f"{word} {seconds_text(value)}"
        for word, value in (
            (middle, cell.value_seconds),
            ("at least", cell.lower_seconds),
            ("at most", cell.upper_seconds),
        )
        if value is not None
    ]
    unproven = " (unproven)" if cell.barred else ""
    figures = ", ".join(known) or "without a figure"
    return f"{cell.name} {figures}{unproven}"


def _distance(cell: CellFacts) -> float:
    """Return how far a ratio is from 1, either way."""
    return 0.0 if cell.ratio is None else max(cell.ratio, 1 / cell.ratio) - 1
