"""What stands above the sections of a report: headline, what identifies the run, warnings."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from isobench.model import Schedule
from isobench.model.wording import counted, joined
from isobench.report.sections.figures import duration_text
from isobench.report.sections.lookup import Lookup, is_control
from isobench.report.sections.marks import MARKS
from isobench.report.sections.phrases import sessions_of
from isobench.report.sections.section import Banner
from isobench.report.sections.values import Fact, value_of

_SCHEDULES: Final = {Schedule.DUET: ", in duets", Schedule.SEQUENTIAL: ", not in random order"}


def _when(found: Lookup) -> str:
    begun, ended = found.run.began, found.run.ended
    if begun is None:
        return found.run.started or "not recorded"
    text = f"{begun.day} {begun:%B %Y, %H:%M}"
    if ended is None:
        return f"{text} UTC, not finished"
    pattern = "%H:%M" if begun.date() == ended.date() else "%d %B %Y, %H:%M"
    return f"{text} to {ended.strftime(pattern)} UTC"


def _blocks(found: Lookup) -> str:
    run = found.run
    if run.blocks is None:
        return "not recorded"
    planned = run.blocks_planned
    text = f"{run.blocks}" if planned is None else f"{run.blocks} (at most {planned})"
    text += _SCHEDULES.get(run.schedule, "")
    invalid = run.blocks_invalid
    return f"{text}, {invalid} more discarded as disturbed" if invalid else text


def shared_sessions(found: Lookup) -> str:
    """Return how many sessions served the blocks, where fewer than one a block did."""
    fewest: dict[str, int] = {}
    for cell in found.cells.values():
        if (sessions := sessions_of(cell)) is not None:
            fewest[cell.target] = min(sessions, fewest.get(cell.target, sessions))
    return joined(f"{number} of {target}" for target, number in fewest.items())


def _budget(found: Lookup) -> str:
    elapsed, budget = duration_text(found.run.elapsed_seconds), found.run.budget_seconds
    return (
        f"{elapsed} used, no limit set"
        if budget is None
        else f"{elapsed} of {duration_text(budget)}"
    )


def run_line(found: Lookup) -> tuple[Fact, ...]:
    """Return what identifies the run: machine, times, blocks, budget, seed and id."""
    run, sessions = found.run, shared_sessions(found)
    pairs = (
        ("Machine", run.machine),
        ("Measured", _when(found)),
        ("Blocks", _blocks(found)),
        *((("Sessions", sessions),) if sessions else ()),
        ("Time", _budget(found)),
        ("Seed", run.seed),
        ("Run", run.id),
    )
    return tuple(Fact(label=label, value=value_of(value, "not recorded")) for label, value in pairs)


def banners(found: Lookup) -> Iterator[Banner]:
    """Yield the warnings that stand above everything else: quick, partial, empty."""
    if found.run.quick:
        text = (
            "Too few blocks to judge by. Ratios are shown as a first look; no cell has a verdict."
        )
        yield Banner(kind="quick", title="Quick: no verdicts", text=text)
    if found.run.interrupted:
        text = "What was measured until then is valid; cells may be missing, intervals wide."
        yield Banner(kind="interrupted", title="Interrupted: partial", text=text)
    elif not found.run.complete:
        text = "The plan was not carried out to its end; cells may be missing."
        yield Banner(kind="interrupted", title="Incomplete", text=text)
    if not found.cells:
        text = "No cell holds a number. Why, and what to do, stands under Gaps and doubts."
        yield Banner(kind="empty", title="Nothing was measured", text=text)


def records(found: Lookup) -> str:
    """Return the name of the raw records. It becomes a link, so it must be a bare file name."""
    name = found.run.records
    return name if re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) else "records.jsonl"


def remarks(found: Lookup) -> str:
    """Return what the headline adds to the answers: what is missing, what was busy."""
    return " ".join(found.run.remarks)


def headline(found: Lookup) -> str:
    """Return the summary's own headline without its remarks, or else how many cells have which
    outcome.
    """
    said = found.run.headline.removesuffix(remarks(found)).rstrip()
    if said:
        return said
    timed = [cell for cell in found.cells.values() if cell.is_time]
    cells = [cell for cell in timed if not is_control(cell.target)]
    counts = Counter(cell.mark.word for cell in cells)
    if not counts:
        return "This run measured nothing."
    parts = joined(f"{counts[word]} {word}" for word in MARKS if counts[word])
    return f"{counted(counts.total(), 'cell')} measured: {parts}."
