"""A run beside the history: what has changed, and whether fresh blocks confirm it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from isobench.cli._inputs import store_at
from isobench.config import held
from isobench.model.errors import TimeIsUpError, UsageError
from isobench.model.wording import counted

if TYPE_CHECKING:
    from isobench.history.beside import Beside
    from isobench.history.row import Row
    from isobench.report.write import Outcome
    from isobench.storage.reader import Run

_LEAST_BUDGET: Final = 60.0
_LEAST_TIME: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideHistory:
    """How a run compares with the runs of a store."""

    found: "Beside"
    interrupted: bool = False
    """Whether measuring again was interrupted."""
    timed_out: bool = False
    """Whether the time limit of the command ended measuring again."""


def beside_history(
    outcome: "Outcome",
    options: Mapping[str, Any],
    measure: "Callable[[Mapping[str, Any]], Outcome | None]",
    say: Callable[[str], None],
    spent: float = 0.0,
) -> BesideHistory:
    """Return how a run compares with the runs of a store, and write it into the run's folder.

    With the option `confirm`, cells that have changed are measured again, by `measure`: for as long
    as the time limit allows after the `spent` seconds. A store without runs is no error.
    UsageError: the store cannot be read.
    """
    from isobench.history import alarm, beside
    from isobench.history.entry import machine_key, rows_of
    from isobench.history.store import Choice
    from isobench.report import history as view
    from isobench.storage import documents
    from isobench.storage.schema import FINDINGS

    run = outcome.run()
    rows = rows_of(run)
    store = store_at(options["store"])
    past = store.rows(Choice(machine=machine_key(run.metadata.host))) if store.exists else []
    found = beside.judged(rows, past)
    suspects = [one.row for one in found.findings if one.outcome in alarm.SUSPECT]

    def keep(found: "Beside") -> None:
        text = documents.written(view.findings_document(found))
        (outcome.held_folder or held.writable(outcome.folder)).replace(FINDINGS, text.encode())

    keep(found)  # whatever becomes of measuring again
    if not suspects or not options["confirm"]:
        return BesideHistory(found=found)
    if outcome.moved:  # a further run would be written there
        raise UsageError(outcome.moved, hint="measure again, in a folder of your own")
    say(f"Changed beside the history: {counted(len(suspects), 'cell')}. Measuring again:")
    left = None if options["timeout"] is None else options["timeout"] - spent
    again = {**options, **_again(suspects, outcome, run, len(rows)), "timeout": left}
    second = None
    if left is None or left >= _LEAST_TIME:
        with contextlib.suppress(TimeIsUpError):
            second = measure(again)
    if second is None:
        say("The time limit has passed before anything was measured again.")
        return BesideHistory(found=found, timed_out=True)
    if second.interrupted or second.timed_out:
        return BesideHistory(
            found=found, interrupted=second.interrupted, timed_out=second.timed_out
        )
    found = beside.confirmed(found, rows_of(second.run()), past)
    keep(found)
    return BesideHistory(found=found)


def _again(
    suspects: "Sequence[Row]", outcome: "Outcome", run: "Run", cells: int
) -> Mapping[str, Any]:
    """Return the options that differ when suspected cells are measured again."""
    from isobench.storage.reader import CONFIRMATION

    place, number = outcome.folder / CONFIRMATION, 1
    while place.exists():
        number += 1
        place = outcome.folder / f"{CONFIRMATION}-{number}"
    budget = run.metadata.budget_seconds
    if budget is not None:
        budget = min(budget, max(_LEAST_BUDGET, budget * len(suspects) / cells))
    return {
        "targets": tuple(dict.fromkeys(row.target for row in suspects)),
        "workloads": tuple(dict.fromkeys(row.workload for row in suspects)),
        "output": place,
        "budget": budget,
        "confirms": suspects[0].run,
        "require": (),
        "resume": None,
        "seed": None,
    }
