"""The view of a run: each string that a report shows and each place that it draws, from a summary.

All rounding and wording happens here, so that the page, the terminal and the Markdown text say
the same. What a summary holds is not trusted: text is cleaned, a number that is none becomes a
dash, and an absent field never becomes a word of Python's.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any, Final

from isobench.model import ClaimStanding, Standing, Technology

TIMES: Final = "\N{MULTIPLICATION SIGN}"
DASH: Final = "\N{EN DASH}"
NOTHING: Final = "\N{EM DASH}"
SPACE: Final = "\N{NO-BREAK SPACE}"

_START_CLASS: Final = "startup"
_REFERENCE: Final = "native"
_CLIP: Final = 180
_FULL: Final = 4000
_BARELY_BELOW: Final = 0.5
_TECHNOLOGIES: Final = {
    Technology.NATIVE: "Native",
    Technology.VIRTUALIZATION: "Virtualization",
    Technology.CONTAINERIZATION: "Containerization",
    Technology.EMULATION: "Emulation",
    Technology.TRANSLATION: "Translation layer",
    Technology.SANDBOX: "Sandbox",
}
_CLASSES: Final = {
    "cpu": "CPU",
    "syscall": "System calls",
    "io": "I/O",
    _START_CLASS: "Start-up",
    "memory": "Memory",
    "net": "Network",
    "app": "Applications",
}
_CLASS_LEADS: Final = {
    "cpu": "Work inside the processor: no system calls while the clock runs.",
    "syscall": "Each operation crosses into the kernel, where filters and translators sit.",
    "io": "Files on the scratch file system of each target; which one that is stands under Parity.",
}


# What a report is made of.


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An outcome: a slug for shape and colour, a word, and an ASCII sign for narrow places."""

    kind: str
    word: str
    sign: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Text that may be long: what is shown, and the whole of it where that is more (else empty)."""

    shown: str
    full: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A labelled value; `source` says where it was read."""

    label: str
    value: Value
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """A warning above everything else."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the documents say in one place, what this run found, and whether the two agree."""

    says: str
    found: str
    agreement: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The performance of one technology in one class of workloads."""

    name: str
    mark: Mark
    text: str
    agreement: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A target without numbers, why, and what to type."""

    name: str
    status: str
    reason: Value
    hint: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One technology of the documents' table."""

    title: str
    origin: str
    """Where the documents say it: in their table or in prose."""
    kernel: Finding
    performance_says: str
    axes: tuple[Axis, ...]
    startup: str
    examples_says: str
    ran: tuple[Fact, ...]
    """The targets that ran, with their versions."""
    missing: tuple[Missing, ...]
    empty: str
    """Why the column holds no measurement; empty text where it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """A cell of the overview; `detail` is the whole of it in words."""

    ratio: str
    mark: Mark
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """One workload of the overview, a cell per target."""

    workload: str
    anchor: str
    summary: str
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixGroup:
    """The workloads of one class in the overview."""

    title: str
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A target at the head of a column or row."""

    name: str
    technology: str
    control: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Workloads by targets."""

    targets: tuple[Heading, ...]
    groups: tuple[MatrixGroup, ...]
    legend: tuple[Mark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled place on an axis, in percent of its width."""

    place: float
    label: str
    major: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A dot and its interval on a log axis, in percent of its width."""

    point: float
    low: float
    high: float
    blocks: str
    """An SVG path with one tick per block, in a box of 1000 by 10."""
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotRow:
    """One target at one workload."""

    target: Heading
    value: str
    ratio: str
    interval: str
    mark: Mark
    strip: Strip | None
    tails: str
    note: str
    doubts: str
    """How many doubts there are, in words; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotGroup:
    """One workload: a row per target; its noise floor on the axis, of no width when unknown."""

    anchor: str
    workload: str
    summary: str
    reference: str
    noise: str
    noise_low: float
    noise_high: float
    rows: tuple[PlotRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One class of workloads on one log axis; places in percent of its width."""

    anchor: str
    title: str
    lead: str
    ticks: tuple[Tick, ...]
    one: float
    margin_low: float
    margin_high: float
    groups: tuple[PlotGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCell:
    """A kind of start of a target; `place` in percent of the time axis, None without a number."""

    kind: str
    value: str
    ratio: str
    interval: str
    tails: str
    mark: Mark
    place: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRow:
    """The starts of one target."""

    target: Heading
    cells: tuple[StartCell, ...]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartKind:
    """A kind of start and what it spans."""

    name: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMeaning:
    """What a target's start-up figures span, in its own sentences."""

    target: str
    sentences: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """How long starting takes."""

    kinds: tuple[StartKind, ...]
    ticks: tuple[Tick, ...]
    rows: tuple[StartRow, ...]
    meanings: tuple[StartMeaning, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A promise of a target's name, held against what was seen."""

    key: str
    relation: str
    host: Value
    inside: Value
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The evidence of one target."""

    target: Heading
    version: Value
    status: str
    verdict: str
    mark: Mark
    promises: tuple[Kept, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differed between native and a target besides the isolation."""

    label: str
    native: Value
    target: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The differences of one target."""

    target: Heading
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """A sentence of the documents and how it stands."""

    id: str
    quote: str
    sentence: str
    mark: Mark
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapView:
    """What has no number, and why. The workloads of one cause are told together."""

    target: str
    workloads: str
    cause: str
    detail: Value
    hint: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtView:
    """A reason to trust numbers less, and where it applies."""

    text: Value
    advice: str
    where: str
    blocks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The noise floor of one workload."""

    workload: str
    floor: str
    over: bool
    """Whether it exceeds the margin, so that nothing can be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """The numbers that the account of the method names. The noise floors are empty when unknown."""

    blocks: str
    discarded: str
    seed: str
    stopped: str
    level: str
    margin: str
    margin_low: str
    margin_high: str
    quietest: str
    loudest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadView:
    """A program that ran, by hash."""

    program: str
    abi: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a report shows."""

    headline: str
    id: str
    run: tuple[Fact, ...]
    banners: tuple[Banner, ...]
    columns: tuple[Column, ...]
    matrix: Matrix
    panels: tuple[Panel, ...]
    startup: StartUp | None
    proofs: tuple[Proof, ...]
    parity: tuple[Parity, ...]
    claims: tuple[ClaimView, ...]
    untested: tuple[ClaimView, ...]
    claim_counts: str
    gaps: tuple[GapView, ...]
    doubts: tuple[DoubtView, ...]
    noise: tuple[Noise, ...]
    environment: tuple[Fact, ...]
    details: tuple[Fact, ...]
    """What else is known of the host."""
    method: Method
    payloads: tuple[PayloadView, ...]
    records: str
    """The file name of the raw records, safe as a relative link."""


_MARKS: Final = {
    mark.kind: mark
    for mark in (
        Mark(kind=Standing.NEAR_NATIVE, word="near-native", sign="="),
        Mark(kind=Standing.SLOWER, word="slower", sign=">"),
        Mark(kind=Standing.FASTER, word="faster", sign="<"),
        Mark(kind=Standing.INCONCLUSIVE, word="inconclusive", sign="?"),
        Mark(kind=Standing.UNPROVEN, word="unproven", sign="!"),
        Mark(kind="mixed", word="mixed", sign="~"),
        Mark(kind="gap", word="no number", sign="-"),
        Mark(kind="reference", word="reference", sign=""),
    )
}
_AGREEMENTS: Final = {
    ClaimStanding.SUPPORTED: Mark(kind="supported", word="agrees", sign="+"),
    ClaimStanding.REFUTED: Mark(kind="refuted", word="disagrees", sign="x"),
    ClaimStanding.INCONCLUSIVE: Mark(kind="undecided", word="cannot tell", sign="?"),
    ClaimStanding.UNTESTED: Mark(kind="untested", word="not tested", sign="-"),
}
_IN_PART: Final = Mark(kind="mixed", word="in part", sign="~")
_CLAIM_MARKS: Final = {
    standing: Mark(kind=mark.kind, word=standing.value, sign=mark.sign)
    for standing, mark in _AGREEMENTS.items()
}
_KEPT: Final = Mark(kind="supported", word="kept", sign="+")
_BROKEN: Final = Mark(kind="refuted", word="not kept", sign="x")


# From anything to text and numbers.


def clean(value: object) -> str:
    """Return a value as one line of text; control and direction characters are shown."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return _listed(f"{clean(key)} {clean(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return _listed(map(clean, value))
    text = str(value)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) == "Zs":
        return " "
    return letter.encode("unicode_escape").decode("ascii")


def _value(value: object, absent: str = NOTHING) -> Value:
    text = clean(value)
    if not text:
        return Value(shown=absent)
    if len(text) <= _CLIP:
        return Value(shown=text)
    return Value(shown=text[: _CLIP - 1] + "\N{HORIZONTAL ELLIPSIS}", full=text[:_FULL])


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _amount(value: object) -> float | None:
    """Return a number that is not negative: a time, a count, a share."""
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> Sequence[Mapping[str, Any]]:
    found = value if isinstance(value, list | tuple) else ()
    return [item for item in found if isinstance(item, Mapping)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _places(value: float, digits: int) -> int:
    """Return how many decimals show `digits` significant digits of a positive number."""
    rounded = float(f"{value:.{digits - 1}e}")
    return max(0, digits - 1 - math.floor(math.log10(rounded))) if rounded > 0 else 0


def _decimals(ratio: float, bounds: tuple[float, float] | None) -> int:
    """Return decimals for a ratio: three significant digits, fewer where the interval is wide.

    One more where the interval is so narrow that its ends would look the same.
    """
    # Just below 1 a third digit would claim ten times the resolution that it claims just above.
    most = _places(max(ratio, 1.0) if ratio > _BARELY_BELOW else ratio, 3)
    if bounds is None or bounds[0] == bounds[1]:
        return most
    half = (bounds[1] - bounds[0]) / 2
    # However wide the interval: "0x" and "1x" tell less than the two digits of 0.79 and 1.4.
    least = min(most, _places(ratio, 2))
    places = max(least, min(most, math.ceil(-math.log10(half / 3))))
    return places + (f"{bounds[0]:.{places}f}" == f"{bounds[1]:.{places}f}")


def ratio_text(ratio: float | None, bounds: tuple[float, float] | None = None) -> str:
    """Return a ratio as "1.01x" with the sign of multiplication, or a dash."""
    if ratio is None or ratio <= 0:
        return NOTHING
    return f"{ratio:.{_decimals(ratio, bounds)}f}{TIMES}"


def interval_text(ratio: float | None, bounds: tuple[float, float] | None) -> str:
    """Return an interval as "[0.99, 1.03]" with the decimals of its ratio, or nothing."""
    if ratio is None or ratio <= 0 or bounds is None:
        return ""
    places = _decimals(ratio, bounds)
    return f"[{bounds[0]:.{places}f}, {bounds[1]:.{places}f}]"


def seconds_text(seconds: float | None, digits: int = 3) -> str:
    """Return a duration in ns, us, ms or s with so many significant digits, or a dash."""
    if seconds is None or seconds < 0:
        return NOTHING
    if seconds == 0:
        return f"0{SPACE}s"
    rounded = float(f"{seconds:.{digits - 1}e}")
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6), ("ns", 1e-9)):
        if rounded >= size * (1 - 1e-12) or unit == "ns":
            break
    number = rounded / size
    return f"{number:.{_places(number, digits)}f}{SPACE}{unit}"


def percent_text(share: float | None) -> str:
    """Return a share as a percentage with two significant digits, or a dash."""
    if share is None:
        return NOTHING
    number = round(100 * share, 9)
    places = 0 if number.is_integer() else min(2, _places(abs(number), 2))
    return f"{number:.{places}f}{SPACE}%"


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


# The summary, read once.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    heading: Heading
    technology: str
    status: str
    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.heading.name

    @property
    def measured(self) -> bool:
        return self.status == "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workload:
    name: str
    group: str
    anchor: str
    summary: str
    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    target: str
    workload: str
    group: str
    value: float | None
    reference: float | None
    ratio: float | None
    bounds: tuple[float, float] | None
    standing: str
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
        return _MARKS.get(self.standing, _MARKS[Standing.INCONCLUSIVE])

    @property
    def ratio_text(self) -> str:
        return ratio_text(self.ratio, self.bounds)

    @property
    def interval_text(self) -> str:
        return interval_text(self.ratio, self.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    raw: Mapping[str, Any]
    targets: tuple[_Target, ...]
    workloads: tuple[_Workload, ...]
    cells: Mapping[tuple[str, str], _Cell]
    gaps: Sequence[Mapping[str, Any]]
    claims: Mapping[str, Mapping[str, Any]]
    noise: Mapping[str, float]
    margin: float
    level: float

    def heading(self, name: str) -> Heading:
        for target in self.targets:
            if target.name == name:
                return target.heading
        return _heading(name, "")

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
        found = [*known, *(_heading(name, "") for name in strangers)]
        found = [heading for heading in found if heading.name != _REFERENCE]
        return tuple(sorted(found, key=lambda heading: heading.control))

    def reference(self, workload: str) -> float | None:
        """Return native's seconds per operation: the median over the pairs with native."""
        found = [
            cell.reference
            for cell in self.cells.values()
            if cell.workload == workload and cell.reference is not None
        ]
        return median(found) if found else None


def _heading(name: str, technology: str) -> Heading:
    control = name.startswith(f"{_REFERENCE}#")
    title = "A/A control" if control else _technology(technology)
    return Heading(name=name, technology=title, control=control)


def _technology(name: str) -> str:
    return {key.value: title for key, title in _TECHNOLOGIES.items()}.get(name, name)


def _class_title(group: str) -> str:
    return _CLASSES.get(group, group or "Other")


def _read(summary: Mapping[str, Any]) -> _Run:
    run = _mapping(summary.get("run"))
    cells = [_cell(item) for item in _items(summary.get("cells"))]
    gaps = _items(summary.get("gaps"))
    noise = {clean(key): _amount(value) for key, value in _mapping(run.get("noise")).items()}
    margin, level = _number(run.get("margin")), _number(run.get("level"))
    if level is None:
        level = next((_number(cell.raw.get("level")) for cell in cells), None)
    return _Run(
        raw=run,
        targets=_targets(summary),
        workloads=_workloads(_items(summary.get("workloads")), cells),
        cells={(cell.target, cell.workload): cell for cell in cells},
        gaps=gaps,
        claims={clean(item.get("id")): item for item in _items(summary.get("claims"))},
        noise={key: value for key, value in noise.items() if value is not None},
        margin=0.05 if margin is None or margin <= 0 else margin,
        level=0.97 if level is None else level,
    )


def _targets(summary: Mapping[str, Any]) -> tuple[_Target, ...]:
    found = []
    for item in _items(summary.get("targets")):
        name, technology = clean(item.get("name")), clean(item.get("class"))
        found.append(
            _Target(
                heading=_heading(name, technology),
                technology=technology,
                status=clean(item.get("status")) or "unknown",
                raw=item,
            )
        )
    return tuple(found)


def _cell(item: Mapping[str, Any]) -> _Cell:
    workload = clean(item.get("workload"))
    ends = item.get("interval")
    pair = [_number(end) for end in ends] if isinstance(ends, list | tuple) else []
    low, high = pair if len(pair) == len(("low", "high")) else (None, None)
    ratio = _number(item.get("ratio"))
    return _Cell(
        target=clean(item.get("target")),
        workload=workload,
        group=clean(item.get("class")) or workload.partition(".")[0],
        value=_amount(item.get("value")),
        reference=_amount(item.get("reference")),
        ratio=ratio if ratio is not None and ratio > 0 else None,
        bounds=(low, high) if low is not None and high is not None and 0 < low <= high else None,
        standing=clean(item.get("standing")),
        raw=item,
    )


def _workloads(items: Sequence[Mapping[str, Any]], cells: Sequence[_Cell]) -> tuple[_Workload, ...]:
    known: dict[str, Mapping[str, Any]] = {clean(item.get("name")): item for item in items}
    for cell in cells:
        known.setdefault(cell.workload, {"class": cell.group, **cell.raw})
    found = [
        _Workload(
            name=name,
            group=clean(item.get("class")) or name.partition(".")[0],
            anchor=f"workload-{index}",
            summary=clean(item.get("summary")),
            operation=clean(item.get("operation")),
        )
        for index, (name, item) in enumerate(known.items(), start=1)
    ]
    order = list(_CLASSES)
    return tuple(
        sorted(found, key=lambda one: order.index(one.group) if one.group in order else len(order))
    )


def _groups(run: _Run) -> tuple[tuple[str, tuple[_Workload, ...]], ...]:
    """Return the classes in order with their workloads; start-up, which stands apart, last."""
    names = dict.fromkeys(workload.group for workload in run.workloads)
    ordered = sorted(names, key=lambda name: name == _START_CLASS)
    return tuple((name, tuple(w for w in run.workloads if w.group == name)) for name in ordered)


# The documents' table.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """What the documents say of one technology, and the claims that test it."""

    technology: Technology
    origin: str
    kernel: str
    performance: str
    examples: str
    kernel_claim: str = ""
    performance_claim: str = ""
    shares_kernel: bool
    expected: Standing


_DOCUMENTS: Final = (
    _Document(
        technology=Technology.VIRTUALIZATION,
        origin="the documents' table",
        kernel="Guest OS",
        performance="Near-native",
        examples="VMware, Hyper-V",
        kernel_claim="kernel-vm",
        performance_claim="perf-vm",
        shares_kernel=False,
        expected=Standing.NEAR_NATIVE,
    ),
    _Document(
        technology=Technology.CONTAINERIZATION,
        origin="the documents' table",
        kernel="Shared Host OS",
        performance="Near-native",
        examples="Docker, Kubernetes",
        kernel_claim="kernel-container",
        performance_claim="perf-container",
        shares_kernel=True,
        expected=Standing.NEAR_NATIVE,
    ),
    _Document(
        technology=Technology.EMULATION,
        origin="the documents' table",
        kernel="Emulated",
        performance="Slower",
        examples="QEMU",
        kernel_claim="kernel-emulation",
        performance_claim="perf-emulation",
        shares_kernel=False,
        expected=Standing.SLOWER,
    ),
    _Document(
        technology=Technology.TRANSLATION,
        origin="the documents' table",
        kernel="Host OS",
        performance="Near-native",
        examples="WINE",
        kernel_claim="kernel-translation",
        performance_claim="perf-translation",
        shares_kernel=True,
        expected=Standing.NEAR_NATIVE,
    ),
    _Document(
        technology=Technology.SANDBOX,
        origin="the documents' prose",
        kernel="It shares the host OS and kernel",
        performance="minimal overhead",
        examples="Sandboxie-Plus",
        kernel_claim="sandbox-kernel",
        performance_claim="overhead-sandbox",
        shares_kernel=True,
        expected=Standing.NEAR_NATIVE,
    ),
)


def _columns(run: _Run) -> tuple[Column, ...]:
    return tuple(_column(run, document) for document in _DOCUMENTS)


def _column(run: _Run, document: _Document) -> Column:
    targets = [target for target in run.targets if target.technology == document.technology]
    ran = [target for target in targets if target.measured]
    missing = tuple(_missing(run, target) for target in targets if not target.measured)
    if ran:
        empty = ""
    elif missing:
        empty = f"Nothing measured: {_listed(one.name for one in missing)} could not run here."
    else:
        empty = "Nothing measured: this run had no target of this kind."
    return Column(
        title=_TECHNOLOGIES[document.technology],
        origin=document.origin,
        kernel=_kernel(run, document, ran),
        performance_says=document.performance,
        axes=_axes(run, document, ran),
        startup=_start_line(run, ran),
        examples_says=document.examples,
        ran=tuple(Fact(label=target.name, value=_version(target)) for target in ran),
        missing=missing,
        empty=empty,
    )


def _version(target: _Target) -> Value:
    return _value(target.raw.get("version"), "version not known")


def _missing(run: _Run, target: _Target) -> Missing:
    gap = run.gap(target.name, "") or next(
        (gap for gap in run.gaps if clean(gap.get("target")) == target.name), {}
    )
    return Missing(
        name=target.name,
        status=target.status,
        reason=_value(target.raw.get("reason") or gap.get("detail"), "no reason was recorded"),
        hint=_value(target.raw.get("hint") or gap.get("hint"), ""),
    )


def _claim_standing(claim: Mapping[str, Any] | None, axis: str = "") -> ClaimStanding | None:
    """Return what a claim says (of one axis), or None where it says nothing that was tested."""
    if claim is None:
        return None
    spelled = _mapping(claim.get("axes")).get(axis) if axis else claim.get("standing")
    tested = {standing.value: standing for standing in ClaimStanding}
    found = tested.get(clean(spelled))
    return None if found is ClaimStanding.UNTESTED else found


def _kernel(run: _Run, document: _Document, ran: Sequence[_Target]) -> Finding:
    seen: dict[str, list[_Target]] = {"same": [], "unlike": [], "": []}
    for target in ran:
        relation = clean(_mapping(target.raw.get("evidence")).get("kernel.boot_id"))
        seen[relation if relation in seen else ""].append(target)
    parts = []
    if seen["same"]:
        parts.append(f"The host's kernel, shared (same boot_id in {_names(seen['same'])})")
    if seen["unlike"]:
        parts.append(f"A kernel of its own (other boot_id in {_names(seen['unlike'])})")
    if seen[""]:
        parts.append(f"Could not be read in {_names(seen[''])}")
    machines = sorted({machine for target in ran if (machine := _machine(target))})
    if machines and document.technology is Technology.EMULATION:
        parts.append(f"Processor shown inside: {_listed(machines)}")
    return Finding(
        says=document.kernel,
        found=" ".join(f"{part}." for part in parts),
        agreement=_kernel_agreement(run, document, {key for key, names in seen.items() if names}),
    )


def _kernel_agreement(run: _Run, document: _Document, seen: set[str]) -> Mark:
    """Return whether the boot_id relations that were seen are what the documents say."""
    if not seen:
        return _AGREEMENTS[ClaimStanding.UNTESTED]
    if document.technology is Technology.EMULATION and "same" in seen:
        # User mode emulates the processor and leaves the kernel the host's: no plain yes or no.
        return _IN_PART
    expected, other = ("same", "unlike") if document.shares_kernel else ("unlike", "same")
    standing = _claim_standing(run.claims.get(document.kernel_claim))
    if standing is None and other in seen:
        standing = ClaimStanding.REFUTED
    elif standing is None and seen == {expected}:
        standing = ClaimStanding.SUPPORTED
    return _AGREEMENTS[standing or ClaimStanding.INCONCLUSIVE]


def _names(targets: Iterable[_Target]) -> str:
    return _listed(target.name for target in targets)


def _machine(target: _Target) -> str:
    for promise in _items(target.raw.get("promises")):
        if promise.get("key") == "machine":
            return clean(promise.get("inside"))
    return ""


def _axes(run: _Run, document: _Document, ran: Sequence[_Target]) -> tuple[Axis, ...]:
    names = {target.name for target in ran}
    axes = []
    for group, _ in _groups(run):
        cells = [c for c in run.cells.values() if c.group == group and c.target in names]
        if group == _START_CLASS or not cells:
            continue
        kinds = Counter(cell.mark.kind for cell in cells)
        standing = _claim_standing(run.claims.get(document.performance_claim), group)
        axes.append(
            Axis(
                name=_class_title(group),
                mark=_MARKS[_together(kinds)],
                text=_spread(cells, kinds),
                agreement=_AGREEMENTS[standing or _agreement(kinds, document.expected)],
            )
        )
    return tuple(axes)


def _together(kinds: Mapping[str, int]) -> str:
    """Return one word for several cells: their standing if shared, mixed if verdicts differ."""
    decided = set(kinds) & {Standing.NEAR_NATIVE, Standing.SLOWER, Standing.FASTER}
    if len(kinds) == 1:
        return next(iter(kinds))
    return "mixed" if len(decided) > 1 else Standing.INCONCLUSIVE


def _agreement(kinds: Mapping[str, int], expected: Standing) -> ClaimStanding:
    """Hold a sentence against every cell: one verdict refutes it, one open cell leaves it open."""
    if set(kinds) & ({Standing.NEAR_NATIVE, Standing.SLOWER, Standing.FASTER} - {expected}):
        return ClaimStanding.REFUTED
    return ClaimStanding.SUPPORTED if set(kinds) == {expected} else ClaimStanding.INCONCLUSIVE


def _spread(cells: Sequence[_Cell], kinds: Mapping[str, int]) -> str:
    ratios = sorted(
        (cell.ratio, _decimals(cell.ratio, cell.bounds)) for cell in cells if cell.ratio
    )
    if not ratios:
        return "no ratio"
    low, high = (f"{ratio:.{min(2, places)}f}" for ratio, places in (ratios[0], ratios[-1]))
    text = f"{high}{TIMES}" if low == high else f"{low}{DASH}{high}{TIMES}"
    if len(kinds) == 1:
        return text
    return f"{text}: {_listed(f'{kinds[kind]} {kind}' for kind in _MARKS if kind in kinds)}"


def _start_line(run: _Run, ran: Sequence[_Target]) -> str:
    names = {target.name for target in ran}
    parts = []
    for workload in run.workloads:
        cells = [cell for key, cell in run.cells.items() if key[1] == workload.name]
        found = sorted(
            (cell.value, seconds_text(cell.value, min(2, cell.digits)))
            for cell in cells
            if workload.group == _START_CLASS and cell.target in names and cell.value is not None
        )
        if found:
            low, high = found[0][1], found[-1][1]
            spread = high if low == high else f"{low} to {high}"
            parts.append(f"{_kind(workload.name)} {spread}")
    return "; ".join(parts)


def _kind(workload: str) -> str:
    return workload.partition(".")[2] or workload


# Ratios.


def _matrix(run: _Run) -> Matrix:
    targets = run.columns()
    groups = []
    for group, workloads in _groups(run):
        rows = tuple(
            MatrixRow(
                workload=workload.name,
                anchor="start-up" if group == _START_CLASS else workload.anchor,
                summary=workload.summary,
                cells=tuple(_matrix_cell(run, target.name, workload.name) for target in targets),
            )
            for workload in workloads
        )
        groups.append(MatrixGroup(title=_class_title(group), rows=rows))
    used = {cell.mark.kind for group in groups for row in group.rows for cell in row.cells}
    legend = tuple(mark for kind, mark in _MARKS.items() if kind in used)
    return Matrix(targets=targets, groups=tuple(groups), legend=legend)


def _matrix_cell(run: _Run, target: str, workload: str) -> MatrixCell:
    cell = run.cells.get((target, workload))
    if cell is None:
        return MatrixCell(ratio=NOTHING, mark=_gap_mark(run, target, workload), detail="")
    detail = f"{target}, {workload}: {cell.ratio_text} {cell.interval_text}".strip()
    return MatrixCell(ratio=cell.ratio_text, mark=cell.mark, detail=detail)


def _gap_mark(run: _Run, target: str, workload: str) -> Mark:
    gap = run.gap(target, workload)
    cause = clean(gap.get("cause")) if gap else ""
    return Mark(kind="gap", word=cause or "not measured", sign="-")


@dataclass(frozen=True, slots=True)
class _Scale:
    """A log axis: positive numbers to percent of its width."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Return the place of a value, kept on the axis."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


def _scale(values: Iterable[float], low: float, high: float) -> _Scale:
    """Return the axis that shows all values and at least what lies from low to high."""
    found = [low, high, *values]
    pad = (max(found) / min(found)) ** 0.05
    return _Scale(min(found) / pad, max(found) * pad)


_FINE: Final[tuple[tuple[float, ...], ...]] = (
    tuple(step / 20 for step in range(8, 61)),
    tuple(step / 10 for step in range(4, 31)),
    (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5, 3),
    (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 2.5, 3),
    (0.4, 0.6, 0.8, 1, 1.2, 1.5, 2, 3),
)
"""Round values about 1, finest first: for an axis that lies within them."""
_COARSE: Final[tuple[tuple[float, ...], ...]] = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Round values of every decade, finest first."""
_MOST_TICKS: Final = 8
_LEAST_GAP: Final = 8.0


def _steps(scale: _Scale) -> Iterator[Iterable[float]]:
    """Yield sets of round values for an axis, finest first."""
    if _FINE[0][0] <= scale.low and scale.high <= _FINE[0][-1]:
        yield from _FINE
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for shares in _COARSE:
        yield [share * 10.0**decade for decade in range(first, last + 1) for share in shares]
    yield [10.0**decade for decade in range(first, last + 1) if decade % 3 == 0]


def _ticks(scale: _Scale, label: Callable[[float], str]) -> tuple[Tick, ...]:
    """Return round values on the axis: of the finest steps that leave the labels room."""
    ticks: tuple[Tick, ...] = ()
    for values in _steps(scale):
        ticks = tuple(
            Tick(place=scale(value), label=label(value), major=math.isclose(value, 1))
            for value in sorted(values)
            if scale.low <= value <= scale.high
        )
        gaps = [after.place - before.place for before, after in pairwise(ticks)]
        if len(ticks) <= _MOST_TICKS and min(gaps, default=100) >= _LEAST_GAP:
            break
    return ticks


def _panels(run: _Run) -> tuple[Panel, ...]:
    panels: list[Panel] = []
    for group, workloads in _groups(run):
        cells = [cell for cell in run.cells.values() if cell.group == group]
        if group == _START_CLASS or not cells:
            continue
        drawn = [v for c in cells for v in (c.ratio, *(c.bounds or ())) if v is not None]
        scale = _scale(drawn, 1 / (1 + 2 * run.margin), 1 + 2 * run.margin)
        panels.append(
            Panel(
                anchor=f"class-{len(panels) + 1}",
                title=_class_title(group),
                lead=_CLASS_LEADS.get(group, ""),
                ticks=_ticks(scale, lambda value: f"{value:g}{TIMES}"),
                one=scale(1),
                margin_low=scale(1 / (1 + run.margin)),
                margin_high=scale(1 + run.margin),
                groups=tuple(_plot_group(run, workload, scale) for workload in workloads),
            )
        )
    return tuple(panels)


def _plot_group(run: _Run, workload: _Workload, scale: _Scale) -> PlotGroup:
    floor = run.noise.get(workload.name)
    rows = tuple(
        _plot_row(run, heading, workload, scale)
        for heading in run.columns()
        if (heading.name, workload.name) in run.cells or run.gap(heading.name, workload.name)
    )
    reference = seconds_text(run.reference(workload.name))
    per = f" for {workload.operation}" if workload.operation else ""
    return PlotGroup(
        anchor=workload.anchor,
        workload=workload.name,
        summary=workload.summary,
        reference=f"native: {reference}{per}",
        noise=f"noise floor {percent_text(floor)}"
        if floor is not None
        else "noise floor not known",
        noise_low=scale(1 / (1 + (floor or 0))),
        noise_high=scale(1 + (floor or 0)),
        rows=rows,
    )


def _plot_row(run: _Run, heading: Heading, workload: _Workload, scale: _Scale) -> PlotRow:
    cell = run.cells.get((heading.name, workload.name))
    if cell is None:
        gap = run.gap(heading.name, workload.name) or {}
        return PlotRow(
            target=heading,
            value="",
            ratio=NOTHING,
            interval="",
            mark=_gap_mark(run, heading.name, workload.name),
            strip=None,
            tails="",
            note=_value(gap.get("detail"), "").shown,
            doubts="",
        )
    doubts = cell.raw.get("doubts")
    count = len(doubts) if isinstance(doubts, list | tuple) else 0
    return PlotRow(
        target=heading,
        value=seconds_text(cell.value, cell.digits),
        ratio=cell.ratio_text,
        interval=cell.interval_text,
        mark=cell.mark,
        strip=_strip(cell, scale),
        tails=_tails(cell),
        note=_needed(cell),
        doubts=_count(count, "doubt") if count else "",
    )


def _needed(cell: _Cell) -> str:
    needed = _number(cell.raw.get("blocks_needed"))
    run = _number(cell.raw.get("blocks")) or 0
    if needed is None or needed <= run or cell.standing != Standing.INCONCLUSIVE:
        return ""
    return f"about {needed:.0f} blocks would tell"


def _tails(cell: _Cell) -> str:
    """Return the slow end: tail quantiles where the sample allows them, and the largest value."""
    parts = []
    for name in ("p95", "p99"):
        if name in cell.raw:
            found = _amount(cell.raw[name])
            parts.append(f"{name} {'n too small' if found is None else seconds_text(found)}")
    largest = _amount(cell.raw.get("maximum"))
    if largest is not None:
        parts.append(f"largest {seconds_text(largest)}")
    outlying = _amount(cell.raw.get("outlying_blocks"))
    if outlying:
        parts.append(f"{_count(int(outlying), 'outlying block')}")
    return "; ".join(parts)


def _strip(cell: _Cell, scale: _Scale) -> Strip | None:
    if cell.ratio is None:
        return None
    low, high = cell.bounds or (cell.ratio, cell.ratio)
    logs = cell.raw.get("log_ratios")
    blocks = [_number(one) for one in logs] if isinstance(logs, list | tuple) else []
    # A block off the axis would be drawn at its edge, as if it had been measured there.
    inside = [b for b in blocks if b is not None and scale.low <= _exp(b) <= scale.high]
    words = f"{cell.target} at {cell.workload}: {cell.ratio_text}, interval {cell.interval_text}"
    return Strip(
        point=scale(cell.ratio),
        low=scale(low),
        high=scale(high),
        blocks="".join(f"M{10 * scale(_exp(block)):.0f} 0v10" for block in inside),
        label=f"{words}, {cell.mark.word}",
    )


def _exp(value: float) -> float:
    """Return e to the power of a log-ratio, held where a float can hold it."""
    return math.exp(max(-100.0, min(100.0, value)))


# Start-up.


def _startup(run: _Run) -> StartUp | None:
    workloads = [workload for workload in run.workloads if workload.group == _START_CLASS]
    cells = [cell for cell in run.cells.values() if cell.group == _START_CLASS]
    if not cells:
        return None
    times = [time for cell in cells for time in (cell.value, cell.reference) if time]
    scale = _scale(times, 0.001, 0.1)
    started = {cell.target for cell in cells}
    native = _heading(_REFERENCE, Technology.NATIVE)
    rows = [_start_row(run, native, workloads, scale)]
    rows += [_start_row(run, one, workloads, scale) for one in run.columns() if one.name in started]
    return StartUp(
        kinds=tuple(StartKind(name=_kind(one.name), summary=one.summary) for one in workloads),
        ticks=_ticks(scale, lambda value: seconds_text(value, 1)),
        rows=tuple(rows),
        meanings=tuple(_meanings(run)),
    )


def _meanings(run: _Run) -> Iterable[StartMeaning]:
    for target in run.targets:
        sentences = tuple(
            Fact(label=clean(kind), value=_value(sentence))
            for kind, sentence in _mapping(target.raw.get("starts")).items()
        )
        if sentences and not target.heading.control:
            yield StartMeaning(target=target.name, sentences=sentences)


def _start_row(
    run: _Run, heading: Heading, workloads: Sequence[_Workload], scale: _Scale
) -> StartRow:
    cells = tuple(_start_cell(run, heading, workload, scale) for workload in workloads)
    words = _listed(f"{cell.kind} {cell.value}" for cell in cells if cell.place is not None)
    return StartRow(target=heading, cells=cells, label=f"{heading.name}: {words}")


def _start_cell(run: _Run, heading: Heading, workload: _Workload, scale: _Scale) -> StartCell:
    cell = run.cells.get((heading.name, workload.name))
    kind = _kind(workload.name)
    if cell is not None:
        return StartCell(
            kind=kind,
            value=seconds_text(cell.value, cell.digits),
            ratio=cell.ratio_text,
            interval=cell.interval_text,
            tails=_tails(cell),
            mark=cell.mark,
            place=scale(cell.value) if cell.value else None,
        )
    native = run.reference(workload.name) if heading.name == _REFERENCE else None
    mark = _MARKS["reference"] if native else _gap_mark(run, heading.name, workload.name)
    return StartCell(
        kind=kind,
        value=seconds_text(native),
        ratio="",
        interval="",
        tails="",
        mark=mark,
        place=scale(native) if native else None,
    )


# Evidence, parity, claims.


def _proofs(run: _Run) -> Iterable[Proof]:
    for target in run.targets:
        if target.heading.control:
            continue
        promises = tuple(_kept(promise) for promise in _items(target.raw.get("promises")))
        kept = sum(promise.mark is _KEPT for promise in promises)
        if promises:
            verdict = f"{kept} of {_count(len(promises), 'promise')} kept"
        elif target.measured:
            verdict = "promises nothing"
        else:
            verdict = target.status
        whole = target.measured and kept == len(promises)
        yield Proof(
            target=target.heading,
            version=_version(target) if target.measured else _missing(run, target).reason,
            status=target.status,
            verdict=verdict,
            mark=_KEPT if whole else _BROKEN if target.measured or promises else _MARKS["gap"],
            promises=promises,
            facts=tuple(
                Fact(
                    label=clean(fact.get("key")),
                    value=_value(fact.get("value"), "could not be read"),
                    source=clean(fact.get("source")),
                )
                for fact in _items(target.raw.get("facts"))
            ),
        )


def _kept(promise: Mapping[str, Any]) -> Kept:
    spelled = clean(promise.get("relation"))
    wanted = clean(promise.get("expected"))
    words = {"same": "as on the host", "unlike": "unlike the host", "equals": f"is {wanted}"}
    return Kept(
        key=clean(promise.get("key")),
        relation=words.get(spelled, spelled),
        host=_value(promise.get("host"), "could not be read"),
        inside=_value(promise.get("inside"), "could not be read"),
        mark=_KEPT if promise.get("kept") is True else _BROKEN,
    )


def _parity(run: _Run) -> Iterable[Parity]:
    for target in run.targets:
        if not target.measured or target.heading.control or target.name == _REFERENCE:
            continue
        differences = tuple(
            Difference(
                label=clean(item.get("label")),
                native=_value(item.get("native"), "not known"),
                target=_value(item.get("target"), "not known"),
            )
            for item in _items(target.raw.get("parity"))
        )
        yield Parity(target=target.heading, differences=differences)


_CLAIM_ORDER: Final = (
    ClaimStanding.REFUTED,
    ClaimStanding.SUPPORTED,
    ClaimStanding.INCONCLUSIVE,
    ClaimStanding.UNTESTED,
)


def _claims(run: _Run) -> tuple[ClaimView, ...]:
    """Return the claims, contradicted ones first: they are what a reader cannot get elsewhere."""
    found = [_claim(item) for item in run.claims.values()]
    order = {_CLAIM_MARKS[standing].word: place for place, standing in enumerate(_CLAIM_ORDER)}
    return tuple(sorted(found, key=lambda claim: order[claim.mark.word]))


def _claim_mark(spelled: object) -> Mark:
    known = {standing.value: mark for standing, mark in _CLAIM_MARKS.items()}
    return known.get(clean(spelled), _CLAIM_MARKS[ClaimStanding.INCONCLUSIVE])


def _claim(item: Mapping[str, Any]) -> ClaimView:
    axes = tuple(
        Axis(
            name=_class_title(clean(name)),
            mark=_claim_mark(standing),
            text="",
            agreement=_claim_mark(standing),
        )
        for name, standing in _mapping(item.get("axes")).items()
    )
    return ClaimView(
        id=clean(item.get("id")),
        quote=clean(item.get("quote")),
        sentence=clean(item.get("sentence")),
        mark=_claim_mark(item.get("standing")),
        axes=axes if len(axes) > 1 else (),
    )


def _claim_counts(claims: Iterable[ClaimView]) -> str:
    counts = Counter(claim.mark.word for claim in claims)
    return _listed(f"{counts[word]} {word}" for word in _CLAIM_ORDER if counts[word])


# Gaps and doubts.


def _gaps(run: _Run) -> tuple[GapView, ...]:
    together: dict[tuple[str, str, str, str], list[str]] = {}
    for gap in run.gaps:
        key = tuple(clean(gap.get(name)) for name in ("target", "cause", "detail", "hint"))
        workloads = together.setdefault((key[0], key[1], key[2], key[3]), [])
        workload = clean(gap.get("workload"))
        if workload and workload not in workloads:
            workloads.append(workload)
    for target in run.targets:
        if not target.measured and not any(key[0] == target.name for key in together):
            missing = _missing(run, target)
            together[target.name, target.status, missing.reason.shown, missing.hint.shown] = []
    every = len(run.workloads)
    return tuple(
        GapView(
            target=target,
            workloads=_listed(names) if names and len(names) < every else "every workload",
            cause=cause or "unknown",
            detail=_value(detail, "no detail was recorded"),
            hint=_value(hint, ""),
        )
        for (target, cause, detail, hint), names in together.items()
    )


def _doubts(run: _Run) -> tuple[DoubtView, ...]:
    found = [
        DoubtView(
            text=_value(item.get("detail") or item.get("code")),
            advice=clean(item.get("advice")),
            where="the whole run",
            blocks=item.get("blocks") is True,
        )
        for item in _items(run.raw.get("doubts"))
    ]
    places: dict[str, dict[str, list[str]]] = {}
    for cell in run.cells.values():
        doubts = cell.raw.get("doubts")
        for doubt in doubts if isinstance(doubts, list | tuple) else ():
            place = places.setdefault(clean(doubt), {}).setdefault(cell.target, [])
            place.append(cell.workload)
    for text, cells in places.items():
        where = "; ".join(f"{target} at {_listed(names)}" for target, names in cells.items())
        found.append(DoubtView(text=_value(text), advice="", where=where, blocks=False))
    return tuple(found)


# The run itself.

_STOPPED: Final = {
    "budget": "the time budget was spent",
    "precision": "every interval was narrow enough",
    "blocks": "all planned blocks had run",
    "interrupted": "it was interrupted",
}
_LABELS: Final = {
    "cpu": "Processor",
    "cpus": "CPUs usable",
    "memory_bytes": "Memory",
    "kernel": "Kernel",
    "os": "Operating system",
    "virtualization": "Itself virtualized by",
    "clock_source": "Clock source",
    "filesystem": "File system",
    "load": "Load when it began",
}


def _when(run: _Run) -> str:
    begun, ended = _moment(run.raw.get("started")), _moment(run.raw.get("finished"))
    if begun is None:
        return clean(run.raw.get("started")) or "not recorded"
    text = f"{begun.day} {begun:%B %Y, %H:%M}"
    if ended is None:
        return f"{text} UTC, not finished"
    pattern = "%H:%M" if begun.date() == ended.date() else "%d %B %Y, %H:%M"
    return f"{text} to {ended.strftime(pattern)} UTC"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{SPACE}min {rest}{SPACE}s" if minutes else f"{rest}{SPACE}s"


def _integer(value: object) -> str:
    number = _number(value)
    return "an unknown number of" if number is None else f"{number:.0f}"


def _blocks(run: _Run) -> str:
    blocks, planned = _number(run.raw.get("blocks")), _number(run.raw.get("blocks_planned"))
    if blocks is None:
        return "not recorded"
    text = f"{blocks:.0f}" if planned is None else f"{blocks:.0f} (at most {planned:.0f})"
    invalid = _number(run.raw.get("blocks_invalid"))
    return f"{text}, {invalid:.0f} more discarded as disturbed" if invalid else text


def _budget(run: _Run) -> str:
    budget = _number(run.raw.get("budget_seconds"))
    elapsed = _span(_number(run.raw.get("elapsed_seconds")))
    return f"{elapsed} used, no limit set" if budget is None else f"{elapsed} of {_span(budget)}"


def _run_line(run: _Run) -> tuple[Fact, ...]:
    pairs = (
        ("Machine", run.raw.get("machine") or "not recorded"),
        ("Measured", _when(run)),
        ("Blocks", _blocks(run)),
        ("Time", _budget(run)),
        ("Seed", clean(run.raw.get("seed")) or "not recorded"),
        ("Run", clean(run.raw.get("id")) or "not recorded"),
    )
    return tuple(Fact(label=label, value=_value(value)) for label, value in pairs)


def _banners(run: _Run) -> Iterable[Banner]:
    if run.raw.get("quick") is True:
        text = (
            "Too few blocks to judge by. Ratios are shown as a first look; no cell has a verdict."
        )
        yield Banner(kind="quick", title="Quick: no verdicts", text=text)
    if run.raw.get("interrupted") is True:
        text = "What was measured until then is valid; cells may be missing, intervals wide."
        yield Banner(kind="interrupted", title="Interrupted: partial", text=text)
    elif run.raw.get("complete") is False:
        text = "The plan was not carried out to its end; cells may be missing."
        yield Banner(kind="interrupted", title="Incomplete", text=text)
    if not run.cells:
        text = "No cell holds a number. Why, and what to do, stands under Gaps and doubts."
        yield Banner(kind="empty", title="Nothing was measured", text=text)


def _environment(run: _Run) -> tuple[Fact, ...]:
    facts = [
        Fact(label=_LABELS.get(key, clean(key).replace("_", " ").capitalize()), value=value)
        for key, value in _host_values(run)
        if "." not in key
    ]
    extra = (
        ("Compiler of the payloads", run.raw.get("compiler")),
        ("Compiler flags", run.raw.get("flags")),
        ("isobench", run.raw.get("tool_version")),
        ("Command", _command(run.raw.get("argv"))),
    )
    facts += [Fact(label=label, value=_value(value)) for label, value in extra if value]
    return tuple(facts)


def _command(argv: object) -> str:
    return " ".join(["isobench", *map(clean, argv)]) if isinstance(argv, list | tuple) else ""


def _details(run: _Run) -> tuple[Fact, ...]:
    """Return the facts that come in families ("mitigation.spectre_v2"), to be folded away."""
    return tuple(Fact(label=key, value=value) for key, value in _host_values(run) if "." in key)


def _host_values(run: _Run) -> Iterator[tuple[str, Value]]:
    for key, value in _mapping(run.raw.get("host")).items():
        yield clean(key), _host(clean(key), value)


def _host(key: str, value: object) -> Value:
    number = _number(value)
    if number is None:
        return _value(value, "not known")
    if key.endswith("_bytes"):
        return Value(shown=f"{number / 2**30:.3g}{SPACE}GiB")
    return Value(shown=f"{number:.0f}" if number.is_integer() else f"{number:.3g}")


def _noise(run: _Run) -> tuple[Noise, ...]:
    return tuple(
        Noise(workload=name, floor=percent_text(floor), over=floor > run.margin)
        for name, floor in run.noise.items()
    )


def _method(run: _Run) -> Method:
    floors = sorted(run.noise.values())
    return Method(
        blocks=_integer(run.raw.get("blocks")),
        discarded=_integer(run.raw.get("blocks_invalid")),
        seed=clean(run.raw.get("seed")) or "not recorded",
        stopped=_STOPPED.get(clean(run.raw.get("stopped")), "not recorded"),
        level=percent_text(run.level),
        margin=percent_text(run.margin),
        margin_low=ratio_text(1 / (1 + run.margin)),
        margin_high=ratio_text(1 + run.margin),
        quietest=percent_text(floors[0]) if floors else "",
        loudest=percent_text(floors[-1]) if floors else "",
    )


def _payloads(run: _Run) -> tuple[PayloadView, ...]:
    return tuple(
        PayloadView(
            program=clean(item.get("program")),
            abi=clean(item.get("abi")),
            sha256=clean(item.get("sha256"))[:_CLIP],
        )
        for item in _items(run.raw.get("payloads"))
    )


def _records(run: _Run) -> str:
    """Return the name of the raw records. It becomes a link, so it must be a bare file name."""
    name = clean(run.raw.get("records"))
    return name if re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) else "records.jsonl"


def _headline(run: _Run) -> str:
    found = clean(run.raw.get("headline"))
    if found:
        return found
    counts = Counter(
        cell.mark.word for cell in run.cells.values() if not _heading(cell.target, "").control
    )
    if not counts:
        return "This run measured nothing."
    parts = _listed(f"{counts[word]} {word}" for word in _MARKS if counts[word])
    return f"{_count(counts.total(), 'cell')} measured: {parts}."


def build(summary: Mapping[str, Any]) -> Report:
    """Return what a report of this summary shows. Absent fields leave their part of it out."""
    run = _read(summary)
    claims = _claims(run)
    untested = _CLAIM_MARKS[ClaimStanding.UNTESTED]
    return Report(
        headline=_headline(run),
        id=clean(run.raw.get("id")) or "unnamed",
        run=_run_line(run),
        banners=tuple(_banners(run)),
        columns=_columns(run),
        matrix=_matrix(run),
        panels=_panels(run),
        startup=_startup(run),
        proofs=tuple(_proofs(run)),
        parity=tuple(_parity(run)),
        claims=tuple(claim for claim in claims if claim.mark != untested),
        untested=tuple(claim for claim in claims if claim.mark == untested),
        claim_counts=_claim_counts(claims),
        gaps=_gaps(run),
        doubts=_doubts(run),
        noise=_noise(run),
        environment=_environment(run),
        details=_details(run),
        method=_method(run),
        payloads=_payloads(run),
        records=_records(run),
    )
