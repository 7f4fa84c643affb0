"""A comparison as a sheet, as JSON and as CSV."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from isobench import stats
from isobench.analysis.cells import LEVEL
from isobench.comparison import compatibility
from isobench.comparison.changes import ALPHA
from isobench.comparison.compatibility import Gravity
from isobench.comparison.result import (
    CHANGED,
    Absence,
    Change,
    Comparison,
    Figure,
    Mode,
    NativeChange,
    RunIdentity,
    Side,
    Status,
)
from isobench.model import Interval
from isobench.model.wording import interval_text, listed, percent_text, ratio_text, series_text
from isobench.report import sheet
from isobench.report.sheet import Row, Sheet
from isobench.storage.schema import FORMAT

USUAL: Final = ("target", "workload", "base", "head", "change", "interval", "standing")
GROUPS: Final = ("target", "workload", "class", "none")
_NUMBERS: Final = frozenset({"change", "interval", "p", "noise", "blocks", "runs"})
_STYLES: Final = {
    Status.REGRESSION: "red",
    Status.IMPROVEMENT: "blue",
    Status.SAME: "green",
    Status.UNPROVEN: "magenta",
}
_KEYS: Final[dict[str, Callable[[Change], str]]] = {
    "target": lambda change: change.target,
    "workload": lambda change: change.workload,
    "class": lambda change: change.workload_class,
    "none": lambda _: "",
}
"""What the rows of a group have in common, by the value of --group-by."""
_WARNINGS: Final = {
    Gravity.REFUSED: "Different processors, compared because --anyway was given",
    Gravity.MACHINE: (
        "Different machines: only ratios to native are compared, and a ratio may differ from"
        " processor to processor"
    ),
}
_METHODS: Final = {
    Mode.RUNS: "One run on each side; the unit is the block. Yuen-Welch interval of the ratio of"
    " trimmed mean ratios to native. One run on each side cannot show how much runs differ. The"
    " noise floors of both runs (native against native) are used instead and widen every interval."
    " Several runs on each side (--base, --head) show how much runs differ.",
    Mode.HISTORIES: "Several runs on each side; the unit is the run. t interval of the runs' ratios"
    " to native, which includes what differs between runs.",
    Mode.TARGETS: "Both targets were interleaved in one run. Trimmed t interval of the block"
    " log-ratios of one to the other. What affects all targets of a run cancels out.",
}
# Two histories may have hundreds of cells. The terminal shows the first ones, the exports all.
_MOST_REASONS: Final = 12
_MOST_NAMED: Final = 4
_SMALL_P: Final = 0.001


# ---- the sheet


def build(
    comparison: Comparison,
    *,
    columns: Sequence[str] = USUAL,
    group_by: str = "target",
    only_changed: bool = False,
) -> Sheet:
    """Return the sheet of a comparison. `columns` are some of COLUMNS, `group_by` one of GROUPS."""
    changes = _grouped(comparison.changes, _KEYS[group_by])
    shown = [one for one in changes if not only_changed or one.status in CHANGED]
    # With two targets of one run, each row is about both.
    targets = comparison.mode is Mode.TARGETS
    kept = [name for name in columns if not (targets and name == "target")]
    names = {
        "base": comparison.base.target or "BASE",
        "head": comparison.head.target or "HEAD",
    }
    return Sheet(
        title=_title(comparison),
        warnings=tuple(warnings(comparison)),
        headings=tuple(names.get(name, name) for name in kept),
        numbers=_NUMBERS | set(names.values()),
        rows=tuple(_row(one, kept, _KEYS[group_by](one)) for one in shown),
        legend=(
            _legend(names["base"], names["head"], comparison.options.minimum_effect),
            _METHODS[comparison.mode],
            *_other_metrics(comparison.changes),
            *_left_out(len(changes) - len(shown), len(changes)),
        ),
        remarks=dict(_remarks(comparison, shown)),
        closing=headline(comparison),
    )


def _grouped(changes: Iterable[Change], key: Callable[[Change], str]) -> list[Change]:
    """Return the changes by group, groups in the order of their first change."""
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(key(change), []).append(change)
    return [change for group in groups.values() for change in group]


def status_text(change: Change) -> str:
    """Return a status in words.

    "suspected": only one run shows the change. "unlike": the programs of the cell differ.
    """
    if change.location is None and any(doubt.code == "unlike" for doubt in change.doubts):
        return "unlike"
    if any(doubt.code == "too-few-runs" for doubt in change.doubts):
        return "too few runs"
    return f"suspected {change.status}" if change.suspected else str(change.status)


def _title(comparison: Comparison) -> str:
    base, head = comparison.base, comparison.head
    if comparison.mode is Mode.TARGETS:
        return f"{head.target} against {base.target}, in {_runs(base)}"
    return f"HEAD {_runs(head)} against BASE {_runs(base)}"


def _runs(side: Side) -> str:
    first, *others = side.runs
    more = f" and {len(others)} more" if others else ""
    return f"{first.path} ({first.started}){more}"


def _legend(base: str, head: str, effect: float) -> str:
    return (
        f"{base} and {head}: time over native. Change: {head} over {base}; above 1 costs more in"
        f" {head}. Same: shown to lie within \N{PLUS-MINUS SIGN}{percent_text(effect)}."
    )


def _series(change: Change) -> str:
    return series_text(change.workload, change.metric.name)


def _other_metrics(changes: Iterable[Change]) -> Iterator[str]:
    if any(not change.metric.is_time for change in changes):
        yield "Of other metrics than time: above 1 is worse, whichever values are better."


def _left_out(count: int, total: int) -> tuple[str, ...]:
    return (f"Left out: {count} of {total} cells, which did not change.",) if count else ()


def _row(change: Change, columns: Sequence[str], group: str) -> Row:
    return Row(
        cells=tuple(_COLUMNS[name](change) for name in columns),
        style=_STYLES.get(change.status, "") if columns[-1:] == ["standing"] else "",
        group=group,
    )


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else ratio_text(ratio)


def _interval(change: Change) -> str:
    interval = change.interval()
    return "-" if interval is None else interval_text(interval.ends)


def _p_value(change: Change) -> str:
    return "<0.001" if change.p_adjusted < _SMALL_P else f"{change.p_adjusted:.3f}"


_COLUMNS: Final[dict[str, Callable[[Change], str]]] = {
    "target": lambda change: change.target,
    "workload": _series,
    "base": lambda change: _ratio(change.base.ratio),
    "head": lambda change: _ratio(change.head.ratio),
    "change": lambda change: _ratio(change.ratio),
    "interval": _interval,
    "p": _p_value,
    "noise": lambda change: "unknown" if change.noise is None else percent_text(change.noise),
    "blocks": lambda change: f"{change.base.blocks}, {change.head.blocks}",
    "runs": lambda change: f"{change.base.runs}, {change.head.runs}",
    "standing": status_text,
}
COLUMNS: Final = tuple(_COLUMNS)


# ---- warnings and notes


def warnings(comparison: Comparison) -> Iterator[str]:
    """Yield a warning where records of a run are lost, or the runs are of different machines."""
    further = [] if comparison.confirmation is None else [comparison.confirmation]
    for run in dict.fromkeys((*comparison.base.runs, *comparison.head.runs, *further)):
        for loss in run.losses:
            yield f"{run.path}: {loss}."
    for gravity, sentence in _WARNINGS.items():
        found = [one for one in comparison.differences if one.gravity is gravity]
        if found:
            yield f"{sentence}: {'; '.join(compatibility.descriptions(found))}."


def notes(comparison: Comparison) -> Iterator[str]:
    """Yield other differences between the runs. They may explain a change."""
    yield from compatibility.descriptions(
        one for one in comparison.differences if one.gravity not in _WARNINGS
    )
    if comparison.native_changes:
        yield _native_changed(comparison.native_changes)


def _native_changed(changes: Sequence[NativeChange]) -> str:
    named = [f"{one.workload} {ratio_text(one.ratio)}x" for one in changes[:_MOST_NAMED]]
    return (
        "native itself took a different time in HEAD than in BASE: "
        f"{_and_more(named, len(changes))}. Only ratios to native are compared, but what slows"
        " native down may slow a target down more, or less."
    )


def _and_more(named: Sequence[str], total: int) -> str:
    """Join names; where `total` is larger than their number, add "and N more"."""
    more = total - len(named)
    return listed([*named, f"{more} more"] if more else named)


def _remarks(
    comparison: Comparison, shown: Sequence[Change]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the lists below the table: differences, doubts, and cells of only one side."""
    for heading, lines in (
        ("What else differs", notes(comparison)),
        ("Doubts", _doubts(shown)),
        ("Only on one side", _absent(comparison.absences)),
    ):
        if found := tuple(lines):
            yield heading, found


def _doubts(changes: Iterable[Change]) -> Iterator[str]:
    """Yield each doubt once, with its cells."""
    about: dict[str, list[str]] = {}
    for change in changes:
        for doubt in doubts_text(change):
            about.setdefault(doubt, []).append(f"{change.target} {_series(change)}")
    for place, (doubt, names) in enumerate(about.items()):
        if place == _MOST_REASONS:
            yield f"and {len(about) - place} more doubts: see --export-json"
            return
        first = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        yield f"{first}: {doubt}"


def doubts_text(change: Change) -> list[str]:
    """Return the doubts about a change with their advice."""
    return [f"{doubt.detail}: {doubt.advice}" for doubt in change.doubts]


def _absent(absences: Iterable[Absence]) -> Iterator[str]:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for one in absences:
        key = (one.lacking, one.target, _absence_text(one))
        grouped.setdefault(key, []).append(series_text(one.workload, one.metric))
    for (lacking, target, detail), workloads in grouped.items():
        named = ", ".join(workloads[:_MOST_NAMED])
        more = len(workloads) - _MOST_NAMED
        named += f" and {more} more" if more > 0 else ""
        yield f"{lacking.upper()} lacks {target}, {named}: {detail}"


def _absence_text(absence: Absence) -> str:
    return "it was not measured there" if absence.cause is None else absence.detail


# ---- the headline


def headline(comparison: Comparison) -> str:
    """Return the closing sentences: what was found, and how certain it is."""
    if comparison.mode is Mode.TARGETS:
        names = f"{comparison.head.target} against {comparison.base.target}"
    else:
        names = "HEAD against BASE"
    count = len(comparison.changes)
    cells = f"{count} cell{'' if count == 1 else 's'}"
    return " ".join(
        (f"{names}, {cells}: {'; '.join(_findings(comparison))}.", *_certainty(comparison))
    )


def _findings(comparison: Comparison) -> list[str]:
    """Return how many cells have each status, changes with their figures."""
    changes, effect = comparison.changes, percent_text(comparison.options.minimum_effect)
    parts = []
    if not any(change.status is Status.REGRESSION for change in changes):
        parts.append(f"no regression of {effect} or more is shown")
    for status in (Status.REGRESSION, Status.IMPROVEMENT):
        for confirmed, word in ((True, "confirmed"), (None, "suspected")):
            own = [one for one in changes if (one.status, one.confirmed) == (status, confirmed)]
            if own:
                noun = f"{word} {status}" if len(own) == 1 else f"{word} {status}s"
                parts.append(f"{len(own)} {noun}: {_figures(own, comparison.mode)}")
    for status, words in (
        (Status.SAME, f"the same within {effect}"),
        (Status.INCONCLUSIVE, "inconclusive"),
        (Status.UNPROVEN, "unproven"),
    ):
        count = sum(change.status is status for change in changes)
        if count:
            parts.append(f"{count} {words}")
    return parts


def _figures(changes: Sequence[Change], mode: Mode) -> str:
    """Return cells with their changes, the largest change first."""
    # The mean is that of log-ratios: half as much and twice as much are changes of the same size.
    ordered = sorted(changes, key=lambda one: -abs(one.location.mean) if one.location else 0.0)
    named = [_figure(one, mode) for one in ordered[:_MOST_NAMED]]
    return _and_more(named, len(ordered))


def _figure(change: Change, mode: Mode) -> str:
    cell = _series(change) if mode is Mode.TARGETS else f"{change.target} {_series(change)}"
    return f"{cell} {_ratio(change.ratio)}x {_interval(change)}"


def _certainty(comparison: Comparison) -> Iterator[str]:
    """Yield what the intervals include, and what would decide undecided cells."""
    yield _what_intervals_include(comparison)
    targets = comparison.mode is Mode.TARGETS
    if any(one.status is Status.INCONCLUSIVE for one in comparison.changes):
        more = "more blocks" if targets else "more blocks in each run, or more runs,"
        yield (
            f"Inconclusive: {more} would narrow the intervals; isobench noise RUN shows how many"
            " blocks this machine needs."
        )
    if any(one.suspected for one in comparison.changes):
        confirmed = "another run of HEAD that shows it again confirms it (--confirm RUN)"
        if comparison.confirmation is not None:
            confirmed = "the run of --confirm does not have this cell, or could not tell"
        yield f"Suspected: seen in one run; {confirmed}."


def _what_intervals_include(comparison: Comparison) -> str:
    level = f"{100 * LEVEL:g} %"
    match comparison.mode:
        case Mode.RUNS:
            return (
                f"Intervals ({level}) include the noise floors of both runs, because one run on"
                " each side cannot show what differs between runs."
            )
        case Mode.HISTORIES:
            sizes = f"{len(comparison.base.runs)} and {len(comparison.head.runs)}"
            return f"Intervals ({level}) are of {sizes} runs and include what differs between them."
        case Mode.TARGETS:
            return f"Intervals ({level}) are of visits paired in the same blocks."


# ---- for scripts


def document(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison for JSON. Ratios are times over native's; shares are 0 to 1."""
    confirmation = comparison.confirmation
    return {
        "schema_version": FORMAT,
        "mode": comparison.mode,
        "base": _side_document(comparison.base),
        "head": _side_document(comparison.head),
        "confirm": None if confirmation is None else _run_document(confirmation),
        "minimum_effect": comparison.options.minimum_effect,
        "level": LEVEL,
        "alpha": ALPHA,
        "method": _METHODS[comparison.mode],
        "anyway": comparison.options.anyway,
        "differences": [msgspec.to_builtins(one) for one in comparison.differences],
        "warnings": list(warnings(comparison)),
        "notes": list(notes(comparison)),
        "cells": [_cell_document(one) for one in comparison.changes],
        "absent": [_absence_document(one) for one in comparison.absences],
        "headline": headline(comparison),
    }


def _side_document(side: Side) -> dict[str, Any]:
    return {"target": side.target, "runs": [_run_document(one) for one in side.runs]}


def _run_document(run: RunIdentity) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(run)
    return found


def _cell_document(change: Change) -> dict[str, Any]:
    location = change.location
    return {
        "target": change.target,
        "workload": change.workload,
        "metric": change.metric.name,
        "class": change.workload_class,
        "base": _figure_document(change.base),
        "head": _figure_document(change.head),
        "change": change.ratio,
        "interval": _bounds(change.interval()),
        "equivalence": _bounds(change.interval(stats.EQUIVALENCE_LEVEL)),
        "p": None if location is None else location.p_difference,
        "p_adjusted": change.p_adjusted,
        "noise": change.noise,
        "method": None if location is None else location.method,
        "standing": change.status,
        "confirmed": change.confirmed,
        "doubts": doubts_text(change),
        "doubt_codes": [doubt.code for doubt in change.doubts],
    }


def _figure_document(figure: Figure) -> dict[str, Any]:
    return {
        "ratio": figure.ratio,
        "interval": _bounds(figure.interval),
        "blocks": figure.blocks,
        "runs": figure.runs,
        "noise": figure.noise,
    }


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _absence_document(absence: Absence) -> dict[str, str]:
    return {
        "target": absence.target,
        "workload": absence.workload,
        "metric": absence.metric,
        "lacking": absence.lacking,
        "cause": "not-measured" if absence.cause is None else absence.cause,
        "detail": _absence_text(absence),
    }


def csv(comparison: Comparison) -> str:
    """Return all cells as CSV, one row each."""
    sides = ("ratio", "low", "high", "blocks", "runs", "noise")
    headings = [
        *("target", "workload", "class"),
        *(f"{side}_{key}" for side in ("base", "head") for key in sides),
        *("change", "low", "high", "p", "p_adjusted", "noise", "standing", "confirmed", "doubts"),
        "metric",
    ]
    return sheet.csv(headings, [_flat(_cell_document(one)) for one in comparison.changes])


def _flat(cell: dict[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {
        key: cell[key]
        for key in ("target", "workload", "class", "change", "p", "p_adjusted", "noise",
                    "standing", "confirmed", "metric")
    }  # fmt: skip
    flat["low"], flat["high"] = cell["interval"] or (None, None)
    for side in ("base", "head"):
        for key in ("ratio", "blocks", "runs", "noise"):
            flat[f"{side}_{key}"] = cell[side][key]
        flat[f"{side}_low"], flat[f"{side}_high"] = cell[side]["interval"] or (None, None)
    flat["doubts"] = "; ".join(cell["doubts"])
    return flat
