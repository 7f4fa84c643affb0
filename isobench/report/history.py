"""The history in words: lists of runs, a run beside its series, series with their change points."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from isobench.history.alarm import ALPHA, FEWEST_BASE, MARGIN, SUSPECT, Finding, Outcome
from isobench.history.beside import Beside
from isobench.history.row import Row
from isobench.history.series import Changed, ChangePoint, Series, is_gap
from isobench.history.store import runs_of
from isobench.model import FAILED_CAUSES, Cause, Interval
from isobench.model.wording import (
    NOTHING,
    counted,
    interval_text,
    listed,
    percent_text,
    series_text,
    times_text,
)
from isobench.report import sheet
from isobench.report.sheet import Sheet
from isobench.stats import FEWEST_RUNS, REPORTED_LEVEL
from isobench.storage.schema import FORMAT

_MOST_NAMED: Final = 4
_MOST_CAUSES: Final = 2
_FINDINGS_LEGEND: Final = (
    "before: the level of the runs since the last change point; now: this run; both are ratios to"
    f" native. Intervals at {100 * REPORTED_LEVEL:g} %. runs: those of the level; 9 of 10: one lies"
    " far from the others, and was left out."
)
_BASE_LEGEND: Final = (
    "A change is suspected where it is larger than what runs of the series differ by, and than the"
    f" noise floor; at least {FEWEST_BASE} runs before are needed. unchanged: within"
    f" {percent_text(MARGIN)}; inconclusive: neither is shown."
)
_TREND_LEGEND: Final = (
    "level: mean ratio to native of the runs since the last change point; spread: of these runs;"
    " last: the last run with its interval."
)
_MITIGATION: Final = "mitigation of "
_PROGRAM: Final = "program of "
_STYLES: Final = {
    Outcome.REGRESSION: "red",
    Outcome.IMPROVEMENT: "blue",
    Outcome.UNCHANGED: "green",
    Outcome.UNPROVEN: "magenta",
}


def night(started: str) -> str:
    """Return the day of a run: 2026-11-29."""
    return started[:10]


def name_of(row: Row) -> str:
    """Return a cell in words: "docker io.fsync", with the metric where it is not time."""
    return f"{row.target} {series_text(row.workload, row.metric)}"


# ---- the runs of a store


def runs(rows: Sequence[Row], folder: str) -> Sheet:
    """Return the list of the runs of a store, the newest last."""
    grouped = runs_of(rows)
    machines = {row.machine for row in rows}
    return Sheet(
        title=f"History in {folder}",
        warnings=(),
        headings=("started", "run", "cells", "targets", "isobench", "machine", "bundle"),
        numbers=frozenset({"cells"}),
        rows=tuple(sheet.Row(cells=_run_cells(found)) for found in grouped),
        legend=(),
        remarks={},
        closing=f"{counted(len(grouped), 'run')} on {counted(len(machines), 'machine')}.",
    )


def _run_cells(rows: Sequence[Row]) -> tuple[str, ...]:
    first = rows[0]
    measured = sum(row.mean is not None for row in rows)
    conditions = msgspec.json.decode(first.conditions, type=dict[str, str])
    kind = " (quick)" if first.quick else " (confirms another)" if first.confirms else ""
    return (
        first.started,
        first.run + kind,
        str(measured),
        ", ".join(dict.fromkeys(row.target for row in rows)),
        conditions.get("isobench", NOTHING),
        first.machine_name,
        first.link or NOTHING,
    )


def runs_document(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the runs of a store for JSON."""
    return {"schema_version": FORMAT, "runs": [*_run_documents(rows)]}


def _run_documents(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for found in runs_of(rows):
        first = found[0]
        yield {
            "run": first.run,
            "started": first.started,
            "machine": first.machine,
            "machine_name": first.machine_name,
            "cells": sum(row.mean is not None for row in found),
            "targets": [*dict.fromkeys(row.target for row in found)],
            "complete": first.complete,
            "quick": first.quick,
            "confirms": first.confirms,
            "link": first.link,
        }


def runs_csv(rows: Sequence[Row]) -> str:
    """Return the runs of a store as CSV, one row each."""
    headings = (
        "run", "started", "machine", "machine_name", "cells", "targets", "complete", "quick",
        "confirms", "link",
    )  # fmt: skip
    found = [one | {"targets": ",".join(one["targets"])} for one in _run_documents(rows)]
    return sheet.csv(headings, found)


# ---- a run beside its series


def findings(found: Beside, *, only_changed: bool = False) -> Sheet:
    """Return a run beside the runs before it."""
    shown = [one for one in found.findings if not only_changed or one.outcome in SUSPECT]
    return Sheet(
        title=f"Run {found.first.run} beside its history, on {found.first.machine_name}",
        warnings=(),
        headings=("target", "workload", "before", "runs", "now", "change", "interval", "outcome"),
        numbers=frozenset({"before", "runs", "now", "change", "interval"}),
        rows=tuple(_finding_row(one) for one in shown),
        legend=(
            _FINDINGS_LEGEND,
            _BASE_LEGEND,
        ),
        remarks=dict(_finding_remarks(shown)),
        closing=findings_headline(found),
    )


def _finding_row(one: Finding) -> sheet.Row:
    change = None if one.location is None else math.exp(one.location.mean)
    interval = one.interval
    return sheet.Row(
        cells=(
            one.row.target,
            series_text(one.row.workload, one.row.metric),
            times_text(one.level),
            _runs_text(one),
            times_text(_ratio(one.row)),
            times_text(change),
            interval_text(interval.ends) if interval else NOTHING,
            _outcome_text(one),
        ),
        style=_STYLES.get(one.outcome, ""),
        group=one.row.target,
    )


def _runs_text(one: Finding) -> str:
    if one.left_out:
        return f"{one.runs} of {one.runs + one.left_out}"
    return str(one.runs or NOTHING)


def _outcome_text(one: Finding) -> str:
    if one.outcome not in SUSPECT:
        return str(one.outcome)
    return f"{'confirmed' if one.confirmed else 'suspected'} {one.outcome}"


def _ratio(row: Row) -> float | None:
    return None if row.mean is None else math.exp(row.mean)


def _finding_remarks(found: Iterable[Finding]) -> Iterator[tuple[str, tuple[str, ...]]]:
    about = changed_texts(change for one in found for change in one.changed)
    if about:
        yield "Not as in the run before", tuple(about)


def changed_texts(changes: Iterable[Changed]) -> list[str]:
    """Return what changed in words, each once: "docker 26.1.4 -> 27.0.1". Engines and versions come
    first; of mitigations and programs, which are many, only the names are given.
    """
    every = [*dict.fromkeys(changes)]
    plain = [one for one in every if not one.what.startswith((_MITIGATION, _PROGRAM))]
    texts = [f"{one.what} {one.before} -> {one.after}" for one in plain]
    for beginning, noun in ((_MITIGATION, "mitigations"), (_PROGRAM, "other programs")):
        names = dict.fromkeys(
            one.what.removeprefix(beginning) for one in every if one.what.startswith(beginning)
        )
        if names:
            texts.append(f"{noun}: {', '.join(names)}")
    return texts


def _causes(changes: Sequence[Changed]) -> str:
    """Return the first of what changed, for a sentence."""
    # An engine's version is last in a run's list, and the likeliest cause.
    texts = changed_texts(reversed(changes))
    more = len(texts) - _MOST_CAUSES
    return listed([*texts[:_MOST_CAUSES], f"{more} more"] if more > 0 else texts)


def findings_headline(beside: Beside) -> str:
    """Return the closing sentences: what has changed, how certain it is, and what is missing."""
    found = beside.findings
    parts = [*_changes_of(found), *_unchanged(found), *_without_verdict(found)]
    sentences = [f"{counted(len(found), 'cell')} beside the history: {'; '.join(parts)}."]
    sentences += [f"{text}." for text in _missing(beside.missing)]
    if any(one.outcome in SUSPECT and one.confirmed is None for one in found):
        sentences.append(
            "Suspected: seen in one run only. isobench run --fail-on regression --confirm measures"
            " such cells again."
        )
    return " ".join(sentences)


def _changes_of(found: Sequence[Finding]) -> Iterator[str]:
    for confirmed, word in ((True, "confirmed"), (None, "suspected")):
        for outcome in (Outcome.REGRESSION, Outcome.IMPROVEMENT):
            own = [one for one in found if (one.outcome, one.confirmed) == (outcome, confirmed)]
            if own:
                noun = outcome if len(own) == 1 else f"{outcome}s"
                yield f"{len(own)} {word} {noun}: {_some([finding_text(x) for x in own])}"


def _unchanged(found: Sequence[Finding]) -> Iterator[str]:
    refuted = sum(one.confirmed is False for one in found)
    again = f" ({refuted} of them looked changed, and fresh blocks did not show it again)"
    for outcome, words in (
        (Outcome.UNCHANGED, "unchanged"),
        (Outcome.INCONCLUSIVE, f"inconclusive{again if refuted else ''}"),
    ):
        if count := sum(one.outcome is outcome for one in found):
            yield f"{count} {words}"


def _without_verdict(found: Sequence[Finding]) -> Iterator[str]:
    if few := sum(one.outcome is Outcome.TOO_FEW for one in found):
        yield (
            f"{counted(few, 'cell')} with fewer than {FEWEST_BASE} runs before that were measured"
            " alike"
        )
    others: dict[str, list[str]] = {"unproven": [], "failed": [], "not measured": []}
    for one in found:
        if one.outcome is Outcome.UNPROVEN:
            others[_how_unproven(one.row)].append(name_of(one.row))
    for word, names in others.items():
        if names:
            yield f"{counted(len(names), 'cell')} {word} in this run: {_some(names)}"


def _how_unproven(row: Row) -> str:
    if not is_gap(row) or row.status == Cause.UNPROVEN:
        return "unproven"
    return "failed" if row.status in FAILED_CAUSES else "not measured"


def _missing(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        verb = "is" if len(rows) == 1 else "are"
        names = _some([name_of(row) for row in rows])
        yield f"{counted(len(rows), 'cell')} of the run before {verb} not in this one: {names}"


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_NAMED
    return listed([*texts[:_MOST_NAMED], f"{more} more"] if more > 0 else texts)


def finding_text(one: Finding) -> str:
    """Return a finding in words: "docker io.fsync 1.80x -> 2.31x (1.28x [1.22, 1.35])"."""
    why = f", the run in which {_causes(one.changed)} changed" if one.changed else ""
    return f"{name_of(one.row)} {_step(one.level, _ratio(one.row), one.interval)}{why}"


def _step(before: float | None, after: float | None, change: Interval | None) -> str:
    text = f"{times_text(before)} -> {times_text(after)}"
    if before and after and change:
        text += f" ({times_text(after / before)} {interval_text(change.ends)})"
    return text


def findings_document(found: Beside) -> dict[str, Any]:
    """Return a run beside its series for JSON."""
    return {
        "schema_version": FORMAT,
        "run": found.first.run,
        "machine": found.first.machine,
        "level": REPORTED_LEVEL,
        "alpha": ALPHA,
        "cells": [_finding_document(one) for one in found.findings],
        "missing": [
            {"target": row.target, "workload": row.workload, "metric": row.metric}
            for row in found.missing
        ],
        "headline": findings_headline(found),
    }


def _finding_document(one: Finding) -> dict[str, Any]:
    interval = one.interval
    return {
        "target": one.row.target,
        "workload": one.row.workload,
        "metric": one.row.metric,
        "class": one.row.workload_class,
        "before": one.level,
        "runs": one.runs,
        "left_out": one.left_out,
        "now": _ratio(one.row),
        "change": None if one.location is None else math.exp(one.location.mean),
        "interval": None if interval is None else [*interval.ends],
        "noise": one.noise,
        "outcome": one.outcome,
        "confirmed": one.confirmed,
        "changed": [change._asdict() for change in one.changed],
    }


def findings_csv(found: Beside) -> str:
    """Return a run beside its series as CSV, one row a cell."""
    headings = (
        "target", "workload", "metric", "class", "before", "runs", "left_out", "now", "change",
        "low", "high", "noise", "outcome", "confirmed",
    )  # fmt: skip
    rows = []
    for one in found.findings:
        row = _finding_document(one)
        row["low"], row["high"] = row.pop("interval") or (None, None)
        row.pop("changed")
        rows.append(row)
    return sheet.csv(headings, rows)


# ---- series


def trend(every: Sequence[Series], newest: Sequence[Beside], folder: str) -> Sheet:
    """Return the series of a store: the level of each, and where it changed. `newest`: the newest
    run of each machine.
    """
    shown = [one for one in every if one.rows]
    return Sheet(
        title=f"Trend of {len(shown)} series in {folder}",
        warnings=(),
        headings=("target", "workload", "runs", "level", "spread", "last", "since", "change"),
        numbers=frozenset({"runs", "level", "spread", "last"}),
        rows=tuple(_series_row(one) for one in shown),
        legend=(
            _TREND_LEGEND,
            f"Fewer than {FEWEST_RUNS} runs have no change points.",
        ),
        remarks=dict(_trend_remarks(shown)),
        closing=trend_headline(shown, newest),
    )


def _series_row(one: Series) -> sheet.Row:
    last, level = one.rows[-1], one.level
    means = [row.mean or 0.0 for row in level]
    middle = sum(means) / len(means)
    apart = (
        math.sqrt(sum((x - middle) ** 2 for x in means) / (len(means) - 1)) if means[1:] else None
    )
    bounds = (last.low, last.high) if last.low and last.high else None
    point = one.change_points[-1] if one.change_points else None
    return sheet.Row(
        cells=(
            one.key.target,
            series_text(one.key.workload, one.key.metric),
            str(len(one.rows)),
            times_text(math.exp(middle)),
            NOTHING if apart is None else percent_text(math.expm1(apart)),
            f"{times_text(_ratio(last))} {interval_text(bounds)}",
            night(point.row.started) if point else night(one.rows[0].started),
            _point_text(point) if point else "too few runs" if one.is_too_short else "none",
        ),
        style="" if point is None else "red" if point.is_worse else "blue",
        group=f"{one.rows[-1].machine_name} {one.key.target}",
    )


def _point_text(point: ChangePoint) -> str:
    text = _step(point.before, point.after, point.interval)
    return text if point.confirmed is None else f"{text}, {_confirmed_text(point)}"


def _confirmed_text(point: ChangePoint) -> str:
    return "confirmed that night" if point.confirmed else "not shown again that night"


def _trend_remarks(every: Sequence[Series]) -> Iterator[tuple[str, tuple[str, ...]]]:
    points = change_points(every)
    if points:
        yield "Change points, the newest first", tuple(change_point_text(one) for one in points)
    changes = tuple(machine_changes(every))
    if changes:
        yield "What changed on the machines", changes


def change_points(every: Iterable[Series]) -> list[ChangePoint]:
    """Return all change points, the newest first."""
    found = [point for one in every for point in one.change_points]
    return sorted(found, key=lambda point: point.row.started, reverse=True)


def change_point_text(point: ChangePoint) -> str:
    """Return a change point as a sentence."""
    return f"{night(point.row.started)}: {_sentence(point)}"


def machine_changes(every: Iterable[Series]) -> Iterator[str]:
    """Yield what changed on machines, by night, each once."""
    by_night: dict[str, list[Changed]] = {}
    for one in every:
        for row in one.rows:
            by_night.setdefault(night(row.started), []).extend(one.changes.get(row.run, ()))
    for started, changes in sorted(by_night.items()):
        for text in changed_texts(changes):
            yield f"{started}: {text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What is new on a machine."""

    machine: str
    night: str
    """That of its newest run."""
    is_first: bool
    """The machine has no run before."""
    fresh: tuple[str, ...]
    """What is not as before in that run, in the words of `findings_headline`."""
    earlier: tuple[tuple[str, str], ...]
    """Nights and change points, the newest first."""


def news(every: Sequence[Series], newest: Sequence[Beside]) -> Iterator[News]:
    """Yield what is new on each machine, in the order of `newest`: the newest run of each."""
    for one in newest:
        points = change_points(x for x in every if x.key.machine == one.first.machine)
        yield News(
            machine=one.first.machine_name,
            night=night(one.first.started),
            is_first=one.is_first,
            fresh=tuple(_fresh(one)),
            earlier=tuple((night(point.row.started), _sentence(point)) for point in points),
        )


def _fresh(one: Beside) -> Iterator[str]:
    # What cannot be measured, and was not measured in the run before, is no news. A failure is.
    lacking = {(row.target, row.workload) for row in one.before if is_gap(row)}
    found = [
        x
        for x in one.findings
        if (x.row.target, x.row.workload) not in lacking
        or not is_gap(x.row)
        or x.row.status in FAILED_CAUSES
    ]
    yield from _changes_of(found)
    yield from _without_verdict(found)
    yield from _missing(one.missing)


def news_text(one: News) -> str:
    """Return what the newest run of a machine brought."""
    if one.is_first:
        return "the first run here; a trend needs runs to compare it with"
    return f"since the run before: {'; '.join(one.fresh) or 'nothing'}"


NO_RUN: Final = "No run counts: quick runs, gaps and unproven cells are left out."


def trend_headline(every: Sequence[Series], newest: Sequence[Beside]) -> str:
    """Return the closing sentences: what is new since the run before, and what has changed since
    when.
    """
    sentences = []
    for one in news(every, newest):
        text = f"{one.machine}, {one.night}: {news_text(one)}"
        for since, sentence in one.earlier[:_MOST_NAMED]:
            text += f"; since {since}: {sentence}"
        more = len(one.earlier) - _MOST_NAMED
        sentences.append(f"{text}; and {more} more change points." if more > 0 else f"{text}.")
    return " ".join([*sentences, *([] if every else [NO_RUN])])


def _sentence(point: ChangePoint) -> str:
    text = f"{name_of(point.row)} {_point_text(point)}"
    if point.changed:
        text += f", the run in which {_causes(point.changed)} changed"
    return text


def trend_document(every: Sequence[Series], newest: Sequence[Beside]) -> dict[str, Any]:
    """Return series with their runs and change points for JSON."""
    return {
        "schema_version": FORMAT,
        "level": REPORTED_LEVEL,
        "series": [_series_document(one) for one in every],
        "headline": trend_headline([one for one in every if one.rows], newest),
    }


def _series_document(one: Series) -> dict[str, Any]:
    return {
        **one.key._asdict(),
        "class": (one.rows or one.others or one.again)[0].workload_class,
        "runs": [
            {
                "run": row.run,
                "started": row.started,
                "ratio": _ratio(row),
                "interval": [row.low, row.high],
                "changed": [change._asdict() for change in one.changes.get(row.run, ())],
            }
            for row in one.rows
        ],
        "change_points": [
            {
                "run": point.row.run,
                "started": point.row.started,
                "before": point.before,
                "after": point.after,
                "change": math.exp(point.location.mean),
                "interval": [*point.interval.ends],
                "runs": [*point.runs],
                "confirmed": point.confirmed,
                "changed": [change._asdict() for change in point.changed],
            }
            for point in one.change_points
        ],
    }


def trend_csv(every: Sequence[Series]) -> str:
    """Return the runs of all series as CSV, one row each."""
    headings = (
        "machine", "target", "workload", "metric", "run", "started", "ratio", "low", "high",
    )  # fmt: skip
    return sheet.csv(
        headings,
        [
            {
                "machine": row.machine,
                "target": row.target,
                "workload": row.workload,
                "metric": row.metric,
                "run": row.run,
                "started": row.started,
                "ratio": _ratio(row),
                "low": row.low,
                "high": row.high,
            }
            for one in every
            for row in one.rows
        ],
    )
