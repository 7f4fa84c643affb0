"""The trend of a history as one self-contained page.

One figure for each machine, target and class of workloads: a line for each workload with the band
of its intervals, change points and changes of the machine marked. The page holds each figure twice:
as SVG, which needs no script and is printed, and as data that uPlot draws, with hover and keyboard.
uPlot was chosen because it is small (51 KB, MIT licence), has no dependencies and draws bands and
gaps by itself; Vega brings 800 KB and no keyboard, Observable Plot needs D3.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from isobench.config import bounded, paths, redaction
from isobench.history.beside import Beside
from isobench.history.row import Row
from isobench.history.series import ChangePoint, Series
from isobench.model.wording import interval_text, series_text, times_text
from isobench.report import history as words
from isobench.report import html
from isobench.storage import documents

_MOST_LINES: Final = 8
"""Lines of one figure: the eye cannot distinguish more."""
_WIDTH, _HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 10, 22
_STEPS: Final = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)
_FINE: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
_MOST_TICKS: Final = 6
_NEAR: Final = 1.5
_FEW: Final = 30
"""Runs of a figure from which on lines are drawn without a dot for each run; trend.js has the same
number.
"""
_LATEST: Final = 10
"""Runs in the table below a figure."""
_LIBRARY: Final = ("uplot", "uPlot.iife.min.js")
_LIBRARY_STYLE: Final = ("uplot", "uPlot.min.css")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A workload of a figure, in SVG."""

    name: str
    number: int
    """Which colour and dashes it has."""
    path: str
    band: str
    dots: tuple[tuple[float, float], ...]
    """The runs one by one, where they are few."""
    bar: tuple[float, float, float] | None
    """x and both ends of the interval of the only run: one run has no band."""
    change: str
    """Its last change point in words; empty: it has none."""
    now: str


class MarkKind(StrEnum):
    """What a vertical line marks; a part of the names of CSS classes."""

    WORSE = "worse"
    BETTER = "better"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A vertical line of a figure."""

    x: float
    kind: MarkKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A label of an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """A run in the table below a figure."""

    started: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The workloads of a class in a target, over time."""

    anchor: str
    machine: str
    machine_name: str
    target: str
    group: str
    workloads: tuple[str, ...]
    is_changed: bool
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    latest: tuple[LastRun, ...]
    runs: int
    more: int
    """How many further workloads have no line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What trend.html.j2 shows of a store."""

    title: str
    news: tuple[words.News, ...]
    figures: tuple[Figure, ...]
    targets: tuple[str, ...]
    workloads: tuple[str, ...]
    machines: Mapping[str, str]
    points: tuple[str, ...]
    changes: tuple[str, ...]
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


def write(path: Path, every: Sequence[Series], newest: Sequence[Beside], folder: str) -> None:
    """Write the page. OSError: it cannot be written."""
    documents.write_text(bounded.replaceable(path), render(every, newest, folder))


def render(every: Sequence[Series], newest: Sequence[Beside], folder: str) -> str:
    """Return the page of a store's series and its newest runs, without secrets."""
    shown = [one for one in every if one.rows]
    groups = _grouped(shown)
    templates = paths.shared("reports") / "templates"
    script = (templates / "trend.js").read_text(encoding="utf-8")
    library = templates.joinpath(*_LIBRARY).read_text(encoding="utf-8")
    page = Page(
        title=f"History of ratios to native in {folder}",
        news=tuple(words.news(shown, newest)),
        figures=tuple(_figure(number, one) for number, one in enumerate(groups)),
        targets=tuple(dict.fromkeys(one.key.target for one in shown)),
        workloads=tuple(dict.fromkeys(one.key.workload for one in shown)),
        machines={one.key.machine: one.rows[-1].machine_name for one in shown},
        points=tuple(words.change_point_text(one) for one in words.change_points(shown)),
        changes=tuple(words.machine_changes(shown)),
    )
    data = msgspec.json.encode(redaction.plain([*map(_data, groups)])).decode()
    return html.rendered(
        templates,
        "trend.html.j2",
        page=redaction.plain(page),
        no_run=words.NO_RUN,
        # "<" could end the element that holds the data.
        data=data.replace("<", "\\u003c"),
        script=script,
        library=library,
        style=templates.joinpath(*_LIBRARY_STYLE).read_text(encoding="utf-8"),
        # Of the scripts, for the Content-Security-Policy: no other script may run.
        hashes=[*map(html.policy_hash, (library, script))],
    )


def _grouped(every: Iterable[Series]) -> list[list[Series]]:
    """Return series by machine, target with its options, and class."""
    groups: dict[tuple[str, ...], list[Series]] = {}
    for one in every:
        key = (one.key.machine, one.key.target, one.key.options, one.rows[-1].workload_class)
        groups.setdefault(key, []).append(one)
    return [*groups.values()]


def _seconds(row: Row) -> int:
    return _seconds_of(row.started)


@functools.lru_cache(maxsize=100_000)
def _seconds_of(started: str) -> int:
    return int(datetime.fromisoformat(started).astimezone(UTC).timestamp())


def _times(group: Sequence[Series]) -> list[int]:
    """Return the times of all runs of a figure."""
    return sorted({_seconds(row) for one in group for row in one.rows})


def _bounds(row: Row) -> tuple[float, float]:
    """Return the interval of a run, as logarithms; its ratio where there is none."""
    mean = row.mean or 0.0
    low = math.log(row.low) if row.low else mean
    high = math.log(row.high) if row.high else mean
    return low, high


def _range(group: Sequence[Series]) -> tuple[float, float]:
    """Return the range of a figure, as logarithms. One wide interval does not set it."""
    means = [row.mean or 0.0 for one in group for row in one.rows]
    ends = sorted(end for one in group for row in one.rows for end in _bounds(row))
    cut = len(ends) // 20
    low, high = min(*means, ends[cut]), max(*means, ends[-1 - cut])
    # Native is shown where it is not far: the eye then sees how large a change is.
    low = min(low, 0.0) if low < math.log(_NEAR) else low
    pad = max((high - low) / 12, 0.005)
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    """Return ratios for the labels of an axis from `low` to `high`, which are logarithms."""
    bottom, top = math.exp(low), math.exp(high)
    if top / bottom > 3:  # noqa: PLR2004 - a logarithmic axis with round ratios
        decades = range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
        found = [step * 10.0**decade for decade in decades for step in _STEPS]
        found = [one for one in found if bottom <= one <= top]
        while len(found) > _MOST_TICKS:
            found = found[::2]
        return found
    size = 10.0 ** math.floor(math.log10((top - bottom) / _MOST_TICKS))
    step = next(one * size for one in _FINE if (top - bottom) / (one * size) <= _MOST_TICKS)
    first = math.ceil(bottom / step)
    return [float(f"{n * step:.10g}") for n in range(first, math.floor(top / step) + 1)]


# ---- SVG


def _figure(number: int, group: Sequence[Series]) -> Figure:
    times, (low, high) = _times(group), _range(group)
    first, last = times[0], max(times[-1], times[0] + 1)

    def x(seconds: float) -> float:
        share = 0.5 if len(times) == 1 else (seconds - first) / (last - first)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    drawn = group[:_MOST_LINES]
    newest = max((one.rows[-1] for one in group), key=lambda row: row.started)
    return Figure(
        anchor=f"figure-{number}",
        machine=group[0].key.machine,
        machine_name=newest.machine_name,
        target=group[0].key.target,
        group=newest.workload_class,
        workloads=tuple(one.key.workload for one in group),
        is_changed=any(one.change_points for one in group),
        lines=tuple(_line(n, one, x, y) for n, one in enumerate(drawn)),
        marks=tuple(Mark(x=x(at), kind=kind, text=text) for at, kind, text in _marks(group)),
        across=tuple(Tick(at=x(at), text=_day(at)) for at in _days(times)),
        up=tuple(Tick(at=y(math.log(ratio)), text=f"{ratio:.6g}x") for ratio in _ticks(low, high)),
        latest=tuple(_latest(group)),
        runs=len(times),
        more=len(group) - len(drawn),
    )


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _days(times: Sequence[int]) -> list[int]:
    """Return the times whose labels an axis has room for."""
    return [times[0]] if len(times) == 1 else [times[0], times[-1]]


def _line(number: int, one: Series, x: Any, y: Any) -> Line:  # noqa: ANN401 - two functions
    spots = [(x(_seconds(row)), row) for row in one.rows]
    upper = [f"{at},{y(_bounds(row)[1])}" for at, row in spots]
    lower = [f"{at},{y(_bounds(row)[0])}" for at, row in reversed(spots)]
    point = one.change_points[-1] if one.change_points else None
    last = one.rows[-1]
    only = spots[0] if len(spots) == 1 else None
    return Line(
        name=series_text(one.key.workload, one.key.metric),
        number=number,
        path=" ".join(f"{at},{y(row.mean or 0.0)}" for at, row in spots),
        band=" ".join([*upper, *lower]),
        dots=tuple((at, y(row.mean or 0.0)) for at, row in spots) if len(spots) < _FEW else (),
        bar=(only[0], *map(y, _bounds(only[1]))) if only else None,
        change=words.change_point_text(point) if point else "",
        now=_value(last),
    )


def _value(row: Row) -> str:
    bounds = (row.low, row.high) if row.low and row.high else None
    return f"{times_text(math.exp(row.mean or 0.0), bounds)} {interval_text(bounds)}".strip()


def _marks(group: Sequence[Series]) -> Iterator[tuple[int, MarkKind, str]]:
    """Yield time, kind and text of each change point, and of each run in which something else
    changed.
    """
    for one in group:
        for point in one.change_points:
            yield _seconds(point.row), _kind(point), words.change_point_text(point)
    for at, changes in sorted(_changes(group).items()):
        yield at, MarkKind.MACHINE, f"{_day(at)}: {'; '.join(words.changed_texts(changes))}"


def _kind(point: ChangePoint) -> MarkKind:
    return MarkKind.WORSE if point.is_worse else MarkKind.BETTER


def _changes(group: Sequence[Series]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for one in group:
        for row in one.rows:
            if row.run in one.changes:
                found.setdefault(_seconds(row), []).extend(one.changes[row.run])
    return found


def _latest(group: Sequence[Series]) -> Iterator[LastRun]:
    drawn = group[:_MOST_LINES]
    by_time = [{_seconds(row): row for row in one.rows} for one in drawn]
    for at in reversed(_times(group)[-_LATEST:]):
        values = (rows.get(at) for rows in by_time)
        yield LastRun(
            started=datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M"),
            values=tuple("" if row is None else _value(row) for row in values),
        )


# ---- data for uPlot


def _data(group: Sequence[Series]) -> dict[str, Any]:
    """Return what the script draws: times in seconds, values as natural logarithms."""
    times, (low, high) = _times(group), _range(group)
    place = {at: n for n, at in enumerate(times)}
    lines = []
    for one in group[:_MOST_LINES]:
        columns: list[list[float | None]] = [[None] * len(times) for _ in range(3)]
        for row in one.rows:
            at = place[_seconds(row)]
            bounds = _bounds(row)
            for column, value in zip(columns, (row.mean or 0.0, *bounds), strict=True):
                column[at] = round(value, 6)
        lines.append({"name": series_text(one.key.workload, one.key.metric), "values": columns})
    return {
        "times": times,
        "lines": lines,
        "range": [low, high],
        "ticks": [[math.log(ratio), f"{ratio:.6g}x"] for ratio in _ticks(low, high)],
        "marks": [
            {"at": at, "kind": kind, "text": text.replace(" -> ", " \N{RIGHTWARDS ARROW} ")}
            for at, kind, text in _marks(group)
        ],
    }
