"""The section Method: the method with the numbers of this run, and the noise floors."""

from dataclasses import dataclass
from typing import Final

from isobench.model import Schedule, Status
from isobench.model.wording import counted
from isobench.report.sections.figures import percent_text, ratio_text
from isobench.report.sections.header import shared_sessions
from isobench.report.sections.lookup import Lookup
from isobench.report.sections.section import Section
from isobench.storage.schema import CellSummary

_STOPPED: Final = {
    "budget": "the time budget was used up",
    "precision": "all intervals were narrow enough",
    "decided": "every cell was decided",
    "blocks": "all planned blocks were measured",
    "time limit": "the time limit (--timeout) was reached",
    "interrupted": "it was interrupted",
    "failure": "it failed",
}
_ALPHA: Final = 0.05
_UNKNOWN: Final = "an unknown number of"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The noise floor of one workload."""

    workload: str
    floor: str
    over: bool
    """Whether it exceeds the margin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """The numbers of this run in the description of the method, as texts."""

    blocks: str
    discarded: str
    rounds: bool
    """Whether the targets of a block took short turns."""
    duet: bool
    """Whether each target ran at the same time as native."""
    own_cpu: str
    """What isobench itself used of one CPU during turns; empty: unknown."""
    sessions: str
    """The number of sessions by target, where sessions served several blocks; else empty."""
    seed: str
    stopped: str
    margin_low: str
    margin_high: str
    lowest_floor: str
    """The lowest noise floor; empty: unknown."""
    highest_floor: str
    """The highest noise floor; empty: unknown."""
    for_all_cells: str
    """How many near-native verdicts hold for all cells together; empty: none, or unknown."""
    noise: tuple[Noise, ...]
    """In the order of the summary."""


def method(lookup: Lookup) -> Method:
    """Return the view of the method."""
    run = lookup.run
    floors = sorted(floor for floor in run.noise.values() if floor is not None)
    return Method(
        blocks=_UNKNOWN if run.blocks is None else str(run.blocks),
        discarded=_UNKNOWN if run.blocks_invalid is None else str(run.blocks_invalid),
        rounds=run.schedule is Schedule.ROUNDS,
        duet=run.schedule is Schedule.DUET,
        own_cpu="" if run.own_cpu_percent is None else percent_text(run.own_cpu_percent / 100),
        sessions=shared_sessions(lookup),
        seed="not recorded" if run.seed is None else str(run.seed),
        stopped=_STOPPED.get(run.stopped or "", "not recorded"),
        margin_low=ratio_text(1 / (1 + run.margin)),
        margin_high=ratio_text(1 + run.margin),
        lowest_floor=percent_text(floors[0]) if floors else "",
        highest_floor=percent_text(floors[-1]) if floors else "",
        for_all_cells=_for_all_cells(lookup.summary.cells),
        noise=tuple(
            Noise(workload=name, floor=percent_text(floor), over=floor > run.margin)
            for name, floor in lookup.noise.items()
        ),
    )


def _for_all_cells(cells: tuple[CellSummary, ...]) -> str:
    """Return how many near-native verdicts also hold for all cells of the run together."""
    # Each verdict has an error of 5 %, so that of many cells some are wrong by chance. This is the
    # number for readers who look at all cells at once.
    family = [(one.status, p) for one in cells if (p := one.p_equivalence_together) is not None]
    near = [p for status, p in family if status is Status.NEAR_NATIVE]
    if not near:
        return ""
    hold = sum(p <= _ALPHA for p in near)
    return f"{hold} of {len(near)}, adjusted for {counted(len(family), 'cell')} (Holm)"


METHOD: Final = Section(anchor="method", title="Method", template="method.html.j2", build=method)
