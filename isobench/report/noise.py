"""The noise of a machine as a sheet, as JSON and as CSV."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from isobench.comparison.noise import (
    QUOTED,
    SIZES,
    Effort,
    HostFact,
    HostProperty,
    MachineNoise,
    Spanned,
    WorkloadNoise,
)
from isobench.model import TIME
from isobench.model.wording import duration_text, listed, percent_text, series_text
from isobench.report import sheet
from isobench.report.sheet import Row, Sheet
from isobench.storage.schema import FORMAT
from isobench.workloads import classes

_UNKNOWN: Final = "-"
_MANY: Final = "over 1,000"  # --blocks takes 1,000 at most
_MOST_NAMED: Final = 4
_ENOUGH_BLOCKS: Final = 10
"""From fewer blocks, the estimate of the noise is only a first one."""
_NOTES: Final = {
    HostProperty.VIRTUALIZATION: "other guests of its host share caches, memory and disk with it",
    HostProperty.GOVERNOR: "cpupower frequency-set -g performance",
    HostProperty.TURBO: "the clock rate depends on heat and load; it is steadier without turbo",
    HostProperty.SMT: "two threads share a core; figures are steadier without SMT",
    HostProperty.CLOCK: "this clock is virtual or slow; short iterations are less precise",
    HostProperty.CPU_LIMIT: "the scheduler stops processes that have used up this limit",
    HostProperty.LOAD: "other programs were running",
    HostProperty.STEAL: "the hypervisor gave the CPU to other guests",
    HostProperty.PRESSURE: "more processes wanted to run than there are CPUs; measuring itself adds"
    " to this",
    HostProperty.SPEED: "frequency, heat, or other work on the same core; such blocks are measured"
    " again",
}
"""Why a property makes figures less precise, or the command that changes it."""


# ---- the sheet


def build(noise: MachineNoise) -> Sheet:
    """Return the sheet of a machine's noise."""
    width, margin = percent_text(noise.precision), percent_text(noise.margin)
    half = f"\N{PLUS-MINUS SIGN}{width}"
    effects = [f"of {size}" for size in SIZES]
    return Sheet(
        title=f"Native against native: {noise.run.path} ({noise.run.started})",
        warnings=tuple(f"{noise.run.path}: {loss}." for loss in noise.run.losses),
        headings=(
            "workload", "floor", "a block", "rounds", *effects, f"to {half}",
            f"verdict at {margin}", "drift", "outliers",
        ),
        numbers=frozenset({"floor", "a block", "rounds", *effects, "drift", "outliers"}),
        rows=tuple(_row(one) for one in noise.workloads),
        legend=(_legend(noise, half),),
        remarks=dict(_remarks(noise)),
        closing=headline(noise),
    )  # fmt: skip


def _legend(noise: MachineNoise, half: str) -> str:
    return (
        "floor: the noise floor, the smallest effect that this run can distinguish from none. a"
        " block: the spread of blocks. rounds: the part of its square that comes from the rounds"
        " of a block; the rest becomes smaller only with more blocks. of"
        f" {', '.join(map(str, SIZES))}: the smallest effect that so many blocks show in nine of"
        f" ten runs. to {half}: blocks until the {100 * noise.level:g} % interval is this"
        " narrow, and their time with one target as fast as native. verdict: blocks that show"
        f" near-native at {percent_text(noise.margin)}."
    )


def _row(one: WorkloadNoise) -> Row:
    drift, outlying = one.drift, one.outlying_rate
    return Row(
        cells=(
            series_text(one.workload, one.metric),
            _share(one.noise),
            _share(one.spread),
            _UNKNOWN if one.rounds_share is None else f"{one.rounds_share:.0%}",
            *(_share(one.smallest_effect[size]) for size in SIZES),
            _effort(one.precision, known=one.spread is not None),
            _effort(one.verdict, known=one.spread is not None),
            _UNKNOWN if drift is None else f"{drift.change:+.0%}" + "!" * drift.notable,
            _UNKNOWN if outlying is None else f"{outlying:.0%}",
        ),
        group=one.workload_class,
    )


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else percent_text(value)


def _effort(effort: Effort, *, known: bool) -> str:
    blocks, seconds = effort.blocks, effort.seconds
    if blocks is None:
        return _MANY if known else _UNKNOWN
    return f"{blocks:,}" if seconds is None else f"{blocks:,} in {duration_text(seconds)}"


def _remarks(noise: MachineNoise) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "This machine", tuple(_fact_text(one) for one in noise.host)
    health = noise.health
    broken = [f"{rule}: {count} of {health.blocks}" for rule, count in health.broken.items()]
    if broken:
        discarded = f"{health.invalid} of {health.blocks} blocks do not count"
        yield "Blocks that broke a rule for a quiet host", (*broken, discarded)


def _fact_text(fact: HostFact) -> str:
    note = _note(fact)
    return f"{fact.name}: {_value(fact)}" + (f" - {note}" if note else "")


def _note(fact: HostFact) -> str:
    return _NOTES[fact.name] if fact.harmful else ""


def _value(fact: HostFact) -> str:
    match fact.name, fact.value:
        case HostProperty.CPU_LIMIT, None:
            return "none"
        case HostProperty.CPU_LIMIT, float() | int() as limit:
            return f"{limit:g} CPUs"
        case HostProperty.SPEED, Spanned() as speed:
            return f"worst block {speed.worst:g} % of the usual"
        case _, Spanned() as span:
            return f"{span.median:g} % (worst block {span.worst:g} %)"
        case _, None:
            return "not visible"
        case _:
            return str(fact.value)


# ---- the headline


def headline(noise: MachineNoise) -> str:
    """Return the effects in time that the machine can show, by class, and the workloads in which it
    cannot show the margin.

    Of the workloads that can, the worst one stands for its class; those that cannot are named.
    """
    timed = [one for one in noise.workloads if one.metric == TIME.name]
    known = [one for one in timed if one.effect is not None]
    clear = [one for one in known if _effect(one) <= noise.margin]
    blurred = sorted((one for one in known if one not in clear), key=_effect, reverse=True)
    subject = f"With {QUOTED} blocks and one target this machine"
    return " ".join(
        (
            *([f"{subject} resolves about {listed([*_by_class(clear, known)])}."] if clear else ()),
            *_unresolved(blurred, "It" if clear else subject),
            *_loud(timed, noise.margin),
            _basis(noise.blocks),
        )
    )


def _effect(one: WorkloadNoise) -> float:
    """Return the smallest effect of a workload that has one."""
    assert one.effect is not None
    return one.effect


def _unresolved(blurred: Sequence[WorkloadNoise], subject: str) -> Iterator[str]:
    if not blurred:
        return
    named = [f"{percent_text(_effect(one))} in {one.workload}" for one in blurred]
    more = len(named) - _MOST_NAMED
    shown = [*named[:_MOST_NAMED], f"in {more} more workloads"] if more > 0 else named
    yield f"{subject} cannot show effects smaller than {listed(shown)}."


def _loud(timed: Sequence[WorkloadNoise], margin: float) -> Iterator[str]:
    loud = sum(one.exceeds for one in timed)
    if loud:
        yield (
            f"The noise floor of {loud} of {len(timed)} workloads is above"
            f" {percent_text(margin)}: near-native takes more blocks there."
        )


def _basis(blocks: int) -> str:
    few = f": this is only a first estimate; measure {_ENOUGH_BLOCKS} or more"
    return f"From {blocks} blocks of native against native{few if blocks < _ENOUGH_BLOCKS else ''}."


def _by_class(clear: Sequence[WorkloadNoise], known: Sequence[WorkloadNoise]) -> Iterator[str]:
    """Yield the smallest effect of each class, in how many of its workloads, and in what time."""
    for name in dict.fromkeys(one.workload_class for one in clear):
        own = [one for one in clear if one.workload_class == name]
        count = sum(one.workload_class == name for one in known)
        share = [f"{len(own)} of {count} workloads"] if len(own) < count else []
        seconds = [one.seconds_a_block for one in own if one.seconds_a_block is not None]
        duration = [duration_text(QUOTED * sum(seconds))] if len(seconds) == len(own) else []
        about = f" ({', '.join([*share, *duration])})" if share or duration else ""
        yield f"{percent_text(max(map(_effect, own)))} in {classes.get(name).within}{about}"


# ---- for scripts


def document(noise: MachineNoise) -> dict[str, Any]:
    """Return the noise of a machine for JSON. Shares are 0 to 1, times in seconds."""
    health: dict[str, Any] = msgspec.to_builtins(noise.health)
    return {
        "schema_version": FORMAT,
        "run": {**msgspec.to_builtins(noise.run), "blocks": noise.blocks},
        "precision": noise.precision,
        "margin": noise.margin,
        "level": noise.level,
        "workloads": [_workload_document(one) for one in noise.workloads],
        "health": health,
        "host": [
            {"fact": fact.name.value, "value": _value(fact), "note": _note(fact)}
            for fact in noise.host
        ],
        "headline": headline(noise),
    }


def _workload_document(one: WorkloadNoise) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(one, str_keys=True)
    keys = {"workload_class": "class"}
    return {keys.get(key, key): value for key, value in found.items()}


def csv(noise: MachineNoise) -> str:
    """Return the workloads as CSV, one row each."""
    plain = ("workload", "class", "blocks", "noise", "spread", "seconds_a_block", "outlying_rate")
    headings = [
        *plain,
        *(f"smallest_effect_{size}" for size in SIZES),
        *("precision_blocks", "precision_seconds", "verdict_blocks", "verdict_seconds", "drift"),
        "metric",
    ]
    rows = [_flat(_workload_document(one), plain) for one in noise.workloads]
    return sheet.csv(headings, rows)


def _flat(row: dict[str, Any], plain: Sequence[str]) -> dict[str, object]:
    flat: dict[str, object] = {key: row[key] for key in plain}
    flat |= {f"smallest_effect_{size}": effect for size, effect in row["smallest_effect"].items()}
    for goal in ("precision", "verdict"):
        flat |= {f"{goal}_{key}": value for key, value in row[goal].items()}
    drift = row["drift"] and row["drift"]["change"]
    return flat | {"drift": drift, "metric": row["metric"]}
