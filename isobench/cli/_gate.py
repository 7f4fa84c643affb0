"""A run beside the history: what has changed, and whether fresh blocks confirm it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from isobench.cli._inputs import store_at
from isobench.model.wording import counted

if TYPE_CHECKING:
    from isobench.history.alarm import Finding
    from isobench.history.row import Row
    from isobench.report.write import Outcome
    from isobench.storage.reader import Run

_LEAST_BUDGET: Final = 60.0


def beside_history(
    outcome: "Outcome",
    options: Mapping[str, Any],
    measure: "Callable[[Mapping[str, Any]], Outcome | None]",
    say: Callable[[str], None],
) -> "list[Finding]":
    """Return how a run compares with the runs of a store, and write it into the run's folder.

    With the option `confirm`, cells that have changed are measured again, by `measure`. A store
    without runs is no error. UsageError: the store cannot be read.
    """
    from isobench.history import alarm
    from isobench.history.entry import machine_key, rows_of
    from isobench.history.store import Choice
    from isobench.report import history as view
    from isobench.storage import documents, reader
    from isobench.storage.schema import FINDINGS

    run = reader.load(outcome.source)
    rows = rows_of(run)
    store = store_at(options["store"])
    past = store.rows(Choice(machine=machine_key(run.metadata.host))) if store.exists else []
    found = alarm.judge(rows, past)
    suspects = [one.row for one in found if one.outcome in alarm.SUSPECT]
    if suspects and options["confirm"]:
        say(f"Changed beside the history: {counted(len(suspects), 'cell')}. Measuring again:")
        second = measure({**options, **_again(suspects, outcome, run, len(rows))})
        if second is not None and not second.interrupted:
            found = alarm.confirm(found, rows_of(reader.load(second.source)), past)
    documents.write_document(outcome.folder / FINDINGS, view.findings_document(found))
    return found


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
