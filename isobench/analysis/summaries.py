"""A run read back -> summary.json: estimates, verdicts, doubts, claims. Nothing here measures; it
can be repeated years later.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from isobench import stats
from isobench.analysis import headline
from isobench.analysis.cells import LEVEL, MINIMUM_BLOCKS, Analysis, Cell
from isobench.analysis.claims import claims_of, documents_claims, judge_claims, published_figures
from isobench.analysis.class_means import ClassMean, class_means
from isobench.analysis.variations import variations
from isobench.evidence import doubts, parity, prove
from isobench.model import (
    Abi,
    Cause,
    Claim,
    Doubt,
    Environment,
    Evidence,
    Gap,
    Payload,
    Technology,
    Verdict,
)
from isobench.model.plan import actual, second
from isobench.model.units import Sha256, TargetName
from isobench.storage.run_folder import FORMAT, Run
from isobench.workloads import classes

__all__ = [
    "LEVEL",
    "MINIMUM_BLOCKS",
    "Analysis",
    "Cell",
    "claims_of",
    "documents_claims",
    "published_figures",
    "summarise",
]


def _environment(state: Mapping[str, Any]) -> Environment:
    return prove.gather(msgspec.convert(fact, type=Evidence) for fact in state.get("facts", ()))


def _status(
    name: TargetName, state: Mapping[str, Any], analysis: Analysis
) -> tuple[str, str | None]:
    if state.get("status") == "unavailable":
        return "unavailable", state.get("reason")
    if name in analysis.targets:
        return "measured", None
    causes = [gap for gap in analysis.run.gaps if gap.target == name]
    for cause, status in ((Cause.UNPROVEN, "unproven"), (Cause.UNAVAILABLE, "unavailable")):
        first = next((gap for gap in causes if gap.cause is cause), None)
        if first is not None:
            return status, first.detail
    return "failed", causes[0].detail if causes else "the run ended before it was measured"


def _payloads(run: Run, abi: str) -> tuple[Payload, ...]:
    found = [item for item in run.about.get("payloads", ()) if item["abi"] == abi]
    return tuple(
        Payload(
            program=item["program"],
            abi=Abi(abi),
            path=Path(),
            sha256=Sha256(item["sha256"]),
            compiler=item["compiler"],
            flags=tuple(item["flags"]),
        )
        for item in found
    )


def _target(item: Mapping[str, Any], analysis: Analysis) -> dict[str, Any]:
    name = TargetName(item["name"])
    state = analysis.run.states.get(name, {})
    native = analysis.run.states.get(analysis.reference, {})
    inside, host = _environment(state), _environment(native)
    status, reason = _status(name, state, analysis)
    different = (
        parity.differences(
            host,
            inside,
            native_payloads=_payloads(analysis.run, native.get("abi", "")),
            target_payloads=_payloads(analysis.run, state.get("abi", "")),
        )
        if name != analysis.reference and inside.facts
        else ()
    )
    varied = {one["name"]: one["base"] for one in analysis.run.about.get("variations", [])}
    return {
        "name": name,
        "class": item["class"],
        "asked": bool(item.get("asked", False)),
        "left_out": name in (analysis.run.about.get("left_out") or {}).get("targets", ()),
        "variation_of": varied.get(name),
        "status": status,
        "version": state.get("version"),
        "reason": reason,
        "hint": state.get("hint"),
        "evidence": prove.relations(host, inside),
        "promises": state.get("promises", []),
        "limits": state.get("limits", []),
        "facts": [msgspec.to_builtins(fact) for fact in inside.facts.values()],
        "parity": [msgspec.to_builtins(difference) for difference in different],
        "starts": state.get("starts", {}),
    }


def _cell(cell: Cell, group: str, operation: str, adjusted: float | None) -> dict[str, Any]:
    estimate = cell.verdict.estimate
    return {
        "target": cell.target,
        "workload": cell.workload,
        "class": group,
        "metric": "time",
        "unit": "seconds",
        "value": cell.value,
        "reference": cell.reference,
        "ratio": estimate.ratio if estimate else None,
        "interval": [estimate.interval.low, estimate.interval.high] if estimate else None,
        "level": LEVEL,
        "equivalence": [estimate.equivalence.low, estimate.equivalence.high] if estimate else None,
        "p_equivalence": estimate.p_equivalence if estimate else None,
        "p_equivalence_together": adjusted,
        "method": estimate.method if estimate else None,
        "blocks": estimate.blocks if estimate else int(cell.log_ratios.size),
        "sessions": cell.sessions,
        "visits": cell.visits,
        "standing": cell.verdict.status,
        "doubts": _told(cell.verdict),
        "doubt_codes": [doubt.code for doubt in cell.verdict.doubts],
        "operation": operation,
        "clock": cell.clock,
        "median_bounds": None if None in cell.bounds else cell.bounds,
        "p95": cell.tails.p95,
        "p99": cell.tails.p99,
        "maximum": cell.tails.maximum,
        "outlying_blocks": cell.tails.outlying_blocks,
        "blocks_needed": cell.needed,
        "log_ratios": [round(float(value), 6) for value in cell.log_ratios],
        "throughput": None,
    }


def _together(cells: Sequence[Cell]) -> dict[tuple[str, str], float]:
    """Return the p value of equivalence of each cell, adjusted for all of them (Holm)."""
    tested = [(c, c.verdict.estimate.p_equivalence) for c in cells if c.verdict.estimate]
    adjusted = stats.holm(np.array([p for _, p in tested], dtype=np.float64))
    return {
        (cell.target, cell.workload): float(p)
        for (cell, _), p in zip(tested, adjusted, strict=True)
    }


def _suite(suite: ClassMean) -> dict[str, Any]:
    judged = suite.verdict
    estimate = judged.estimate if judged else None
    return {
        "class": suite.group,
        "target": suite.target,
        "workloads": suite.workloads,
        "lacking": suite.lacking,
        "ratio": estimate.ratio if estimate else None,
        "interval": [estimate.interval.low, estimate.interval.high] if estimate else None,
        "level": LEVEL,
        "equivalence": [estimate.equivalence.low, estimate.equivalence.high] if estimate else None,
        "p_equivalence": estimate.p_equivalence if estimate else None,
        "blocks": estimate.blocks if estimate else int(suite.log_ratios.size),
        "sessions": suite.sessions,
        "noise": _rounded(suite.noise),
        "standing": judged.status if judged else None,
        "doubts": _told(judged),
        "doubt_codes": [doubt.code for doubt in judged.doubts] if judged else [],
        "blocks_needed": suite.needed,
        "unlike": suite.unlike,
        "log_ratios": [round(float(value), 6) for value in suite.log_ratios],
    }


def _told(judged: Verdict | None) -> list[str]:
    return [f"{doubt.detail}: {doubt.advice}" for doubt in judged.doubts] if judged else []


def _start_phases(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Yield the phases of each kind of start in each target, native's included."""
    starts = [name for name in analysis.workloads if analysis.classes[name] == classes.START_UP]
    for target in analysis.targets:
        for workload in starts:
            phases = analysis.phases(workload, target)
            channel = analysis.channel(workload, target)
            if phases and target == actual(target):
                yield {
                    "target": target,
                    "workload": workload,
                    "phases": [{"name": n, "seconds": s} for n, s in phases.items()],
                    "channel": channel,
                }


def _null_spawns(analysis: Analysis) -> dict[str, Any]:
    """Return what of native's starts the smallest program takes too; nothing where a run, one of an
    older version say, has started none.
    """
    found = [
        {"workload": workload, "seconds": one[0], "native": one[1], "starts": one[2]}
        for workload in analysis.workloads
        if (one := analysis.null_spawn(workload)) is not None
    ]
    spawner = analysis.run.about.get("spawner")
    return {"null_spawns": [{**one, "spawner": spawner} for one in found]} if found else {}


def _warmup_profiles(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Yield how the visits of each cell go, native's included."""
    for workload in analysis.workloads:
        for target in analysis.targets:
            profile = analysis.profile(workload, target)
            if profile is not None and target == actual(target):
                yield {
                    "target": target,
                    "workload": workload,
                    "warmups": profile.warmups,
                    "timed": profile.timed,
                    "visits": profile.visits,
                    "passes": [_rounded(one) for one in profile.passes],
                    "late": profile.late,
                }


def _absent(targets: Iterable[Mapping[str, Any]], analysis: Analysis) -> Iterator[Gap]:
    """Yield a gap for every cell of a target that could not run here and was never tried."""
    told = {gap.target for gap in analysis.run.gaps}
    for item in targets:
        absent = item["status"] == "unavailable" and item["name"] not in told
        for workload in analysis.workloads if absent else ():
            yield Gap(
                block=0,
                target=TargetName(item["name"]),
                workload=workload,
                cause=Cause.UNAVAILABLE,
                detail=str(item["reason"]),
                hint=str(item["hint"] or ""),
            )


def _gaps(gaps: Iterable[Gap]) -> list[dict[str, Any]]:
    """Return each kind of gap once, with how often it came."""
    counted: dict[tuple[str, ...], int] = {}
    for gap in gaps:
        key = (gap.target, gap.workload, gap.cause, gap.detail, gap.hint)
        counted[key] = counted.get(key, 0) + 1
    keys = ("target", "workload", "cause", "detail", "hint")
    return [{**dict(zip(keys, key, strict=True)), "times": times} for key, times in counted.items()]


def summarise(run: Run, claims: Sequence[Claim]) -> dict[str, Any]:
    """Return the whole of summary.json for a run, these claims judged on it."""
    analysis = Analysis(run)
    about = run.about
    operations = {item["name"]: str(item["operation"]) for item in about.get("workloads", [])}
    targets = [_target(item, analysis) for item in about.get("targets", [])]
    technologies = {TargetName(item["name"]): Technology(item["class"]) for item in targets}
    control = second(analysis.reference)
    varied = [item["name"] for item in targets if item["variation_of"]]
    ended = bool(about.get("finished")) and not about.get("interrupted", False)
    complete = ended and not run.lost_blocks
    judged = [cell for cell in analysis.cells if cell.target not in {control, *varied}]
    together = _together(judged)
    run_doubts = analysis.run_doubts()
    remarks = [*_remarks(about, targets, run_doubts)]
    closing = headline.headline(
        [cell.verdict for cell in judged],
        technologies,
        quick=analysis.quick,
        complete=complete,
        margin=analysis.margin,
        remarks=remarks,
    )
    return {
        "schema_version": FORMAT,
        "run": {
            **{key: about.get(key) for key in _KEPT},
            "complete": complete,
            "interrupted": bool(about.get("interrupted", False)),
            "noise": {name: _rounded(value) for name, value in analysis.noise.items()},
            "level": LEVEL,
            "schedule": run.plan.schedule,
            "blocks": analysis.blocks,
            "blocks_planned": about.get("blocks_wanted", len(run.plan.blocks)),
            "blocks_invalid": len(run.invalid_blocks),
            "doubts": [msgspec.to_builtins(doubt) for doubt in run_doubts],
            "left_out": about.get("left_out"),
            "headline": closing,
            "remarks": remarks,
            "records": "records.jsonl",
        },
        "workloads": about.get("workloads", []),
        "targets": targets,
        "cells": [
            _cell(
                c,
                analysis.classes[c.workload],
                operations[c.workload],
                together.get((c.target, c.workload)),
            )
            for c in analysis.cells
        ],
        "suites": [_suite(suite) for suite in class_means(analysis)],
        "variations": list(variations(analysis)),
        "ladders": list(_start_phases(analysis)),
        **_null_spawns(analysis),
        "courses": list(_warmup_profiles(analysis)),
        "gaps": _gaps([*run.gaps, *_absent(targets, analysis)]),
        "claims": judge_claims(claims, analysis, targets),
    }


def _remarks(
    about: Mapping[str, Any], targets: Iterable[Mapping[str, Any]], run_doubts: Iterable[Doubt]
) -> Iterator[str]:
    """Yield what the closing sentence says beside the answers: what is missing, what was noisy."""
    for item in targets:
        if item["asked"] and item["status"] == "unavailable":
            yield f"{item['name']} was asked for and cannot run here: {item['reason']}."
    noisy = [doubt for doubt in run_doubts if doubt.code in doubts.NOISE_CODES]
    if noisy:
        details = "; ".join(doubt.detail for doubt in noisy)
        yield f"The machine was busy: {details}: {noisy[-1].advice}."
    left_out = about.get("left_out") or {}
    named = headline.left_out_sentence(
        left_out.get("targets", ()), left_out.get("workloads", ()), left_out.get("command", "")
    )
    if named:
        yield named


_KEPT: Final = (
    "id", "started", "finished", "seed", "quick", "machine", "tool_version", "argv", "margin",
    "budget_seconds", "elapsed_seconds", "stopped", "host", "compiler", "flags", "payloads",
)  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
