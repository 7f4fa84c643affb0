"""A run beside the runs before it: how its cells compare, and which cells it does not have."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from isobench.history import alarm, search
from isobench.history.alarm import Finding
from isobench.history.row import Row
from isobench.history.series import confirms, is_gap
from isobench.history.store import runs_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A run beside the runs before it."""

    first: Row
    """The first cell of the run: what it says of the run is in all."""
    findings: tuple[Finding, ...]
    before: tuple[Row, ...]
    """The cells of the run before on this machine."""
    is_first: bool
    """The machine has no run before."""

    @property
    def is_alarm(self) -> bool:
        """Whether a regression is confirmed."""
        return any(one.is_alarm for one in self.findings)

    @property
    def missing(self) -> tuple[Row, ...]:
        """The cells of the run before that this run does not have, not even as a gap."""
        own = {_cell(one.row) for one in self.findings}
        # A gap is of all metrics of its cell.
        gaps = {_cell(one.row)[:2] for one in self.findings if is_gap(one.row)}
        return tuple(
            row for row in self.before if _cell(row) not in own and _cell(row)[:2] not in gaps
        )

    def only(self, is_wanted: Callable[[Row], bool]) -> "Beside":
        """Return it with these cells alone."""
        return replace(
            self,
            findings=tuple(one for one in self.findings if is_wanted(one.row)),
            before=tuple(filter(is_wanted, self.before)),
        )


def judged(
    rows: Sequence[Row], past: Sequence[Row], searcher: search.Search = search.here
) -> Beside:
    """Return how a run compares with the runs before it; `past` are the rows of the store."""
    before = _before(rows[0], past)
    return Beside(
        first=rows[0],
        findings=tuple(alarm.judge(rows, past, searcher=searcher)),
        before=tuple(before),
        is_first=not before,
    )


def confirmed(
    one: Beside, again: Sequence[Row], past: Sequence[Row], searcher: search.Search = search.here
) -> Beside:
    """Return how a run compares with the runs before it after a further run."""
    return replace(one, findings=tuple(alarm.confirm(one.findings, again, past, searcher=searcher)))


def of_store(
    rows: Sequence[Row], every: Sequence[Row], searcher: search.Search = search.here
) -> Beside:
    """Return how a run of a store compares with the runs before it, and what those that confirm it
    have shown. `every` are the rows of the store.
    """
    found = judged(rows, every, searcher)
    again = [row for row in every if confirms(row, rows[0])]
    return confirmed(found, again, every, searcher) if again else found


def newest(
    every: Sequence[Row],
    searcher: search.Search = search.here,
    *,
    since: str = "",
    older: Callable[[str, str], Sequence[Row]] | None = None,
) -> list[Beside]:
    """Return the newest run of each machine of a store, the newest of all first.

    `every` are the rows of the store since a time. Where a run is compared with earlier ones too,
    `older` returns the rows of its machine since then.
    """
    found = []
    for own in newest_runs(every):
        machine = own[0].machine
        past = [row for row in every if row.machine == machine]
        needed = alarm.base_since(own[0], past)
        if older is not None and needed < since:
            past = [*older(machine, needed)]
        found.append(of_store(own, past, searcher))
    return found


def newest_runs(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the newest run of each machine, the newest of all first. Runs that confirm another are
    left out.
    """
    found: dict[str, list[Row]] = {}
    for own in runs_of(row for row in rows if not row.confirms):
        known = found.get(own[0].machine)
        if known is None or own[0].started > known[0].started:
            found[own[0].machine] = own
    return sorted(found.values(), key=lambda own: own[0].started, reverse=True)


def _before(first: Row, past: Iterable[Row]) -> list[Row]:
    """Return the run before on the machine of a run. Quick runs have part of the cells."""
    runs = newest_runs(
        row
        for row in past
        if row.machine == first.machine and row.started < first.started and not row.quick
    )
    return runs[0] if runs else []


def _cell(row: Row) -> tuple[str, str, str]:
    return row.target, row.workload, row.metric
