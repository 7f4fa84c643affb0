"""A run read back -> summary.json: estimates, verdicts, doubts, claims. Nothing here measures; it
can be repeated years later.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from isobench import stats
from isobench.analysis import headline
from isobench.analysis.cells import LEVEL, Analysis, Cell
from isobench.analysis.claims import claims_of, documents_claims, judge_claims, published_figures
from isobench.analysis.class_means import ClassMean, class_means
from isobench.analysis.open_cells import Pace, open_cells
from isobench.analysis.overview import overview
from isobench.analysis.variations import variations
from isobench.evidence import doubts, parity, prove
from isobench.model import (
    TIME,
    Abi,
    Cause,
    Claim,
    Doubt,
    Estimate,
    Gap,
    Payload,
    TargetStatus,
    Technology,
    Verdict,
    commands,
)
from isobench.model.plan import actual, second
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.reader import Run
from isobench.storage.schema import (
    Answers,
    CellSummary,
    ClassMeanSummary,
    GapSummary,
    LeftOut,
    NullSpawn,
    ParityDifference,
    Phase,
    RunSummary,
    StartPhases,
    Summary,
    TargetEntry,
    TargetState,
    TargetSummary,
    WarmupSummary,
    WorkloadEntry,
)
from isobench.workloads import classes

__all__ = [
    "LEVEL",
    "Analysis",
    "Cell",
    "claims_of",
    "documents_claims",
    "published_figures",
    "summarise",
]


_LAST_BLOCKS: Final = 5


class _About(NamedTuple):
    """What a run says about its targets: looked for once, however many targets there are."""

    measured: frozenset[TargetName]
    gaps: Mapping[TargetName, Sequence[Gap]]
    bases: Mapping[TargetName, TargetName]
    """The targets that variations vary."""
    left_out: frozenset[str]


def _about(analysis: Analysis) -> _About:
    metadata = analysis.run.metadata
    gaps: dict[TargetName, list[Gap]] = {}
    for gap in analysis.run.gaps:
        gaps.setdefault(gap.target, []).append(gap)
    left_out = metadata.left_out or LeftOut()
    return _About(
        measured=frozenset(analysis.targets),
        gaps=gaps,
        bases={one.name: one.base for one in metadata.variations},
        left_out=frozenset(left_out.targets),
    )


def _status(name: TargetName, state: TargetState, about: _About) -> tuple[TargetStatus, str | None]:
    if name in about.measured:
        return TargetStatus.MEASURED, None
    if state.status == "unavailable":
        return TargetStatus.UNAVAILABLE, state.reason
    causes = about.gaps.get(name, ())
    for cause, status in (
        (Cause.UNPROVEN, TargetStatus.UNPROVEN),
        (Cause.UNAVAILABLE, TargetStatus.UNAVAILABLE),
    ):
        first = next((gap for gap in causes if gap.cause is cause), None)
        if first is not None:
            return status, first.detail
    detail = causes[0].detail if causes else "the run ended before it was measured"
    return TargetStatus.FAILED, detail


def _payloads(run: Run, abi: Abi | None) -> tuple[Payload, ...]:
    return tuple(
        Payload(
            program=item.program,
            abi=item.abi,
            path=Path(),
            sha256=item.sha256,
            compiler=item.compiler,
            flags=item.flags,
        )
        for item in run.metadata.payloads
        if item.abi == abi
    )


def _parity(analysis: Analysis, name: TargetName) -> Iterator[ParityDifference]:
    """Yield what differs between native and a target besides the isolation."""
    native, state = analysis.run.state(analysis.reference), analysis.run.state(name)
    if name == analysis.reference or not state.facts:
        return
    for one in parity.differences(
        prove.gather(native.facts),
        prove.gather(state.facts),
        native_payloads=_payloads(analysis.run, native.abi),
        target_payloads=_payloads(analysis.run, state.abi),
    ):
        yield ParityDifference(label=one.label, native=one.native, target=one.target)


def _target(item: TargetEntry, analysis: Analysis, about: _About) -> TargetSummary:
    state = analysis.run.state(item.name)
    native, seen = analysis.run.state(analysis.reference), prove.gather(state.facts)
    status, reason = _status(item.name, state, about)
    return TargetSummary(
        name=item.name,
        technology=item.technology,
        asked=item.asked,
        left_out=item.name in about.left_out,
        variation_of=about.bases.get(item.name),
        status=status,
        version=state.version,
        reason=reason,
        hint=state.hint,
        evidence=dict(prove.relations(prove.gather(native.facts), seen)),
        expectations=state.expectations,
        limits=state.limits,
        facts=tuple(seen.facts.values()),
        parity=tuple(_parity(analysis, item.name)),
        starts=state.starts,
    )


def _bounds(estimate: Estimate | None) -> tuple[float, float] | None:
    return estimate.interval.ends if estimate else None


def _cell(cell: Cell, entry: WorkloadEntry, adjusted: float | None) -> CellSummary:
    estimate = cell.verdict.estimate
    low, high = cell.bounds
    return CellSummary(
        target=cell.target,
        workload=cell.workload,
        group=entry.group,
        metric=cell.metric.name,
        unit=cell.metric.unit.in_answers,
        value=cell.value,
        reference=cell.reference,
        ratio=estimate.ratio if estimate else None,
        interval=_bounds(estimate),
        level=estimate.interval.level if estimate else LEVEL,
        equivalence=estimate.equivalence.ends if estimate else None,
        p_equivalence=estimate.p_equivalence if estimate and not cell.is_exact else None,
        p_equivalence_together=adjusted,
        method=estimate.method if estimate else None,
        blocks=estimate.blocks if estimate else int(cell.log_ratios.size),
        sessions=cell.sessions,
        visits=cell.visits,
        status=cell.verdict.status,
        doubts=_doubt_texts(cell.verdict),
        doubt_codes=tuple(doubt.code for doubt in cell.verdict.doubts),
        operation=entry.operation if cell.metric.is_time else "",
        clock=cell.clock,
        median_bounds=None if low is None or high is None else (low, high),
        p95=cell.tails.p95,
        p99=cell.tails.p99,
        maximum=cell.tails.maximum,
        outlying_blocks=cell.tails.outlying_blocks,
        blocks_needed=cell.needed,
        log_ratios=tuple(round(float(value), 6) for value in cell.log_ratios),
    )


def _key(cell: Cell) -> tuple[str, str, str]:
    return cell.target, cell.workload, cell.metric.name


def _together(cells: Sequence[Cell]) -> dict[tuple[str, str, str], float]:
    """Return the p value of equivalence of each cell that has one, adjusted for all of them
    (Holm).
    """
    tested = [
        (cell, cell.verdict.estimate.p_equivalence)
        for cell in cells
        if cell.verdict.estimate and not cell.is_exact
    ]
    adjusted = stats.holm(np.array([p for _, p in tested], dtype=np.float64))
    return {_key(cell): float(p) for (cell, _), p in zip(tested, adjusted, strict=True)}


def _class_mean(mean: ClassMean) -> ClassMeanSummary:
    judged = mean.verdict
    estimate = judged.estimate if judged else None
    return ClassMeanSummary(
        group=mean.group,
        target=mean.target,
        workloads=mean.workloads,
        lacking=mean.lacking,
        ratio=estimate.ratio if estimate else None,
        interval=_bounds(estimate),
        level=estimate.interval.level if estimate else LEVEL,
        equivalence=estimate.equivalence.ends if estimate else None,
        p_equivalence=estimate.p_equivalence if estimate else None,
        blocks=estimate.blocks if estimate else int(mean.log_ratios.size),
        sessions=mean.sessions,
        noise=_rounded(mean.noise),
        status=judged.status if judged else None,
        doubts=_doubt_texts(judged),
        doubt_codes=tuple(doubt.code for doubt in judged.doubts) if judged else (),
        blocks_needed=mean.needed,
        unlike=mean.unlike,
        log_ratios=tuple(round(float(value), 6) for value in mean.log_ratios),
    )


def _doubt_texts(judged: Verdict | None) -> tuple[str, ...]:
    return tuple(f"{doubt.detail}: {doubt.advice}" for doubt in judged.doubts) if judged else ()


def _start_phases(analysis: Analysis) -> Iterator[StartPhases]:
    """Yield the phases of each kind of start in each target, native's included."""
    starts = [name for name in analysis.workloads if analysis.classes[name] == classes.START_UP]
    for target in analysis.targets:
        for workload in starts:
            phases = analysis.frames.phases(workload, target)
            if phases and target == actual(target):
                yield StartPhases(
                    target=target,
                    workload=workload,
                    phases=tuple(Phase(name=name, seconds=at) for name, at in phases.items()),
                    channel=analysis.frames.channel(workload, target),
                )


def _null_spawns(analysis: Analysis) -> Iterator[NullSpawn]:
    """Yield what of native's starts the smallest program takes too; nothing where a run, one of an
    older version say, has started none.
    """
    for workload in analysis.workloads:
        found = analysis.frames.null_spawn(workload)
        if found is not None:
            seconds, native, starts = found
            yield NullSpawn(
                workload=workload,
                seconds=seconds,
                native=native,
                starts=starts,
                spawner=analysis.run.metadata.spawner,
            )


def _warmup_profiles(analysis: Analysis) -> Iterator[WarmupSummary]:
    """Yield the visits of each cell pass by pass, native's included."""
    for workload in analysis.workloads:
        for target in analysis.targets:
            profile = analysis.frames.profile(workload, target)
            if profile is not None and target == actual(target):
                yield WarmupSummary(
                    target=target,
                    workload=workload,
                    warmups=profile.warmups,
                    timed=profile.timed,
                    visits=profile.visits,
                    passes=tuple(_rounded(one) for one in profile.passes),
                    late=profile.late,
                )


def _absent(targets: Iterable[TargetSummary], analysis: Analysis) -> Iterator[Gap]:
    """Yield a gap for every cell of a target that could not run here and was never tried."""
    known = {gap.target for gap in analysis.run.gaps}
    for item in targets:
        absent = item.status is TargetStatus.UNAVAILABLE and item.name not in known
        for workload in analysis.workloads if absent else ():
            yield Gap(
                block=0,
                target=item.name,
                workload=workload,
                cause=Cause.UNAVAILABLE,
                detail=str(item.reason),
                hint=item.hint or "",
            )


def _gaps(gaps: Iterable[Gap]) -> Iterator[GapSummary]:
    """Yield each kind of gap once, with how often it came."""
    counted: dict[tuple[TargetName, WorkloadName, Cause, str, str], int] = {}
    for gap in gaps:
        key = (gap.target, gap.workload, gap.cause, gap.detail, gap.hint)
        counted[key] = counted.get(key, 0) + 1
    for (target, workload, cause, detail, hint), times in counted.items():
        yield GapSummary(
            target=target, workload=workload, cause=cause, detail=detail, hint=hint, times=times
        )


def _lacking_metrics(analysis: Analysis) -> Iterator[GapSummary]:
    """Yield a gap for each cell that has its time and not another of its metrics."""
    timed = {(cell.target, cell.workload) for cell in analysis.cells}
    for name in analysis.metrics:
        own = analysis.of(name)
        found = {(cell.target, cell.workload) for cell in own.cells}
        for target, workload in sorted(timed - found):
            if workload in own.workloads:
                yield _lacking_metric(own, target, workload)


def _lacking_metric(own: Analysis, target: TargetName, workload: WorkloadName) -> GapSummary:
    metric = own.measured(workload)
    natively = own.column(workload, own.reference) is None
    return GapSummary(
        target=target,
        workload=workload,
        metric=metric.name,
        cause=Cause.NOT_APPLICABLE,
        detail=f"{'natively ' * natively}the payload gave no number for {metric.fact}",
        hint=f"the payload must print the fact {metric.fact}, or workload.toml name another"
        if natively
        else "",
    )


def _cells(analysis: Analysis, judged: Sequence[Cell]) -> Iterator[CellSummary]:
    together = _together(judged)
    entries = {item.name: item for item in analysis.run.metadata.workloads}
    for cell in analysis.all_cells:
        yield _cell(cell, entries[cell.workload], together.get(_key(cell)))


def _answers(
    analysis: Analysis,
    judged: Sequence[Cell],
    technologies: Mapping[TargetName, Technology],
    cells: Sequence[CellSummary],
    means: Sequence[ClassMeanSummary],
) -> Answers:
    pace = _pace(analysis)
    needed = [(cell.verdict, cell.needed) for cell in judged]
    undecided = tuple(open_cells(needed, pace, analysis.margin)) if not analysis.quick else ()
    own = {_key(cell) for cell in judged}
    shown = [cell for cell in cells if (cell.target, cell.workload, cell.metric) in own]
    return Answers(
        sentences=tuple(
            headline.headline(
                [cell.verdict for cell in judged],
                technologies,
                quick=analysis.quick,
                complete=_complete(analysis.run),
                margin=analysis.margin,
                starts=_start_times(judged, analysis),
                open_cells=undecided,
            )
        ),
        overview=tuple(overview(shown, means)),
        open_cells=undecided,
        seconds_per_block=_rounded(pace.seconds_per_block),
    )


def _pace(analysis: Analysis) -> Pace:
    """Return how fast the run measured its last blocks, in which only cells took part that a
    resumed run would measure as well.
    """
    plan, last = analysis.run.plan, [one.seconds for one in analysis.run.health[-_LAST_BLOCKS:]]
    return Pace(
        blocks=analysis.blocks,
        planned=len(plan.blocks),
        seconds_per_block=float(np.median(last)) if last else None,
        visits_per_block=len(plan.blocks[0].visits) if plan.blocks else 0,
        resume=analysis.run.resume_command,
        argv=analysis.run.metadata.argv,
        variations={
            one.name: (one.base, commands.variation(one.base, one.option, one.value))
            for one in analysis.run.metadata.variations
        },
        precision=analysis.run.metadata.precision,
    )


def _start_times(judged: Iterable[Cell], analysis: Analysis) -> headline.StartTimes:
    return {
        (cell.target, cell.workload): (cell.value, cell.reference)
        for cell in judged
        if analysis.classes[cell.workload] == classes.START_UP and cell.metric.is_time
    }


def _own_cpu(run: Run) -> float | None:
    known = [one.own_cpu_percent for one in run.health if one.own_cpu_percent is not None]
    return round(statistics.median(known), 2) if known else None


def _complete(run: Run) -> bool:
    return run.metadata.complete and not run.lost_blocks and not run.losses


def _run(
    analysis: Analysis,
    run_doubts: Sequence[Doubt],
    sentences: Sequence[str],
    remarks: Sequence[str],
) -> RunSummary:
    run, metadata = analysis.run, analysis.run.metadata
    planned = metadata.blocks_wanted
    return RunSummary(
        id=metadata.id,
        started=metadata.started,
        finished=metadata.finished,
        seed=metadata.seed,
        quick=metadata.quick,
        machine=metadata.machine,
        tool_version=metadata.tool_version,
        argv=metadata.argv,
        margin=metadata.margin,
        budget_seconds=metadata.budget_seconds,
        elapsed_seconds=metadata.elapsed_seconds,
        stopped=metadata.stopped,
        host=metadata.host,
        compiler=metadata.compiler,
        flags=metadata.flags,
        payloads=metadata.payloads,
        complete=_complete(run),
        interrupted=metadata.interrupted,
        noise={name: _rounded(value) for name, value in analysis.noise.items()},
        metric_noise=_metric_noise(analysis),
        level=LEVEL,
        schedule=run.plan.schedule,
        blocks=analysis.blocks,
        blocks_planned=len(run.plan.blocks) if planned is None else planned,
        blocks_invalid=len(run.invalid_blocks),
        own_cpu_percent=_own_cpu(run),
        doubts=tuple(run_doubts),
        left_out=metadata.left_out,
        headline=" ".join([*sentences, *remarks]),
        remarks=tuple(remarks),
    )


def _metric_noise(analysis: Analysis) -> dict[str, dict[str, float | None]]:
    """Return the noise floors of all metrics but time, by workload and metric."""
    found: dict[str, dict[str, float | None]] = {}
    for metric in analysis.metrics:
        for workload, floor in analysis.of(metric).noise.items() if metric != TIME.name else ():
            found.setdefault(workload, {})[metric] = _rounded(floor)
    return found


def summarise(run: Run, claims: Sequence[Claim]) -> Summary:
    """Return the whole of summary.json for a run, these claims judged on it."""
    analysis = Analysis(run)
    about = _about(analysis)
    targets = [_target(item, analysis, about) for item in run.metadata.targets]
    technologies = {item.name: item.technology for item in targets}
    varied = [item.name for item in targets if item.variation_of]
    apart = {second(analysis.reference), *varied}
    judged = [cell for cell in analysis.all_cells if cell.target not in apart]
    cells = tuple(_cells(analysis, judged))
    means = tuple(map(_class_mean, class_means(analysis)))
    run_doubts = analysis.run_doubts()
    remarks = [*_remarks(run.metadata.left_out or LeftOut(), targets, run_doubts)]
    answers = _answers(analysis, judged, technologies, cells, means)
    return Summary(
        run=_run(analysis, run_doubts, answers.sentences, remarks),
        answers=answers,
        workloads=run.metadata.workloads,
        targets=tuple(targets),
        cells=cells,
        class_means=means,
        variations=tuple(variations(analysis)),
        start_phases=tuple(_start_phases(analysis)),
        null_spawns=tuple(_null_spawns(analysis)),
        warmup_profiles=tuple(_warmup_profiles(analysis)),
        gaps=(*_gaps([*run.gaps, *_absent(targets, analysis)]), *_lacking_metrics(analysis)),
        claims=judge_claims(claims, analysis, targets),
        history=run.history,
    )


def _remarks(
    left_out: LeftOut, targets: Iterable[TargetSummary], run_doubts: Sequence[Doubt]
) -> Iterator[str]:
    """Yield what the closing sentence says beside the answers: what is missing, what was noisy."""
    for item in targets:
        if item.asked and item.status is TargetStatus.UNAVAILABLE:
            yield f"{item.name} was asked for and cannot run here: {item.reason}."
    for doubt in run_doubts:
        if doubt.code in doubts.LOSS_CODES:
            yield f"The run is damaged: {doubt.detail}: {doubt.advice}."
    noisy = [doubt for doubt in run_doubts if doubt.code in doubts.NOISE_CODES]
    if noisy:
        details = "; ".join(doubt.detail for doubt in noisy)
        yield f"The machine was busy: {details}: {noisy[-1].advice}."
    for doubt in run_doubts:
        if doubt.code == "drift":
            yield f"{doubt.detail[:1].upper()}{doubt.detail[1:]}: {doubt.advice}."
    named = headline.left_out_sentence(left_out.targets, left_out.workloads, left_out.command)
    if named:
        yield named


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
