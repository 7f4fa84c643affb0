"""Claims: sentences as data, and what one run says about them. Pure."""

import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

import msgspec

from isobench.errors import UsageError
from isobench.model import (
    Claim,
    ClaimKind,
    ClaimStanding,
    ClaimVerdict,
    Direction,
    Interval,
    Standing,
    Technology,
)
from isobench.units import TargetName, WorkloadName

_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Claim))
_IDENTIFIER: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MOST_NAMED: Final = 3
"""So many cells are named in a sentence; the rest is counted."""
_SUPPORTED: Final = ClaimStanding.SUPPORTED
_REFUTED: Final = ClaimStanding.REFUTED
_INCONCLUSIVE: Final = ClaimStanding.INCONCLUSIVE
_UNTESTED: Final = ClaimStanding.UNTESTED


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFacts:
    """What a run knows about one cell, as far as claims ask."""

    target: TargetName
    technology: Technology
    workload: WorkloadName
    standing: Standing
    ratio: float | None = None
    interval: Interval | None = None
    """The reported interval of `ratio`."""
    value_seconds: float | None = None
    """The median, per operation or start."""
    upper_seconds: float | None = None
    """One-sided 95 % upper bound of the median."""
    lower_seconds: float | None = None
    """One-sided 95 % lower bound of the median: without it a bound is never refuted."""
    checks_equal: bool | None = None
    """Whether the payload computed what it computes natively; None: it has no checksum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """What a run knows about one target, as far as claims ask."""

    name: TargetName
    technology: Technology
    status: Literal["measured", "unavailable", "failed", "unproven"]
    relations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fact key -> "same", "unlike" or "unknown" against the host, or the value itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """What one cell, or one fact of one target, says about a claim."""

    axis: str
    target: TargetName
    standing: ClaimStanding
    text: str
    room: float = 0.0
    """How far from refuting, to name the closest; comparable within a claim only."""


_Judged = tuple[ClaimStanding, str, float]
"""Standing, text and room of a finding."""


# Reading


def load(text: str, *, origin: str) -> tuple[Claim, ...]:
    """Return the claims of a TOML text: an array of tables `[[claims]]` with the fields of `Claim`.

    `origin` is the file's name, for messages. UsageError names it with claim, key and line.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{origin}: not TOML: {error}"
        raise UsageError(message, hint="https://toml.io tells how TOML is written") from error
    rows = document.get("claims")
    strangers = sorted(document.keys() - {"claims"})
    if not isinstance(rows, list) or strangers:
        found = f", found {', '.join(strangers)}" if strangers else ""
        message = f"{origin}: only [[claims]] tables are expected{found}"
        raise UsageError(message, hint="reports/claims.toml is an example")
    source = _Source(origin=origin, text=text, rows=len(rows))
    claims = tuple(_claim(row, index, source) for index, row in enumerate(rows))
    for index, claim in enumerate(claims):
        if claim.id in {other.id for other in claims[:index]}:
            source.refuse(index, claim.id, "id", "is taken by an earlier claim")
    return claims


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A claims file, to point into."""

    origin: str
    text: str
    rows: int

    def refuse(self, index: int, name: str, key: str, reason: str) -> NoReturn:
        """Raise the error that points at a key of the claim at `index`."""
        line = self._line(index, key)
        place = self.origin if line is None else f"{self.origin}:{line}"
        message = f"{place}: claim {name}: {key} {reason}"
        raise UsageError(message, hint=f"a claim has the keys {', '.join(_FIELDS)}")

    def _line(self, index: int, key: str) -> int | None:
        """Return the line of a key, or of the claim that lacks it; None where it cannot be told."""
        lines = self.text.splitlines()
        heads = [at for at, line in enumerate(lines, 1) if line.replace(" ", "") == "[[claims]]"]
        if len(heads) != self.rows:
            return None
        end = heads[index + 1] if index + 1 < len(heads) else len(lines) + 1
        own = re.compile(rf"\s*(\[claims\.)?\"?{re.escape(key)}\"?\s*(\.|=|\])")
        block = range(heads[index], end)
        return next((at for at in block if own.match(lines[at - 1])), heads[index])


def _claim(row: Any, index: int, source: _Source) -> Claim:  # noqa: ANN401 - whatever TOML held
    """Return one claim, or refuse it."""
    named = row.get("id") if isinstance(row, dict) else None
    name = named if isinstance(named, str) else f"number {index + 1}"
    if not isinstance(row, dict):
        source.refuse(index, name, "claims", "must be tables")
    for key in sorted(row.keys() - set(_FIELDS)):
        source.refuse(index, name, key, "is not a key of a claim")
    try:
        claim = msgspec.convert(row, Claim)
    except msgspec.ValidationError as error:
        said = str(error)
        where = re.search(r"`\$\.(\w+)|field `(\w+)`", said)
        key = (where[1] or where[2]) if where else "claims"
        source.refuse(index, name, key, f"does not fit: {said}")
    for key, reason in _contradictions(claim):
        source.refuse(index, name, key, reason)
    return claim


def _contradictions(claim: Claim) -> Iterator[tuple[str, str]]:
    """Yield keys whose values fit their types and still cannot be meant."""
    if not _IDENTIFIER.fullmatch(claim.id):
        yield "id", "must be lower-case words joined by hyphens"
    if not claim.quote.strip():
        yield "quote", "must hold the sentence that is tested"
    if claim.technology not in {"", *Technology}:
        yield "technology", f"must be one of {', '.join(Technology)}"
    if not claim.technology and not claim.targets:
        yield "technology", "or targets must say whom the claim speaks of"
    if claim.kind is not ClaimKind.EVIDENCE and claim.evidence:
        yield "evidence", 'goes with kind = "evidence" only'
    if claim.kind is ClaimKind.EVIDENCE and not claim.evidence and not claim.needs:
        yield "evidence", "must name facts, or needs must say what is missing to test it"
    if (claim.kind is ClaimKind.BOUND) != (claim.below_seconds is not None):
        yield "below_seconds", 'and kind = "bound" go together'
    if claim.below_seconds is not None and not claim.below_seconds > 0:
        yield "below_seconds", "must be above zero"
    if claim.kind is ClaimKind.BOUND and not claim.workloads:
        yield "workloads", "must say whose time is bounded"


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
    measured = [target for target in subjects if target.status == "measured"]
    evident = claim.kind is ClaimKind.EVIDENCE
    judged = _weigh_facts(claim, measured) if evident else _weigh_cells(claim, cells, measured)
    findings = list(judged)
    axes = {
        axis: _together([each.standing for each in findings if each.axis == axis])
        for axis in dict.fromkeys(each.axis for each in findings)
    }
    standing = _together(list(axes.values()))
    untested = standing is _UNTESTED
    return ClaimVerdict(
        claim=claim,
        standing=standing,
        sentence=_untested(claim, subjects) if untested else _sentence(claim, findings, axes),
        axes={} if evident else axes,
    )


def _speaks_of(claim: Claim, target: TargetFacts) -> bool:
    """Say whether the claim is about this target. The control ("native#2") is nobody's subject."""
    return (
        claim.technology in {"", target.technology}
        and (not claim.targets or target.name in claim.targets)
        and "#" not in target.name
    )


def _together(standings: Sequence[ClaimStanding]) -> ClaimStanding:
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
            if seen == "unknown":
                standing = _UNTESTED
            elif seen == expected:
                standing = _SUPPORTED
            elif (seen in relations) != (expected in relations):
                standing = _INCONCLUSIVE  # a relation tells no value, a value no relation
            else:
                standing = _REFUTED
            text = f"{_relation_words(seen)} in {target.name}"
            yield _Finding(axis=key, target=target.name, standing=standing, text=text)


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
                text = f"{name} was not measured"
                yield _Finding(axis=axis, target=name, standing=_UNTESTED, text=text)


def _class(workload: str) -> str:
    return workload.partition(".")[0]


def _selects(selectors: Sequence[str], workload: str) -> bool:
    """Say whether a workload or its class is among the selectors; none selects all."""
    return not selectors or workload in selectors or _class(workload) in selectors


def _finding(claim: Claim, cell: CellFacts, axis: str) -> _Finding:
    """Return what one cell says."""
    standing, text, room = _RULES[claim.kind](claim, cell)
    return _Finding(axis=axis, target=cell.target, standing=standing, text=text, room=room)


def _equivalent(_: Claim, cell: CellFacts) -> _Judged:
    words, room = _ratio_words(cell), -_distance(cell)
    if cell.standing is Standing.NEAR_NATIVE:
        return _SUPPORTED, words, room
    # Isolation does not make work faster: a faster cell wants an explanation before it counts
    # for or against anything.
    return (_REFUTED if cell.standing is Standing.SLOWER else _INCONCLUSIVE), words, room


def _order(claim: Claim, cell: CellFacts) -> _Judged:
    words, room = _ratio_words(cell), _distance(cell)
    claimed, opposite = Standing.SLOWER, Standing.FASTER
    if claim.direction is Direction.FASTER:
        claimed, opposite = opposite, claimed
    if cell.standing is claimed:
        return _SUPPORTED, words, room
    # A difference too small to matter may still be one in the direction claimed.
    refuted = cell.standing is opposite or (
        cell.standing is Standing.NEAR_NATIVE and not _leans(cell.interval, claimed)
    )
    return (_REFUTED if refuted else _INCONCLUSIVE), words, room


def _leans(interval: Interval | None, standing: Standing) -> bool:
    """Say whether the reported interval leaves out 1 on the side of the standing."""
    if interval is None:
        return False
    return interval.low > 1 if standing is Standing.SLOWER else interval.high < 1


def _bound(claim: Claim, cell: CellFacts) -> _Judged:
    limit = claim.below_seconds or 0.0
    words, room = _bound_words(limit, cell), limit - (cell.upper_seconds or limit)
    if cell.standing is Standing.UNPROVEN:
        return _INCONCLUSIVE, words, room
    if cell.upper_seconds is not None and cell.upper_seconds < limit:
        return _SUPPORTED, words, room
    refuted = cell.lower_seconds is not None and cell.lower_seconds >= limit
    return (_REFUTED if refuted else _INCONCLUSIVE), words, room


def _checksum(_: Claim, cell: CellFacts) -> _Judged:
    if cell.checks_equal:
        return _SUPPORTED, f"{cell.target} {cell.workload} computes what native does", 0.0
    return _REFUTED, f"{cell.target} {cell.workload} computes another answer than native", 0.0


_RULES: Final[Mapping[ClaimKind, Callable[[Claim, CellFacts], _Judged]]] = {
    ClaimKind.EQUIVALENT: _equivalent,
    ClaimKind.ORDER: _order,
    ClaimKind.BOUND: _bound,
    ClaimKind.CHECKSUM: _checksum,
}
"""What each kind of claim about cells makes of one; evidence is a matter of targets."""


# Words


def _sentence(claim: Claim, findings: Sequence[_Finding], axes: Mapping[str, ClaimStanding]) -> str:
    """Return what was found, axis by axis, and what would settle what is open."""
    parts = []
    for axis, standing in axes.items():
        own = [each for each in findings if each.axis == axis]
        if claim.evidence:
            words = _fact_words(own, standing, claim.evidence[axis])
        else:
            words = _axis_words(own, standing)
        parts.append(f"{axis} {standing}: {words}")
    open_standings = {each.standing for each in findings}
    if _INCONCLUSIVE in open_standings and _REFUTED not in open_standings:
        parts.append("more blocks, or what the doubts of these cells advise, would decide")
    if _UNTESTED in open_standings and claim.needs:
        parts.append(f"a full test needs {claim.needs}")
    return "; ".join(parts) + "."


def _fact_words(findings: Sequence[_Finding], standing: ClaimStanding, claimed: str) -> str:
    """Return how one fact stands in the targets, and how it was claimed to."""
    if standing is _SUPPORTED:
        return f"{_relation_words(claimed)} in {_targets(findings)}"
    return f"{_telling(findings, standing)}, claimed {_relation_words(claimed)}"


def _axis_words(findings: Sequence[_Finding], standing: ClaimStanding) -> str:
    """Return the cells that made the standing; of many that support, the closest to refuting."""
    if standing is _SUPPORTED and len(findings) > 1:
        closest = min(findings, key=lambda each: each.room)
        cells = f"all {len(findings)} cells of {_targets(findings)}"
        return f"{cells}, the closest call {closest.text}"
    return _telling(findings, standing)


def _telling(findings: Sequence[_Finding], standing: ClaimStanding) -> str:
    """Return the findings that made the standing, the strongest first, many of them counted."""
    if standing is _INCONCLUSIVE:
        told = [each for each in findings if each.standing is not _SUPPORTED]
    else:
        told = [each for each in findings if each.standing is standing]
    told.sort(key=lambda each: each.room)
    named = ", ".join(each.text for each in told[:_MOST_NAMED])
    more = len(told) - _MOST_NAMED
    return f"{named}, and {more} more" if more > 0 else named


def _targets(findings: Sequence[_Finding]) -> str:
    return _listed(list(dict.fromkeys(each.target for each in findings)))


def _untested(claim: Claim, subjects: Sequence[TargetFacts]) -> str:
    """Return why nothing was measured, and what would have to be."""
    whose = _listed(list(claim.targets)) or f"{claim.technology} target"
    absent = [f"{each.name} {each.status}" for each in subjects if each.status != "measured"]
    if not subjects:
        why = f"no {whose} in this run"
    elif len(absent) == len(subjects):
        why = f"no {whose} was measured ({', '.join(absent)})"
    else:
        why = "this run measured nothing that tells"
    needs = claim.needs or f"a run that measures {_wanted(claim)}"
    return f"Not tested: {why}; needs {needs}."


def _wanted(claim: Claim) -> str:
    """Return what a claim is about, from its fields alone."""
    whom = _listed(list(claim.targets)) or f"{claim.technology} targets"
    what = _listed(list(claim.workloads or claim.evidence or ()))
    return f"{what} on {whom}" if what else whom


def _relation_words(relation: str) -> str:
    """Return how a fact inside stands to the host's; a value speaks for itself."""
    return {"same": "the host's own", "unlike": "unlike the host's"}.get(relation, relation)


def _ratio_words(cell: CellFacts) -> str:
    if cell.ratio is None:
        return f"{cell.target} {cell.workload} without a ratio ({cell.standing})"
    interval = ""
    if cell.interval is not None:
        interval = f" [{_figure(cell.interval.low)}, {_figure(cell.interval.high)}]"
    figure = f"{_figure(cell.ratio)} x native{interval}"
    return f"{cell.target} {cell.workload} {figure} ({cell.standing})"


def _bound_words(limit: float, cell: CellFacts) -> str:
    known = [
        f"{word} {_duration(value)}"
        for word, value in (
            ("median", cell.value_seconds),
            ("at least", cell.lower_seconds),
            ("at most", cell.upper_seconds),
        )
        if value is not None
    ]
    unproven = " (unproven)" if cell.standing is Standing.UNPROVEN else ""
    figures = ", ".join(known) or "without a figure"
    return f"{cell.target} {cell.workload} {figures}{unproven}, claimed below {_duration(limit)}"


def _distance(cell: CellFacts) -> float:
    """Return how far a ratio is from 1, either way."""
    return 0.0 if cell.ratio is None else max(cell.ratio, 1 / cell.ratio) - 1


def _figure(ratio: float) -> str:
    """Return three significant digits, at most two decimals."""
    rounded = float(f"{ratio:.3g}")
    decimals = sum(rounded < step for step in (10, 100))
    return f"{rounded:,.{decimals}f}"


def _duration(seconds: float) -> str:
    """Return a time in the unit that suits it: 420 ms, 1.3 s."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if float(f"{seconds:.3g}") * scale >= 1:
            return f"{float(f'{seconds * scale:.3g}'):,g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _listed(names: Sequence[str]) -> str:
    """Join names as English does: a, b and c."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
