"""The summary, read once: its targets, workloads and cells, each checked and cleaned."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from isobench.model import Status, Technology
from isobench.report.sections.figures import interval_text, ratio_text
from isobench.report.sections.marks import FEW_CODES, MARKS
from isobench.report.sections.shapes import Heading, Mark
from isobench.report.sections.values import amount_of, clean, items_of, mapping_of, number_of
from isobench.workloads import classes

START_CLASS: Final = classes.START_UP
REFERENCE: Final = "native"
TECHNOLOGIES: Final = {
    Technology.NATIVE: "Native",
    Technology.VIRTUALIZATION: "Virtualization",
    Technology.CONTAINERIZATION: "Containerization",
    Technology.EMULATION: "Emulation",
    Technology.TRANSLATION: "Translation layer",
    Technology.SANDBOX: "Sandbox",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target of the run; `raw` is the summary's own entry, not yet cleaned."""

    heading: Heading
    technology: str
    status: str
    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name, as cells and gaps use it."""
        return self.heading.name

    @property
    def measured(self) -> bool:
        """Whether it has numbers."""
        return self.status == "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload and its class, which is `group`; `operation` is what one value times."""

    name: str
    group: str
    anchor: str
    summary: str
    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A target at a workload: seconds, ratio to native, interval; None for what is no number."""

    target: str
    workload: str
    group: str
    value: float | None
    reference: float | None
    ratio: float | None
    bounds: tuple[float, float] | None
    status: str
    raw: Mapping[str, Any]

    @property
    def digits(self) -> int:
        """Significant digits of a time, one to three, as the width of the interval justifies."""
        if self.bounds is None or not self.ratio:
            return 3
        half = (self.bounds[1] - self.bounds[0]) / 2 / self.ratio
        return max(1, min(3, math.ceil(-math.log10(half)) + 1)) if half > 0 else 3

    @property
    def mark(self) -> Mark:
        """The mark of the verdict; inconclusive for one that is not known.

        A cell that only lacks blocks is marked differently from one that something speaks against.
        """
        codes = self.raw.get("doubt_codes")
        named = {clean(code) for code in codes} if isinstance(codes, list | tuple) else set()
        if self.status == Status.UNPROVEN and named & FEW_CODES:
            return MARKS["few"]
        return MARKS.get(self.status, MARKS[Status.INCONCLUSIVE])

    @property
    def ratio_text(self) -> str:
        """The ratio with the decimals that its interval justifies, or a dash."""
        return ratio_text(self.ratio, self.bounds)

    @property
    def interval_text(self) -> str:
        """The interval with the decimals of the ratio, or nothing."""
        return interval_text(self.ratio, self.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A summary, read: cells by target and workload, shares (noise, margin, level) as numbers."""

    raw: Mapping[str, Any]
    targets: tuple[Target, ...]
    workloads: tuple[Workload, ...]
    cells: Mapping[tuple[str, str], Cell]
    class_means: Mapping[tuple[str, str], Cell]
    """By target and class; `Cell.workload` is the class."""
    gaps: Sequence[Mapping[str, Any]]
    start_phases: Sequence[Mapping[str, Any]]
    null_spawns: Sequence[Mapping[str, Any]]
    warmup_profiles: Sequence[Mapping[str, Any]]
    variations: Sequence[Mapping[str, Any]]
    claims: Mapping[str, Mapping[str, Any]]
    noise: Mapping[str, float]
    margin: float
    level: float

    def gap(self, target: str, workload: str) -> Mapping[str, Any] | None:
        """Return the gap of a cell, or the one of the whole target."""
        for name in (workload, ""):
            for gap in self.gaps:
                if clean(gap.get("target")) == target and clean(gap.get("workload")) == name:
                    return gap
        return None

    def columns(self) -> tuple[Heading, ...]:
        """Return the targets with numbers, in the order of the run; the control last."""
        names = {cell.target for cell in self.cells.values()}
        known = [target.heading for target in self.targets if target.name in names]
        strangers = sorted(names - {heading.name for heading in known})
        found = [*known, *(heading_of(name, "") for name in strangers)]
        found = [heading for heading in found if heading.name != REFERENCE]
        return tuple(sorted(found, key=lambda heading: heading.control))

    def reference(self, workload: str) -> float | None:
        """Return native's seconds per operation: the median over the pairs with native."""
        found = [
            cell.reference
            for cell in self.cells.values()
            if cell.workload == workload and cell.reference is not None
        ]
        return median(found) if found else None


def heading_of(name: str, technology: str) -> Heading:
    """Return the heading of a target; native against itself is the A/A control."""
    control = name.startswith(f"{REFERENCE}#")
    title = "A/A control" if control else _technology(technology)
    return Heading(name=name, technology=title, control=control)


def _technology(name: str) -> str:
    return {key.value: title for key, title in TECHNOLOGIES.items()}.get(name, name)


def mean_of(group: str) -> str:
    """Return what the mean of a class is called among its workloads."""
    return f"{group}: mean"


def class_title(group: str) -> str:
    """Return the title of a class of workloads."""
    return classes.get(group).title or "Other"


def read(summary: Mapping[str, Any]) -> Run:
    """Return the summary, read: what is absent or malformed falls back or is left out."""
    run = mapping_of(summary.get("run"))
    cells = [_cell(item) for item in items_of(summary.get("cells"))]
    class_means = [_cell({**item, "workload": item.get("class")}) for item in _class_means(summary)]
    gaps = items_of(summary.get("gaps"))
    noise = {clean(key): amount_of(value) for key, value in mapping_of(run.get("noise")).items()}
    margin, level = number_of(run.get("margin")), number_of(run.get("level"))
    if level is None:
        level = next((number_of(cell.raw.get("level")) for cell in cells), None)
    return Run(
        raw=run,
        targets=_targets(summary),
        workloads=_workloads(items_of(summary.get("workloads")), cells),
        cells={(cell.target, cell.workload): cell for cell in cells},
        class_means={(suite.target, suite.group): suite for suite in class_means},
        gaps=gaps,
        start_phases=items_of(summary.get("ladders")),
        null_spawns=items_of(summary.get("null_spawns")),
        warmup_profiles=items_of(summary.get("courses")),
        variations=items_of(summary.get("variations")),
        claims={clean(item.get("id")): item for item in items_of(summary.get("claims"))},
        noise={key: value for key, value in noise.items() if value is not None},
        margin=0.05 if margin is None or margin <= 0 else margin,
        level=0.97 if level is None else level,
    )


def _class_means(summary: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the classes of workloads that have a mean at a target."""
    for item in items_of(summary.get("suites")):
        if number_of(item.get("ratio")) is not None:
            yield item


def _targets(summary: Mapping[str, Any]) -> tuple[Target, ...]:
    found = []
    for item in items_of(summary.get("targets")):
        name, technology = clean(item.get("name")), clean(item.get("class"))
        found.append(
            Target(
                heading=heading_of(name, technology),
                technology=technology,
                status=clean(item.get("status")) or "unknown",
                raw=item,
            )
        )
    return tuple(found)


def bounds_of(ends: object) -> tuple[float, float] | None:
    """Return the ends of an interval of ratios, or None where they are none."""
    pair = [number_of(end) for end in ends] if isinstance(ends, list | tuple) else []
    low, high = pair if len(pair) == len(("low", "high")) else (None, None)
    return (low, high) if low is not None and high is not None and 0 < low <= high else None


def _cell(item: Mapping[str, Any]) -> Cell:
    workload = clean(item.get("workload"))
    ratio = number_of(item.get("ratio"))
    return Cell(
        target=clean(item.get("target")),
        workload=workload,
        group=clean(item.get("class")) or workload.partition(".")[0],
        value=amount_of(item.get("value")),
        reference=amount_of(item.get("reference")),
        ratio=ratio if ratio is not None and ratio > 0 else None,
        bounds=bounds_of(item.get("interval")),
        status=clean(item.get("standing")),
        raw=item,
    )


def _workloads(items: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> tuple[Workload, ...]:
    known: dict[str, Mapping[str, Any]] = {clean(item.get("name")): item for item in items}
    for cell in cells:
        known.setdefault(cell.workload, {"class": cell.group, **cell.raw})
    found = [
        Workload(
            name=name,
            group=clean(item.get("class")) or name.partition(".")[0],
            anchor=f"workload-{index}",
            summary=clean(item.get("summary")),
            operation=clean(item.get("operation")),
        )
        for index, (name, item) in enumerate(known.items(), start=1)
    ]
    return tuple(sorted(found, key=lambda one: classes.rank(one.group)))


def groups_of(run: Run) -> tuple[tuple[str, tuple[Workload, ...]], ...]:
    """Return the classes in order with their workloads; start-up, which stands apart, last."""
    names = dict.fromkeys(workload.group for workload in run.workloads)
    ordered = sorted(names, key=lambda name: name == START_CLASS)
    return tuple((name, tuple(w for w in run.workloads if w.group == name)) for name in ordered)
