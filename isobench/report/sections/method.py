"""The account of the method, with the numbers of this run in it, and the noise floors."""

from dataclasses import dataclass
from typing import Final

from isobench.model import Schedule, Status
from isobench.model.wording import counted
from isobench.report.sections.above import shared_sessions
from isobench.report.sections.figures import percent_text, ratio_text
from isobench.report.sections.lookup import Lookup
from isobench.report.sections.section import Section
from isobench.storage.schema import CellSummary

_STOPPED: Final = {
    "budget": "the time budget was spent",
    "precision": "every interval was narrow enough",
    "blocks": "all planned blocks had run",
    "interrupted": "it was interrupted",
}
_ALPHA: Final = 0.05
_UNKNOWN: Final = "an unknown number of"


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
    margin_low: str
    margin_high: str
    quietest: str
    loudest: str
    together: str
    """How many near-native verdicts hold together; empty for none, or where it is not known."""
    noise: tuple[Noise, ...]
    """In the order of the summary."""


def method(found: Lookup) -> Method:
    """Return the numbers that the account of the method names, as text."""
    run = found.run
    floors = sorted(floor for floor in run.noise.values() if floor is not None)
    return Method(
        blocks=_UNKNOWN if run.blocks is None else str(run.blocks),
        discarded=_UNKNOWN if run.blocks_invalid is None else str(run.blocks_invalid),
        duet=run.schedule is Schedule.DUET,
        sessions=shared_sessions(found),
        seed="not recorded" if run.seed is None else str(run.seed),
        stopped=_STOPPED.get(run.stopped or "", "not recorded"),
        margin_low=ratio_text(1 / (1 + run.margin)),
        margin_high=ratio_text(1 + run.margin),
        quietest=percent_text(floors[0]) if floors else "",
        loudest=percent_text(floors[-1]) if floors else "",
        together=_together(found.summary.cells),
        noise=tuple(
            Noise(workload=name, floor=percent_text(floor), over=floor > run.margin)
            for name, floor in found.noise.items()
        ),
    )


def _together(cells: tuple[CellSummary, ...]) -> str:
    """Return how many near-native verdicts also hold for all cells of the run together."""
    family = [(one.status, p) for one in cells if (p := one.p_equivalence_together) is not None]
    near = [p for status, p in family if status is Status.NEAR_NATIVE]
    if not near:
        return ""
    hold = sum(p <= _ALPHA for p in near)
    return f"{hold} of {len(near)}, adjusted for {counted(len(family), 'cell')} (Holm)"


METHOD: Final = Section(anchor="method", title="Method", template="method.html.j2", build=method)
