"""What a machine can tell apart at all: native against native, and how long precision takes."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from isobench import stats
from isobench.analysis.headline import CLASSES, listed
from isobench.analysis.summaries import LEVEL, MINIMUM_BLOCKS, Analysis
from isobench.analysis.verdict import duration_text, percent_text
from isobench.evidence import host
from isobench.model import BlockHealth, Estimate
from isobench.model.errors import UsageError
from isobench.model.plan import second
from isobench.model.units import WorkloadName
from isobench.storage.run_folder import FORMAT, Run

SIZES: Final = (10, 20, 60)
"""The fewest blocks of a verdict, a run of some minutes, the most that a run takes."""
MOST_BLOCKS: Final = 1000
"""Beyond this, a number of blocks is no plan."""
QUOTED: Final = 20
VISITS: Final = 3
"""Of a block with one target: native, native again, and the target."""
_MOST_NAMED: Final = 4
_STEADY_CLOCKS: Final = frozenset({"tsc", "arch_sys_counter"})
_BUSY: Final = 0.25
"""Load for each CPU, beside which measuring is no longer alone."""
_NOTABLE_STEAL: Final = 0.1
_NOTABLE_PRESSURE: Final = 5.0


def resolve(run: Run, *, precision: float = 0.025, margin: float = 0.05) -> dict[str, Any]:
    """Return what native against native tells of the machine that a run was made on, as a document
    for JSON.

    `precision` is half the width that intervals shall have, `margin` what counts as near-native;
    shares. UsageError: native has not been measured twice, or in fewer than three blocks.
    """
    analysis = Analysis(run)
    seconds = _seconds_a_visit(analysis)
    rows = [
        _workload(analysis, name, seconds.get(name), precision=precision, margin=margin)
        for name in analysis.workloads
        if analysis.column(name, analysis.reference) is not None
    ]
    if all(row["noise"] is None and row["spread"] is None for row in rows):
        raise UsageError(
            f"{run.path} does not tell how noisy its machine was: native was not measured twice"
            f" in {stats.FEWEST_BLOCKS} blocks or more",
            hint="isobench noise",
        )
    health = _health(run)
    return {
        "schema_version": FORMAT,
        "run": {
            **{key: run.about.get(key) for key in ("id", "started", "machine", "tool_version")},
            "path": str(run.path),
            "blocks": analysis.blocks,
        },
        "precision": precision,
        "margin": margin,
        "level": LEVEL,
        "workloads": rows,
        "health": health,
        "host": list(_host(run, health)),
        "headline": _headline(rows, analysis.blocks, margin),
    }


def _seconds_a_visit(analysis: Analysis) -> dict[WorkloadName, float]:
    """Return what a visit of native takes in each workload: from the end of the visit before it.

    The first visit of a block has none before it, and is left out.
    """
    frame = analysis.run.samples
    frame = frame[frame["block"] > 0]
    ends = frame.groupby(["block", "workload", "target"])["at"].max().reset_index()
    ends = ends.sort_values(["block", "at"])
    ends["seconds"] = ends.groupby("block")["at"].diff()
    native = ends["target"].isin([analysis.reference, second(analysis.reference)])
    medians = ends[native].groupby("workload")["seconds"].median()
    return {WorkloadName(str(name)): float(s) for name, s in medians.items() if s > 0}


def _workload(
    analysis: Analysis,
    name: WorkloadName,
    seconds: float | None,
    *,
    precision: float,
    margin: float,
) -> dict[str, Any]:
    control = second(analysis.reference)
    estimate = analysis.estimate(name, control)
    noise = analysis.noise[name]
    spread = stats.spread_of_block(estimate) if estimate and estimate.standard_error else None
    logs = analysis.log_ratios(name, control)
    width = None if spread is None else stats.blocks_for_width(spread, precision, most=MOST_BLOCKS)
    verdict = None if estimate is None else _blocks_for_verdict(estimate, margin)
    each = None if seconds is None else VISITS * seconds
    drift = _drift(analysis, name)
    outlying = stats.outlying_blocks(logs)
    return {
        "workload": name,
        "class": analysis.classes[name],
        "blocks": int(logs.size),
        "noise": noise,
        "exceeds": noise is None or noise > margin,
        "deviation": None if estimate is None else estimate.deviation,
        "spread": spread,
        "smallest_effect": {
            str(n): None if spread is None else stats.smallest_effect(spread, n) for n in SIZES
        },
        "seconds_a_block": each,
        "precision": _effort(width, each),
        "verdict": _effort(verdict, each),
        "outlying_rate": float(outlying.mean()) if logs.size else None,
        "drift": None
        if drift is None
        else {
            "change": drift.change,
            "low": drift.low,
            "high": drift.high,
            "p": drift.p,
            "notable": drift.notable,
        },
    }


def _blocks_for_verdict(estimate: Estimate, margin: float) -> int | None:
    """Return how many blocks show near-native where it is true, nine times out of ten."""
    # Native is as fast as itself: what its ratio is off 1 by is noise, and no effect to plan with.
    found = stats.blocks_needed(dataclasses.replace(estimate, ratio=1.0), margin=1 + margin)
    return None if found is None or found > MOST_BLOCKS else found


def _effort(blocks: int | None, seconds: float | None) -> dict[str, float | int | None]:
    """Return blocks, and seconds of them with one target that is as fast as native."""
    whole = None if blocks is None or seconds is None else blocks * seconds
    return {"blocks": blocks, "seconds": whole}


def _drift(analysis: Analysis, name: WorkloadName) -> stats.Drift | None:
    times = analysis.times
    mine = times[(times["workload"] == name) & (times["target"] == analysis.reference)]
    by_block = mine.groupby("block")[["seconds", "at"]].median()
    if by_block.empty:
        return None
    return stats.drift(by_block["seconds"].to_numpy(float), by_block["at"].to_numpy(float))


def _health(run: Run) -> dict[str, Any]:
    """Return how the host fared: medians and worst over all blocks, and which rules were broken."""
    broken = Counter(rule for block in run.health for rule in block.broken_rules)
    return {
        "blocks": len(run.health),
        "invalid": len(run.invalid_blocks),
        "broken": dict(broken),
        "steal_percent": _spanned(run.health, "steal_percent"),
        "pressure_percent": _spanned(run.health, "pressure_percent"),
        "speed_percent": _spanned(run.health, "speed_percent", worst=min),
    }


def _spanned(
    health: Sequence[BlockHealth], key: str, worst: Callable[[Sequence[float]], float] = max
) -> dict[str, float] | None:
    values = [value for block in health if (value := getattr(block, key)) is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "worst": worst(values)}


def _fact(what: str, value: object, note: str, *, harms: bool) -> dict[str, str]:
    return {
        "fact": what,
        "value": "not visible" if value is None else str(value),
        "note": note if harms else "",
    }


def _host(run: Run, health: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the facts of the host that matter for noise, each with a note where it harms."""
    facts: Mapping[str, Any] = run.about.get("host", {})
    virtual, governor = facts.get("virtualization"), facts.get("frequency_governor")
    clock, limit = facts.get("clock_source"), facts.get("cpu_limit")
    yield _fact(
        "virtualization", virtual,
        "neighbours on its host share caches, memory and disk with it, unseen",
        harms=str(virtual).startswith("guest"),
    )  # fmt: skip
    yield _fact(
        "frequency governor", governor,
        "cpupower frequency-set -g performance", harms=governor not in (None, "performance"),
    )  # fmt: skip
    yield _fact(
        "turbo", facts.get("turbo"),
        "the clock follows heat and load: off is steadier", harms=facts.get("turbo") == "on",
    )  # fmt: skip
    yield _fact(
        "SMT", facts.get("smt"),
        "two threads share a core: off is steadier", harms=facts.get("smt") == "on",
    )  # fmt: skip
    yield _fact(
        "clock source", clock,
        "a virtual or a slow clock: short iterations suffer",
        harms=clock is not None and clock not in _STEADY_CLOCKS,
    )  # fmt: skip
    yield _fact(
        "CPU limit of the cgroup", "none" if limit is None else f"{limit:g} CPUs",
        "the scheduler stops whoever has used it up", harms=limit is not None,
    )  # fmt: skip
    yield from _busy(facts, health)


def _busy(facts: Mapping[str, Any], health: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    load, cpus = facts.get("load"), facts.get("cpus")
    yield _fact(
        "load before", load,
        "something else was running", harms=bool(load and cpus and load / cpus > _BUSY),
    )  # fmt: skip
    for what, key, limit, note in (
        ("steal", "steal_percent", _NOTABLE_STEAL, "the hypervisor gave the CPU to others"),
        ("waiting for a CPU", "pressure_percent", _NOTABLE_PRESSURE,
         "more wanted to run than there are CPUs; measuring itself is part of it"),
    ):  # fmt: skip
        span = health[key]
        shown = span and f"{span['median']:g} % (worst block {span['worst']:g} %)"
        yield _fact(what, shown, note, harms=bool(span and span["worst"] > limit))
    if speed := health["speed_percent"]:
        yield _fact(
            "processor speed", f"worst block {speed['worst']:g} % of the usual",
            "frequency, heat, or whoever shares the core; such blocks are measured again",
            harms=speed["worst"] < host.SPEED_PERCENT,
        )  # fmt: skip


def _headline(rows: Sequence[Mapping[str, Any]], blocks: int, margin: float) -> str:
    """Return what the machine can tell apart, by class, and in which workloads it can not.

    Of what it can, the worst workload of a class speaks for it; what it can not is named.
    """
    known = [row for row in rows if row["spread"] is not None]
    clear = [row for row in known if _effect(row) <= margin]
    blurred = sorted((row for row in known if row not in clear), key=_effect, reverse=True)
    told = f"With {QUOTED} blocks and one target this machine"
    parts = []
    if clear:
        parts.append(f"{told} resolves about {listed([*_by_class(clear, known)])}.")
    if blurred:
        named = [f"{percent_text(_effect(row))} in {row['workload']}" for row in blurred]
        more = len(named) - _MOST_NAMED
        shown = [*named[:_MOST_NAMED], f"in {more} more workloads"] if more > 0 else named
        parts.append(f"{'It' if clear else told} cannot tell less than {listed(shown)}.")
    loud = sum(row["exceeds"] for row in rows)
    if loud:
        parts.append(
            f"The noise floor of {loud} of {len(rows)} workloads is above"
            f" {percent_text(margin)}: they can have no verdict of near-native now."
        )
    few = "" if blocks >= MINIMUM_BLOCKS else f": a first look, {MINIMUM_BLOCKS} tell more"
    parts.append(f"From {blocks} blocks of native against native{few}.")
    return " ".join(parts)


def _effect(row: Mapping[str, Any]) -> float:
    return float(row["smallest_effect"][str(QUOTED)])


def _by_class(
    clear: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield what is resolved in each class, in how many of its workloads, and in what time."""
    for group in dict.fromkeys(row["class"] for row in clear):
        own = [row for row in clear if row["class"] == group]
        count = sum(row["class"] == group for row in known)
        share = [f"{len(own)} of {count} workloads"] if len(own) < count else []
        taken = [row["seconds_a_block"] for row in own]
        spent = [] if None in taken else [duration_text(QUOTED * sum(taken))]
        name = CLASSES.get(group, group)
        name = name if name[:2].isupper() or "/" in name else name[0].lower() + name[1:]
        about = f" ({', '.join([*share, *spent])})" if share or spent else ""
        yield f"{percent_text(max(map(_effect, own)))} in {name}{about}"
