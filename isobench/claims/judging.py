"""Judges a claim on the cells and facts of one run, and explains the result as text. Pure."""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isobench.claims import condition
from isobench.claims.reading import BOUNDS
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
    NO_TEST,
    TOO_FEW,
    duration_text,
    interval_text,
    level_text,
    listed,
    outcome_text,
    ratio_text,
    seconds_text,
    series_text,
    times_text,
)

_MOST_NAMED: Final = 3
"""A sentence names at most so many cells, and gives the number of the others."""
_MEDIAN: Final = 0.5
_SUPPORTED: Final = ClaimStatus.SUPPORTED
_REFUTED: Final = ClaimStatus.REFUTED
_INCONCLUSIVE: Final = ClaimStatus.INCONCLUSIVE
_UNTESTED: Final = ClaimStatus.UNTESTED


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """The facts about one cell that a claim needs, at the claim's margin, level and reference."""

    target: TargetName
    technology: Technology
    workload: WorkloadName
    metric: str = "time"
    status: Status
    reference: str = "native"
    """The denominator of `ratio`."""
    ratio: float | None = None
    interval: Interval | None = None
    """The reported interval of `ratio`."""
    sided: Interval | None = None
    """Its two one-sided bounds at the claim's level, which decide the status."""
    margin: float = 1.05
    """The ratio above 1 that `status` was judged at."""
    seen: tuple[float, float] | None = None
    """The smallest and the largest `ratio` that the host's clock leaves possible; None: it shows
    nothing.
    """
    is_hidden: bool = False
    """Whether the host sees too little of its work to confirm that it takes no longer."""
    value_seconds: float | None = None
    """The median, or the claim's quantile, in seconds per operation or start."""
    upper_seconds: float | None = None
    """One-sided upper bound of `value_seconds` at the claim's level."""
    lower_seconds: float | None = None
    """One-sided lower bound of `value_seconds`. Without it no claim about seconds is refuted."""
    is_unproven: bool = False
    """Whether a doubt invalidates its time as well as its ratio. Mere noise of the machine does
    not: an absolute bound can be decided in spite of it.
    """
    has_too_few: bool = False
    """Whether it has no verdict only since it has too few blocks."""
    advice: str = ""
    """What would decide an undecided cell."""
    checks_equal: bool | None = None
    """Whether its checksum is the same as natively. None: it has no checksum."""

    @property
    def name(self) -> str:
        """The cell as text: target, workload and metric."""
        return f"{self.target} {series_text(self.workload, self.metric)}"

    @property
    def outcome(self) -> str:
        """Its status in words, as the rest of the report has it."""
        return TOO_FEW if self.has_too_few else outcome_text(self.status, self.metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """The facts about one target that claims need."""

    name: TargetName
    technology: Technology
    status: TargetStatus
    variation: bool = False
    """Whether it is a target with one option changed. Only a claim that names it is about it."""
    relations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By key of a fact: how it relates to the host's ("same", "unlike", "unknown"), or its value.
    """
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By key of a fact: its value in lower case."""
    limits: Sequence[LimitCheck] = ()
    """The results of its limit tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """The status of a claim in one cell, or for one fact of one target."""

    axis: str
    target: TargetName
    status: ClaimStatus
    text: str
    room: float = 0.0
    """The distance from refuting the claim, to name the closest cell. Comparable within a claim."""
    change: str = ""
    """What would change the status."""


_Judged = tuple[ClaimStatus, str, float, str]
"""Status, text, room and change of a finding."""


# Judging


def judge(claim: Claim, cells: Sequence[CellFacts], targets: Sequence[TargetFacts]) -> ClaimVerdict:
    """Return the status of a claim in a run.

    A claim about cells has a status for each class of workloads (`axes`): supported if every
    measured target has cells of the class and all support it, refuted if one cell refutes it,
    untested without cells. The status of the claim follows from these by the same rule. In a claim
    about evidence each fact is judged alone, and `axes` is empty.

    A class and a technology stand for what the run measured of them. A workload or a target that
    the claim names does not: without it the claim can be refuted, and not supported.
    """
    # Only targets with the status "measured" count: an unproven one may not be what its name says.
    subjects = [target for target in targets if _applies_to(claim, target)]
    measured = [target for target in subjects if target.status is TargetStatus.MEASURED]
    evident = claim.kind is ClaimKind.EVIDENCE
    chosen = measured
    match claim.kind:
        case ClaimKind.EVIDENCE:
            findings = list(_judge_facts(claim, chosen))
        case ClaimKind.ENFORCEMENT:
            # A target that cannot set limits here shows nothing about whether they hold.
            chosen = [each for each in measured if each.limits]
            findings = list(_judge_limits(claim, chosen))
        case ClaimKind.CHECKSUM:
            # A target with wrong answers alone is not measured, and refutes the claim.
            wrong = {cell.target for cell in cells if cell.checks_equal is False}
            chosen = [
                each
                for each in subjects
                if each.status is TargetStatus.MEASURED or _failed(each, wrong)
            ]
            findings = list(_judge_cells(claim, cells, chosen))
        case _:
            findings = list(_judge_cells(claim, cells, chosen))
    untried = _untried(claim, targets, chosen)
    # Beside a technology, names only narrow it: it stands for what was measured of them.
    if untried and not claim.technology:
        findings += _of_untried(claim, untried, targets, list(_by_axis(findings)))
    axes = {
        axis: _combined([each.status for each in own]) for axis, own in _by_axis(findings).items()
    }
    status = _combined(list(axes.values()))
    untested = status is _UNTESTED
    return ClaimVerdict(
        claim=claim,
        status=status,
        sentence=_untested(claim, targets)
        if untested
        else _sentence(claim, findings, axes, list(_scope(claim, targets, untried))),
        axes={} if evident or claim.limits else axes,
        change=_change(claim, findings, status),
    )


def _by_axis(findings: Sequence[_Finding]) -> dict[str, list[_Finding]]:
    """Return findings by class of workloads, or by fact, in their order."""
    found: dict[str, list[_Finding]] = {}
    for each in findings:
        found.setdefault(each.axis, []).append(each)
    return found


def _applies_to(claim: Claim, target: TargetFacts) -> bool:
    """Return whether the claim is about this target. None is about the control ("native#2")."""
    return (
        claim.technology in {"", target.technology}
        and (not claim.targets or target.name in claim.targets)
        and condition.holds(claim.when, {"target": target.name, "technology": target.technology})
        # The control and the partners of duets have labels with "#": they are native again.
        and "#" not in target.name
        and (target.name in claim.targets or _represents_technology(target))
    )


def _untried(
    claim: Claim, targets: Sequence[TargetFacts], tried: Sequence[TargetFacts]
) -> list[TargetName]:
    """Return the targets that the claim names, and on which this run does not test it."""
    names = {target.name for target in tried}
    technologies = {target.name: {"technology": target.technology} for target in targets}
    return [
        name
        for name in dict.fromkeys(claim.targets)
        if name not in names
        and condition.holds(claim.when, {"target": name, **technologies.get(name, {})})
    ]


def _of_untried(
    claim: Claim,
    names: Sequence[TargetName],
    targets: Sequence[TargetFacts],
    axes: Sequence[str],
) -> Iterator[_Finding]:
    """Yield a finding for each axis about targets that the claim names and that were not tested."""
    known = {target.name: target for target in targets}
    absent = [name for name in names if name not in known]
    reasons = [f"no {' or '.join(absent)} in this run"] if absent else []
    without = "no limits can be set in {} here" if claim.limits else "{} is no target of a claim"
    reasons += [
        _lack(name, [known[name]]) or without.format(name) for name in names if name in known
    ]
    for axis in axes:
        yield _Finding(
            axis=axis,
            target=names[0],
            status=_UNTESTED,
            text=", ".join(reasons),
            change=f"measuring {listed(list(names))}",
        )


def _failed(target: TargetFacts, wrong: Collection[TargetName]) -> bool:
    """Return whether a target gave wrong answers and no number."""
    return target.status is TargetStatus.FAILED and target.name in wrong


def _represents_technology(target: TargetFacts) -> bool:
    """Return whether claims about a technology include this target: not native, no variation."""
    return target.technology is not Technology.NATIVE and not target.variation


def _combined(statuses: Sequence[ClaimStatus]) -> ClaimStatus:
    """Return the status that follows from several."""
    # A claim is about all its targets and workloads, so one counterexample refutes it. Support
    # needs all of them: an untested one leaves the claim undecided.
    if _REFUTED in statuses:
        return _REFUTED
    if all(each is _UNTESTED for each in statuses):
        return _UNTESTED
    return _SUPPORTED if set(statuses) == {_SUPPORTED} else _INCONCLUSIVE


def _judge_facts(claim: Claim, targets: Sequence[TargetFacts]) -> Iterator[_Finding]:
    """Yield one finding for each fact that the claim names and each target.

    Neither what is claimed nor what was seen distinguishes capital letters.
    """
    relations = {"same", "unlike"}
    for key, written in (claim.evidence or {}).items():
        expected = written.lower()
        for target in targets:
            seen = target.relations.get(key, "unknown").lower()
            if expected not in relations:  # the claim states a value and not a relation
                seen = target.values.get(key, seen)
            if seen == "unknown":
                status = _UNTESTED
            elif seen == expected:
                status = _SUPPORTED
            elif (seen in relations) != (expected in relations):
                # A value is claimed and only the relation is known, or the other way round.
                status = _INCONCLUSIVE
            else:
                status = _REFUTED
            text = f"{_relation_words(seen)} in {target.name}"
            if seen == "unknown" and key not in target.values:
                text = f"this fact is not known of {target.name}"
            needed = _relation_words(_opposite(written) if status is _SUPPORTED else written)
            change = f"{key} being {needed} in {target.name}"
            yield _Finding(axis=key, target=target.name, status=status, text=text, change=change)


def _opposite(expected: str) -> str:
    """Return the relation, or the value, that refutes the expected one."""
    return {"same": "unlike", "unlike": "same"}.get(expected.lower(), f"not {expected}")


def _judge_limits(claim: Claim, targets: Sequence[TargetFacts]) -> Iterator[_Finding]:
    """Yield one finding for each limit that the claim names and each target."""
    statuses = {True: _SUPPORTED, False: _REFUTED, None: _INCONCLUSIVE}
    for resource in claim.limits:
        for target in targets:
            check = next((each for each in target.limits if each.resource is resource), None)
            if check is None:
                status, text = _UNTESTED, f"no such limit can be set in {target.name} here"
            else:
                status, text = statuses[check.held], f"{target.name} {limit_words(check)}"
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
    """Return how far below the limit the program stayed, as a share of the limit."""
    return 0.0 if check.reached is None else 1 - check.reached / check.limit


def limit_words(check: LimitCheck) -> str:
    """Return a limit and how much a program got, as text."""
    words = f"{_amount(check.reached)} of {_amount(check.limit)} {check.unit}"
    if check.native is not None:
        words += f" ({_amount(check.native)} natively)"
    return f"{words}: {check.why}" if check.why else words


def _amount(number: float | None) -> str:
    return "an unknown number" if number is None else f"{float(f'{number:.3g}'):,g}"


def _judge_cells(
    claim: Claim, cells: Sequence[CellFacts], targets: Sequence[TargetFacts]
) -> Iterator[_Finding]:
    """Yield a finding for each cell of the claim, and for each target without such a cell, or
    without one of a workload that the claim names.
    """
    names = dict.fromkeys(target.name for target in targets)
    chosen_cells = [
        cell
        for cell in cells
        if cell.target in names
        and selects(claim, cell.workload)
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
    selected = claim.workloads or tuple(cell.workload for cell in chosen_cells)
    together: dict[tuple[str, TargetName], list[CellFacts]] = {}
    for cell in chosen_cells:
        together.setdefault((_class(cell.workload), cell.target), []).append(cell)
    for axis in dict.fromkeys(_class(workload) for workload in selected):
        for target in targets:
            own = together.get((axis, target.name), [])
            yield from (_finding(claim, cell, axis) for cell in own)
            lacking = _lacking(claim, axis, target, own)
            if lacking or not own:
                yield _without_cell(claim, axis, target.name, lacking)


def _lacking(claim: Claim, axis: str, target: TargetFacts, cells: Sequence[CellFacts]) -> list[str]:
    """Return the workloads of a class that the claim names, and of which a target has no cell."""
    present = {cell.workload for cell in cells}
    facts = {"class": axis, "target": target.name, "technology": target.technology}
    return [
        name
        for name in dict.fromkeys(claim.workloads)
        if _class(name) == axis != name
        and name not in present
        and condition.holds(claim.when, {**facts, "workload": name})
    ]


def _without_cell(claim: Claim, axis: str, name: TargetName, lacking: Sequence[str]) -> _Finding:
    """Return the finding of a target without a cell of a class, or of the named workloads."""
    if lacking:
        noun = "checksum" if claim.kind is ClaimKind.CHECKSUM else "cell"
        noun = noun if claim.metric == TIME.name else claim.metric
        what = f"{noun} of {listed(list(lacking))}"
    else:
        what = f"such cell{_metric_words(claim)}"
    return _Finding(
        axis=axis,
        target=name,
        status=_UNTESTED,
        text=f"{name} has no {what}{_together_with(claim)}",
        change=f"measuring {listed(list(lacking)) or axis} on {name}{_together_with(claim)}",
    )


def _class(workload: str) -> str:
    return workload.partition(".")[0]


def selects(claim: Claim, workload: str) -> bool:
    """Return whether a claim names a workload or its class. One that names none is about all."""
    names = claim.workloads
    return not names or workload in names or _class(workload) in names


def _finding(claim: Claim, cell: CellFacts, axis: str) -> _Finding:
    """Return the finding of one cell."""
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
    # Isolation cannot make the same work faster. A faster cell has another cause (a cgroup of its
    # own beside busy neighbours, another file system), so it neither supports nor refutes.
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
    """Return whether the reported interval lies wholly on the side of 1 that `status` means."""
    if interval is None:
        return False
    return interval.low > 1 if status is Status.SLOWER else interval.high < 1


def _bound(claim: Claim, cell: CellFacts) -> _Judged:
    """Judge a bound, or both ends of a range: one refuted end refutes, and support needs both."""
    sides = [side for side in BOUNDS if getattr(claim, side) is not None]
    judged = [_side(claim, cell, side) for side in sides]
    shown = " and ".join(_side_text(claim, side) for side in reversed(sides))
    in_seconds = sides[0].endswith("seconds")
    figures = _bound_words(claim, cell) if in_seconds else _ratio_words(cell)
    # Noise of the machine invalidates a ratio, but not a bound in seconds.
    distrusted = cell.is_unproven or (not in_seconds and cell.status is Status.UNPROVEN)
    status = _INCONCLUSIVE if distrusted else _combined([each for each, _ in judged])
    needed = "not staying" if status is _SUPPORTED else "proven to be"
    room = min(room for _, room in judged)
    return status, f"{figures}, claimed {shown}", room, f"{cell.name} {needed} {shown}"


def _side_text(claim: Claim, side: str) -> str:
    """Return a bound as text: "below 1 min", "above 1.04"."""
    word, _, unit = side.partition("_")
    limit = getattr(claim, side)
    return f"{word} {duration_text(limit) if unit == 'seconds' else ratio_text(limit)}"


def _side(claim: Claim, cell: CellFacts, side: str) -> tuple[ClaimStatus, float]:
    """Return the status of one bound, and the distance from its limit to the nearer end."""
    limit: float = getattr(claim, side)
    is_upper = side.startswith("below")
    least, most = cell.seen or (0.0, math.inf)
    if side.endswith("seconds"):
        low, high = cell.lower_seconds, cell.upper_seconds
        if cell.ratio and cell.value_seconds:
            native = cell.value_seconds / cell.ratio
            least, most = native * least, native * most
        else:
            least, most = 0.0, math.inf
    else:
        low, high = (cell.sided.low, cell.sided.high) if cell.sided else (None, None)
    # That it takes no longer needs more than the word of its payload.
    may_be_below, may_be_above = least < limit and not cell.is_hidden, most > limit
    supports, refutes = may_be_below, may_be_above
    if not is_upper:  # with the signs changed, "above" becomes "below"
        limit = -limit
        low, high = None if high is None else -high, None if low is None else -low
        supports, refutes = refutes, supports
    room = limit - (limit if high is None else high)
    if high is not None and high < limit:
        return (_SUPPORTED if supports else _INCONCLUSIVE), room
    # Refuting needs the other one-sided bound: a bound that is not shown is not yet refuted.
    refuted = low is not None and low >= limit and refutes
    return (_REFUTED if refuted else _INCONCLUSIVE), room


def _checksum(_: Claim, cell: CellFacts) -> _Judged:
    name = cell.name
    if cell.checks_equal:
        return _SUPPORTED, f"{name} has native's checksum", 0.0, f"{name} having another checksum"
    return _REFUTED, f"{name} has another checksum than native", 0.0, f"{name} having native's"


_RULES: Final[Mapping[ClaimKind, Callable[[Claim, CellFacts], _Judged]]] = {
    ClaimKind.EQUIVALENT: _equivalent,
    ClaimKind.ORDER: _order,
    ClaimKind.BOUND: _bound,
    ClaimKind.CHECKSUM: _checksum,
}
"""How a cell is judged, by kind of claim. Claims about evidence and limits are about targets."""


# Text


def _scope(
    claim: Claim, targets: Sequence[TargetFacts], untried: Sequence[TargetName]
) -> Iterator[str]:
    """Yield which targets of its technology the claim names, and which of these were not tested."""
    left_out = _left_out(claim, targets)
    if left_out:
        yield f"the claim names {listed(list(claim.targets))}, and not {listed(list(left_out))}"
    if untried and claim.technology:
        yield f"this run does not test it on {listed(list(untried))}"


def _left_out(claim: Claim, targets: Sequence[TargetFacts]) -> list[TargetName]:
    """Return the measured targets of the claim's technology that it does not name."""
    return [
        target.name
        for target in targets
        if claim.targets
        and claim.technology == target.technology
        and target.name not in claim.targets
        and target.status is TargetStatus.MEASURED
        and "#" not in target.name
        and _represents_technology(target)
    ]


def _sentence(
    claim: Claim,
    findings: Sequence[_Finding],
    axes: Mapping[str, ClaimStatus],
    scope: Sequence[str],
) -> str:
    """Return the findings for each class, what would decide the undecided ones, and on which
    targets the claim was tested (`scope`).
    """
    parts = []
    by_axis = _by_axis(findings)
    for axis, status in axes.items():
        own = by_axis[axis]
        if claim.evidence:
            words = _fact_words(own, status, claim.evidence[axis])
        else:
            words = _axis_words(claim, own, status)
        parts.append(f"{axis} {status}: {words}")
    open_statuses = {each.status for each in findings}
    if _INCONCLUSIVE in open_statuses and _REFUTED not in open_statuses and not claim.limits:
        parts.append("more blocks, or the advice of these cells' doubts, would decide it")
    if _UNTESTED in open_statuses and claim.needs:
        parts.append(f"a full test needs {claim.needs}")
    return "; ".join([*parts, *scope]) + "."


def _fact_words(findings: Sequence[_Finding], status: ClaimStatus, claimed: str) -> str:
    """Return how one fact is in the targets, and how it is claimed to be."""
    if status is _SUPPORTED:
        return f"{_relation_words(claimed)} in {_targets(findings)}"
    return f"{_decisive(findings, status)}, claimed {_relation_words(claimed)}"


def _change(claim: Claim, findings: Sequence[_Finding], status: ClaimStatus) -> str:
    """Return what would change the status, from the finding that is closest to it."""
    chosen = [each for each in findings if each.status is status and each.change]
    if status is _INCONCLUSIVE and not chosen:  # only for want of what was not measured
        chosen = [each for each in findings if each.status is _UNTESTED and each.change]
    if status is _UNTESTED or not chosen:
        return "" if status is not _UNTESTED else claim.needs or _needed(claim, "measuring")
    if status is _SUPPORTED:
        closest = min(chosen, key=lambda each: each.room)
        return closest.change
    if status is _REFUTED:
        others = f", and the same for {len(chosen) - 1} more" if len(chosen) > 1 else ""
        return min(chosen, key=lambda each: each.room).change + others
    first, *rest = dict.fromkeys(each.change for each in chosen)
    return f"{first}; {len(rest)} more are undecided" if rest else first


def _axis_words(claim: Claim, findings: Sequence[_Finding], status: ClaimStatus) -> str:
    """Return the cells that decide the status; of many that support it, the closest to refuting."""
    if status is _SUPPORTED and len(findings) > 1:
        closest = min(findings, key=lambda each: each.room)
        what = "held in" if claim.limits else f"all {len(findings)} cells of"
        cells = f"{what} {_targets(findings)}"
        return f"{cells} (nearest to the limit: {closest.text})"
    return _decisive(findings, status)


def _decisive(findings: Sequence[_Finding], status: ClaimStatus) -> str:
    """Return the findings that decide the status, the strongest first; of many, the number."""
    if status is _INCONCLUSIVE:
        chosen = [each for each in findings if each.status is not _SUPPORTED]
    else:
        chosen = [each for each in findings if each.status is status]
    # What was not measured comes first: no block more would decide it. Of cells, the one that is
    # furthest on the wrong side is the strongest.
    chosen.sort(key=lambda each: (each.status is not _UNTESTED, each.room))
    named = ", ".join(each.text for each in chosen[:_MOST_NAMED])
    more = len(chosen) - _MOST_NAMED
    return f"{named}, and {more} more" if more > 0 else named


def _targets(findings: Sequence[_Finding]) -> str:
    return listed(list(dict.fromkeys(each.target for each in findings)))


def _untested(claim: Claim, targets: Sequence[TargetFacts]) -> str:
    """Return why nothing was tested, and what must be measured."""
    needs = claim.needs or _needed(claim, "a run that measures")
    return f"Not tested: {_reason(claim, targets)}; needs {needs}."


def _needed(claim: Claim, what: str) -> str:
    return "another target" if _is_about_reference(claim) else f"{what} {_subject(claim)}"


def _is_about_reference(claim: Claim) -> bool:
    """Return whether a claim about cells names only what they are compared with."""
    is_about_cells = claim.kind not in (ClaimKind.EVIDENCE, ClaimKind.ENFORCEMENT)
    return is_about_cells and {*claim.targets} == {claim.reference}


def _reason(claim: Claim, targets: Sequence[TargetFacts]) -> str:
    """Return why nothing was tested."""
    if claim.kind is ClaimKind.EVIDENCE and not claim.evidence:
        return NO_TEST
    subjects = [target for target in targets if _applies_to(claim, target)]
    noun = " or ".join(claim.targets) or f"{claim.technology} target".lstrip()
    if claim.when:  # which may leave out a target that the run has
        noun = "such target"
    lack = _lack(noun, subjects)
    if not lack and claim.reference != "native":
        compared = [each for each in targets if claim.reference in {each.name, each.technology}]
        other = f"{claim.reference} target" if claim.reference in {*Technology} else claim.reference
        lack = _lack(f"{other} to compare with", compared)
    if not lack and _is_about_reference(claim):
        return f"{claim.reference} is what this claim compares with, and no target of it"
    return lack or "this run measured nothing that tests it"


def _lack(noun: str, targets: Sequence[TargetFacts]) -> str:
    """Return that no such target was measured; empty where one was."""
    if not targets:
        return f"no {noun} in this run"
    if any(each.status is TargetStatus.MEASURED for each in targets):
        return ""
    states = ", ".join(f"{each.name} {each.status}" for each in targets)
    return f"no {noun} was measured ({states})"


def _together_with(claim: Claim) -> str:
    return "" if claim.reference == "native" else f" together with {claim.reference}"


def _metric_words(claim: Claim) -> str:
    return "" if claim.metric == TIME.name else f" of {claim.metric}"


def _subject(claim: Claim) -> str:
    """Return the subject of a claim, from its fields."""
    targets = listed(list(claim.targets)) or f"{claim.technology} targets".lstrip()
    targets += f" where {claim.when}" if claim.when else ""
    limits = [f"limits of {resource}" for resource in claim.limits]
    what = listed(list(claim.workloads or claim.evidence or limits or ["cells"] * bool(claim.when)))
    return (
        (f"{what} on {targets}" if what else targets) + _metric_words(claim) + _together_with(claim)
    )


def _relation_words(relation: str) -> str:
    """Return a relation to the host's fact as text; a value unchanged."""
    words = {"same": "the host's own", "unlike": "unlike the host's"}
    return words.get(relation.lower(), relation)


def _ratio_words(cell: CellFacts) -> str:
    if cell.ratio is None:
        return f"{cell.name} without a ratio ({cell.outcome})"
    interval, decides = "", cell.sided or cell.interval
    if decides is not None:
        interval = f" {interval_text(decides.ends)}{level_text(decides.level)}"
    figure = f"{times_text(cell.ratio)} {cell.reference}{interval}"
    return f"{cell.name} {figure} ({cell.outcome})"


def _bounds_words(cell: CellFacts) -> str:
    """Return the interval that decides the status, as text."""
    name = cell.name
    if cell.sided is None:
        return f"the interval of {name}"
    return f"the {cell.sided.level * 100:g} % interval of {name}"


def _bound_words(claim: Claim, cell: CellFacts) -> str:
    middle = "median" if claim.quantile == _MEDIAN else f"p{claim.quantile * 100:g}"
    ends = " and ".join(
        f"{word} {seconds_text(end)}"
        for word, end in (("at least", cell.lower_seconds), ("at most", cell.upper_seconds))
        if end is not None
    )
    figures = ends or "without a figure"
    if cell.value_seconds is not None:
        # The bounds are those of the quantile: single starts may lie beyond.
        figures = f"{middle} {seconds_text(cell.value_seconds)}" + (f" (it is {ends})" * bool(ends))
    unproven = f" ({TOO_FEW if cell.has_too_few else 'unproven'})" if cell.is_unproven else ""
    return f"{cell.name} {figures}{unproven}"


def _distance(cell: CellFacts) -> float:
    """Return how far a ratio is from 1, in either direction."""
    return 0.0 if cell.ratio is None else max(cell.ratio, 1 / cell.ratio) - 1
