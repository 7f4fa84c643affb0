"""What a report is made of: frozen, and all of it already text or a place on an axis."""

from dataclasses import dataclass


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
    """The targets that could not run here or gave no numbers."""
    left_out: tuple[str, ...]
    """The targets that could run, and for which the budget had no room."""
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
    short: str
    """Its name without its class."""
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
    many: bool
    """So many targets that they are better rows than columns."""


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
class CoursePass:
    """A bar for one pass of a visit; places in percent of the width and height."""

    place: float
    width: float
    top: float
    height: float
    timed: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CourseRow:
    """How the visits of a cell go: each pass over the median of its visit's timed ones."""

    workload: str
    target: str
    passes: tuple[CoursePass, ...]
    usual: float
    """Where 1 lies, in percent of the height from above."""
    first: str
    rest: str
    late: str
    """What is still slower among the timed passes; empty for nothing."""
    words: str


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
    warmup_profiles: tuple[CourseRow, ...]


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
class Step:
    """A phase of a start: what passed, and when."""

    name: str
    at: str
    first: bool
    """It is the one that is timed: the nonce."""
    place: float
    """Where on the axis of its ladder, in per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPhases:
    """The phases of one kind of start in one target, in their order."""

    target: str
    kind: str
    steps: tuple[Step, ...]
    channel: str
    """What the way to a session and back costs, in words; empty: it has no way of its own."""
    words: str
    """All of it in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """How long starting takes."""

    kinds: tuple[StartKind, ...]
    ticks: tuple[Tick, ...]
    rows: tuple[StartRow, ...]
    remains: tuple[str, ...]
    """What of native's figures the kernel takes for any program, a sentence for each kind."""
    start_phases: tuple[StartPhases, ...]
    meanings: tuple[StartMeaning, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An expectation of a target's name, held against what was seen."""

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
    expectations: tuple[Kept, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitView:
    """A limit of one target that a program pushed past, in words."""

    target: str
    resource: str
    limit: str
    reached: str
    native: str
    counted: str
    """The kernel's own count of its interventions; empty where none is in sight."""
    mark: Mark
    why: str
    """Why it is not known whether it held; empty where it is."""


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
class OptionEffect:
    """What one option of a target costs in one workload."""

    workload: str
    effect: str
    """Time as it is over time with the option changed."""
    interval: str
    mark: Mark
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationView:
    """A target with one option changed, against itself as it is."""

    target: str
    base: str
    change: str
    effects: tuple[OptionEffect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedView:
    """A figure that others have published, in words."""

    figure: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """A sentence, of the documents or a user's own, and how it stands."""

    id: str
    quote: str
    sentence: str
    mark: Mark
    axes: tuple[Axis, ...]
    change: str
    """What would change how it stands; empty where that is not known."""
    published: tuple[PublishedView, ...]
    own: bool
    """It is the user's."""


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
    duet: bool
    """Each target ran at the same time as native."""
    sessions: str
    """How many sessions served several blocks, by target; empty where none did."""
    seed: str
    stopped: str
    level: str
    margin: str
    margin_low: str
    margin_high: str
    quietest: str
    loudest: str
    together: str
    """How many near-native verdicts hold together; empty for none, or where it is not known."""


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
    remarks: str
    """What is missing, and that the machine was busy; empty where nothing is to be said."""
    id: str
    run: tuple[Fact, ...]
    banners: tuple[Banner, ...]
    columns: tuple[Column, ...]
    matrix: Matrix
    panels: tuple[Panel, ...]
    startup: StartUp | None
    proofs: tuple[Proof, ...]
    limits: tuple[LimitView, ...]
    parity: tuple[Parity, ...]
    variations: tuple[VariationView, ...]
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
