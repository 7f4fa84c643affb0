"""The self-test in words: its tables and notes, the closing sentence, JSON and Markdown."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from isobench.analysis.verdict import NEAR_SHARE
from isobench.model import Status, plan
from isobench.model.wording import percent_text
from isobench.selftest.guarantees import ALARMS, STANDARD_ERRORS, Figure, Finding, Result
from isobench.selftest.planted import CONTROLS, Control, PlantRow
from isobench.selftest.scenarios import TREND_BLOCKS, Scenario
from isobench.selftest.simulate import (
    ALARM_LEVEL,
    LEFT,
    MARGIN,
    MOST_BLOCKS,
    OPTIONS,
    PRECISION,
    RULE,
    STOPPED,
    USUAL,
    WIDEST,
    Families,
    Place,
    Row,
    Simulation,
)
from isobench.stats import sequential

BOUNDS: Final = (
    f"A guarantee is broken if a figure is beyond its bound by more than {STANDARD_ERRORS:g}"
    f" standard errors of the simulation. Alarms at {ALARM_LEVEL:.0%} may be {ALARMS[0]:.0%} to"
    f" {ALARMS[1]:.0%}, for any number of runs."
).replace("%", " %")
_FIGURES: Final = {
    Figure.ALARMS: "95 % interval misses it",
    Figure.COVERAGE: "reported interval contains it",
    Figure.WRONG: "a wrong verdict",
    Figure.BIAS: f"a bias found in any of {CONTROLS} controls",
}
_NAIVE: Final = (
    "Naive: on the same machine, all of native first and then all of the target; iterations pooled,"
    ' ratio of means, 95 % t interval. It calls a difference that is not significant "the same".'
)


def _rate(share: float | None) -> str:
    """Return a share to a tenth of a percent: 4.9 %, 95 %."""
    # 10,000 simulated runs have a standard error of 0.2 % at 5 %: more digits would be noise.
    return "-" if share is None else f"{share * 100:.1f}".removesuffix(".0") + " %"


_LEAVING: Final = (
    f"A cell leaves if its {RULE.interim * 100:g} % interval decides, which is then the reported"
    f" one. Where the cell is near-native, this is at most {_rate(NEAR_SHARE * (MARGIN - 1))} wide"
    f" on either side; else the {RULE.final * 100:g} % interval is within {WIDEST * 100:g} % of the"
    f" ratio. What stays is judged at {RULE.final * 100:g} % after {MOST_BLOCKS} blocks."
)


# ---- tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(result: Result) -> tuple[Table, ...]:
    """Return the table for a true ratio of 1, the table of verdicts at each true ratio, the table
    of cells that leave, and that of planted biases, if any were simulated.
    """
    simulation = result.simulation
    staying = [row for row in simulation.rows if row.length != LEFT]
    same = [_native_row(row) for row in staying if row.ratio == 1]
    # Each pair has several rows, one for each number of blocks.
    pairs = dict.fromkeys((row.scenario, row.ratio) for row in staying)
    return (
        Table(
            title="Native against itself (true ratio 1)",
            head=(
                "scenario",
                "blocks",
                "95 % interval misses 1",
                "97 % interval contains 1",
                "its half-width",
                "called slower or faster",
                "naive: misses 1",
                "naive: half-width",
            ),
            rows=tuple(same),
        ),
        Table(
            title=f"Verdicts at a margin of {_rate(MARGIN - 1)}: runs of {USUAL} blocks / runs"
            " that stop when intervals are narrow",
            head=(
                "scenario",
                "true ratio",
                "near-native",
                "slower",
                "undecided",
                'naive: "the same"',
            ),
            rows=tuple(_verdict_row(simulation, *pair) for pair in pairs),
        ),
        Table(
            title="Cells that leave when they are decided, analysed"
            f" after {sequential.FIRST_ANALYSIS} blocks, and each time after a fifth more",
            head=(
                "scenario",
                "true ratio",
                "near-native",
                "slower",
                "undecided",
                "mean blocks",
                "reported interval contains it",
            ),
            rows=tuple(_left_row(row) for row in simulation.rows if row.length == LEFT),
        ),
        *([] if result.control is None else [_biases(result.control)]),
    )


def _left_row(row: Row) -> tuple[str, ...]:
    return (
        row.scenario,
        f"{row.ratio:.2f}",
        _rate(row.rate(Status.NEAR_NATIVE)),
        _rate(row.rate(Status.SLOWER)),
        _rate(row.rate(Status.INCONCLUSIVE, Status.UNPROVEN)),
        f"{row.blocks:g}",
        _rate(row.coverage),
    )


def _biases(control: Control) -> Table:
    return Table(
        title="Planted biases: the same error in every block of a run, which no interval shows",
        head=(
            "bias",
            "true ratio",
            "blocks",
            "found in the control",
            "wrong verdict",
            "without the control",
            "right verdict",
        ),
        rows=tuple(_bias_row(row) for row in control.rows),
    )


def _bias_row(row: PlantRow) -> tuple[str, ...]:
    return (
        row.plant.name,
        f"{row.plant.ratio:.2f}",
        str(row.blocks),
        _rate(row.found),
        _rate(row.wrong) + ("" if row.blocks in row.plant.guaranteed else " (no guarantee)"),
        _rate(row.ignored),
        _rate(row.right),
    )


def _native_row(row: Row) -> tuple[str, ...]:
    return (
        row.scenario,
        f"stopped, {row.blocks:g}" if row.length == STOPPED else row.length,
        _rate(row.alarms),
        _rate(row.coverage),
        _rate(row.half_width),
        _rate(row.rate(Status.SLOWER, Status.FASTER)),
        _rate(row.naive_alarms),
        _rate(row.naive_half_width),
    )


def _verdict_row(simulation: Simulation, scenario: str, ratio: float) -> tuple[str, ...]:
    usual, stopped = (simulation.row(scenario, ratio, length) for length in (str(USUAL), STOPPED))
    both = [
        f"{_rate(usual.rate(*verdicts))} / {_rate(stopped.rate(*verdicts))}"
        for verdicts in (
            (Status.NEAR_NATIVE,),
            (Status.SLOWER,),
            (Status.INCONCLUSIVE, Status.UNPROVEN),
        )
    ]
    return (scenario, f"{ratio:.2f}", *both, _rate(usual.naive_same))


# ---- how to read them


def notes(result: Result) -> list[str]:
    """Return the notes on the tables: parameters, rules, and what is not guaranteed."""
    simulation = result.simulation
    return [
        *(f"{one.name}: {scenario_text(one)}" for one in simulation.scenarios),
        *_weaker(simulation),
        *(f"{one.name}: no guarantee, {one.limit}" for one in simulation.scenarios if one.limit),
        _procedure(simulation),
        _LEAVING,
        *([] if result.control is None else [_controls(result.control)]),
        _NAIVE,
        BOUNDS,
        *([] if simulation.families is None else [_families(simulation.families)]),
    ]


def scenario_text(scenario: Scenario) -> str:
    """Return the parameters of a scenario in words."""
    return "; ".join(_parameters(scenario))


def _parameters(one: Scenario) -> Iterator[str]:
    share = percent_text
    law = "log-normal" if one.freedom is None else f"log of Student's t, {one.freedom} df,"
    yield f"{law} {share(one.iteration)} per iteration, {share(one.launch)} per launch"
    if one.wander:
        yield (
            f"the machine drifts by {share(one.wander)} (AR(1), {one.memory:g} from block to block,"
            " in steps of one visit)"
        )
    if one.trend:
        yield f"all times grow by {share(one.trend)} every {TREND_BLOCKS} blocks"
    if one.stalls:
        yield f"{share(one.stalls)} of launches take 1.5 times as long"
    if one.alike:
        yield f"the log-ratios of neighbouring blocks have a correlation of {one.alike:g} (AR(1))"
    if one.tick:
        yield f"the clock ticks every {share(one.tick)} of an iteration"
    if one.session:
        most = plan.blocks_per_session(MOST_BLOCKS)
        yield (
            f"sessions of the target differ by {share(one.session)} and serve a third of the"
            f" blocks, {most} where the run may stop"
        )


def _weaker(simulation: Simulation) -> Iterator[str]:
    for one in simulation.scenarios:
        if one.weaker:
            yield f"{one.name}: a weaker guarantee, {_guarantee(one)}"


def _guarantee(one: Scenario) -> str:
    """Return what is guaranteed in a scenario with a weaker guarantee."""
    return (
        f"verdicts are wrong in {_rate(one.error)} at most, and the interval contains the true"
        f" ratio in {_rate(one.coverage)} at least"
    )


def _procedure(simulation: Simulation) -> str:
    return (
        "Each block visits native, native again and the target in random order,"
        f" {OPTIONS.iterations} iterations per visit; {simulation.replications} runs per row; seed"
        f" {simulation.seed}. Stopped: at the first interim analysis (from"
        f" {sequential.FIRST_STOP} blocks on, each after a fifth more) at which both intervals are"
        f" within {_rate(PRECISION)}, or after {MOST_BLOCKS} blocks."
    )


def _controls(control: Control) -> str:
    alarms = control.false_alarms
    return (
        f"Of {alarms.runs} runs without a bias, {_rate(alarms.rate)} have one found in any of"
        f" {CONTROLS} controls (nominally 1 %, by Holm's method). Where a bias is found, a verdict"
        " stands only if the interval, widened by the far end of the bias, still gives it."
    )


def _families(found: Families) -> str:
    return (
        "The error of a verdict holds for one cell, not for a whole run: of"
        f" {found.cells} cells on the margin, at least one has p < 5 % in {_rate(found.own)} of"
        f" {found.families} runs; with p adjusted by Holm in {_rate(found.adjusted)}."
    )


# ---- what it shows


def place_text(place: Place) -> str:
    """Return the row of the table in words."""
    length = place.length if place.length in {STOPPED, LEFT} else f"{place.length} blocks"
    return f"{place.scenario}, true ratio {place.ratio:.2f}, {length}"


def figure_text(finding: Finding) -> str:
    """Return the figure and the row of a finding in words."""
    figure = finding.figure
    what = _FIGURES[figure] if isinstance(figure, Figure) else f"called {figure}"
    return f"{place_text(finding.place)}: {what}"


def finding_text(finding: Finding) -> str:
    """Return a finding in words: figure, value and bounds."""
    if finding.low and finding.high < 1:
        bounds = f"{_rate(finding.low)} to {_rate(finding.high)}"
    elif finding.low:
        bounds = f"at least {_rate(finding.low)}"
    else:
        bounds = f"at most {_rate(finding.high)}"
    return f"{figure_text(finding)}: {_rate(finding.rate)}, guaranteed {bounds}"


def sentence(result: Result) -> str:
    """Return the closing sentence: whether all guarantees hold, and which are broken."""
    count, broken = len(result.findings), result.broken
    if broken:
        listing = "; ".join(finding_text(one) for one in broken)
        return f"{len(broken)} of {count} guarantees are broken: {listing}."
    weaker = "".join(
        f" For {one.name} the guarantee is weaker: {_guarantee(one)}."
        for one in result.simulation.scenarios
        if one.weaker and not one.limit
    )
    return (
        f"All {count} guarantees hold in {result.simulation.replications} simulated runs of each"
        " kind: intervals contain the true ratio as often as they claim, and no more verdicts are"
        f" wrong than allowed.{weaker}"
    )


def markdown(result: Result) -> str:
    """Return tables, notes and the closing sentence as Markdown."""
    parts = []
    for table in tables(result):
        lines = [table.head, ("---",) * len(table.head), *table.rows]
        parts.append(f"### {table.title}")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {line}" for line in notes(result)))
    parts.append(f"**{sentence(result)}**")
    return "\n\n".join(parts)


def document(result: Result) -> dict[str, Any]:
    """Return the result for JSON. Rates and widths are shares, 0 to 1."""
    whole = asdict(result.simulation)
    return {
        **whole,
        "rows": [_row_document(row) for row in whole["rows"]],
        "findings": [_finding_document(one) for one in result.findings],
        "held": not result.broken,
        "sentence": sentence(result),
        "control": None if result.control is None else asdict(result.control),
    }


# Scripts read the key "standings"; the field has the standard word.
def _row_document(row: dict[str, Any]) -> dict[str, Any]:
    return {"standings" if key == "verdicts" else key: value for key, value in row.items()}


def _finding_document(one: Finding) -> dict[str, Any]:
    return {
        "what": figure_text(one),
        "rate": one.rate,
        "runs": one.runs,
        "low": one.low,
        "high": one.high,
        "exact": one.exact,
        "held": one.held,
    }
