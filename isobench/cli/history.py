"""`isobench history`: a store of runs, their series and change points."""

import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from isobench.cli._exits import HISTORY_FAILURES, REGRESSED, refuse_unknown
from isobench.cli._inputs import paths_of_runs, run_in, store_at
from isobench.cli._options import document_options, fail_on_option, store_option, workloads_option
from isobench.cli._outputs import publish, refuse_target, refuse_unwritable
from isobench.cli._progress import note, say
from isobench.config import parameters, redaction
from isobench.model.errors import UsageError
from isobench.model.wording import counted

if TYPE_CHECKING:
    from isobench.history.beside import Beside
    from isobench.history.row import Row
    from isobench.history.store import Choice, Store

_DEFAULT_SINCE: Final = "180d"
_SLACK: Final = timedelta(days=7)
"""A newest run may be so old, and what it is compared with has been read already."""
_LONGEST_LINK: Final = 2000
"""Characters. Browsers and servers take no more for granted."""

_since_option = click.option(
    "--since", type=parameters.Since(), default=_DEFAULT_SINCE, metavar="WHEN",
    help=f"Only runs since then: 2026-08-01, or how long ago: 90d ({_DEFAULT_SINCE}).",
)  # fmt: skip
_machine_option = click.option(
    "--machine", default="", metavar="KEY", help="Only this machine; list and trend show the keys."
)
_targets_option = click.option(
    "-t", "--targets", multiple=True, callback=parameters.names_of, metavar="NAMES",
    help="Only these targets.",
)  # fmt: skip


@click.group()
def history() -> None:
    """Keep the ratios of runs over time, and find where they change."""


@history.command()
@click.argument("names", nargs=-1, metavar="RUN...")
@store_option
@click.option(
    "--link", default="", metavar="URL", help="Where others find the whole run (http, https)."
)
def add(names: Sequence[str], store: Path | None, link: str) -> None:
    """Add runs: folders, zips, patterns or "latest" (the default).

    A run that the store has already is left alone, unless it was incomplete and is complete now.
    One that cannot be used is named, and the others are added.
    """
    _check_link(link)
    kept = store_at(store)
    unusable: list[Path] = []
    added = there = 0
    # One by one: many runs at once would need much memory.
    for path in paths_of_runs(names or ["latest"]):
        for rows in _usable(path, kept, link or str(path.absolute()), unusable):
            is_new = kept.add(rows)
            added += is_new
            there += not is_new
    already = f"; {counted(there, 'run')} had been added before" if there else ""
    others = f"; {counted(len(unusable), 'run')} cannot be used" if unusable else ""
    say(f"{counted(added, 'run')} added to {kept.folder}{already}{others}")
    for fault, hint in kept.unmerged.items():
        note(fault, hint=hint)
    if unusable:
        sys.exit(UsageError.exit_code)


def _usable(
    path: Path, store: "Store", link: str, unusable: list[Path]
) -> "Iterator[Sequence[Row]]":
    """Yield the rows of a run, and of the runs that confirm it. Those that the store could not have
    are named and added to `unusable`.
    """
    from isobench.history import entry
    from isobench.storage import reader

    def rows_in(part: str) -> "Sequence[Row]":
        run = reader.load(path, part) if part else run_in(path)
        rows = entry.rows_of(run, link=link)
        store.check_run(rows)
        return rows

    parts = [""]  # those of its confirmations follow when the run itself has been read
    for part in parts:
        try:
            rows = rows_in(part)
            if not part:
                parts += reader.confirmations(path)
        except UsageError as error:
            note(str(error), hint=error.hint)
            unusable.append(path / part)  # not the error, which keeps the run
        else:
            yield rows


def _check_link(link: str) -> None:
    """Check a link that pages and tables of the store will show. UsageError: it is none."""
    # Every row of the run has it, and whoever reads the store may click on it.
    if link and not link.lower().startswith(("http://", "https://")):
        raise UsageError("--link: not an address of http or https", hint="--link https://HOST/PATH")
    if len(link) > _LONGEST_LINK:
        raise UsageError(
            f"--link: longer than {_LONGEST_LINK} characters", hint="--link https://HOST/PATH"
        )


@history.command(name="list")
@store_option
@_since_option
@_machine_option
@document_options
def list_runs(store: Path | None, since: str, machine: str, **options: Any) -> None:
    """List the runs of the store."""
    from isobench.history.store import Choice
    from isobench.report import history as view

    refuse_unwritable(options)
    kept = store_at(store)
    rows = _rows(kept, Choice(since=since, machine=machine))
    unwritten = publish(
        view.runs(rows, str(kept.folder)),
        options,
        document=lambda: view.runs_document(rows),
        csv=lambda: view.runs_csv(rows),
    )
    sys.exit(unwritten)


@history.command()
@click.argument("name", metavar="[RUN]", default="")
@store_option
@click.option("--only-changed", is_flag=True, help="Show only cells that changed.")
@document_options
@fail_on_option(HISTORY_FAILURES)
def show(
    name: str, store: Path | None, only_changed: bool, fail_on: Sequence[str], **options: Any
) -> None:
    """Show a run of the store beside the runs before it. RUN is its id; default: the newest."""
    from isobench.history import beside
    from isobench.report import history as view

    refuse_unknown(fail_on, HISTORY_FAILURES)
    refuse_unwritable(options)
    kept = store_at(store)
    rows = _rows(kept)
    found = beside.of_store(_run(name, rows, kept), rows)
    unwritten = publish(
        view.findings(found, only_changed=only_changed),
        options,
        document=lambda: view.findings_document(found),
        csv=lambda: view.findings_csv(found),
    )
    sys.exit(REGRESSED if "regression" in fail_on and found.is_alarm else unwritten)


def _rows(store: "Store", choice: "Choice | None" = None) -> "list[Row]":
    """Return the chosen rows. Redaction keeps the names in them, as those of a run."""
    rows = store.rows(choice)
    redaction.keep(
        name
        for row in rows
        for name in (row.run, row.target, row.workload, row.workload_class, row.metric)
    )
    return rows


def _run(name: str, rows: "Sequence[Row]", store: "Store") -> "Sequence[Row]":
    """Return the run of this id; without one, the newest. UsageError: there is none."""
    from isobench.history import beside
    from isobench.history.store import runs_of

    if name:
        named = runs_of(row for row in rows if row.run == name)
        if not named:
            raise UsageError(f"{store.folder} has no run {name!r}", hint=store.command("list"))
        # A machine may have changed before --resume, and an id may come from anywhere.
        if len(named) > 1:
            every = "; ".join(f"{run[0].started} on {run[0].machine_name}" for run in named)
            shown = max(named, key=lambda run: (run[0].complete, run[0].started))
            note(
                f"{counted(len(named), 'run')} have the id {name!r}: {every}",
                hint=f"shown is that of {shown[0].started} on {shown[0].machine_name}",
            )
            return shown
        return named[0]
    newest = beside.newest_runs(rows)
    if not newest:
        raise UsageError(f"{store.folder} has no runs", hint=store.command("add RUN"))
    return newest[0]


@history.command()
@store_option
@_since_option
@_machine_option
@_targets_option
@workloads_option
@click.option(
    "-o", "--output", type=parameters.PathName(path_type=Path), metavar="FILE",
    help="Write the page of the trend, for example trend.html.",
)  # fmt: skip
@document_options
def trend(
    store: Path | None,
    since: str,
    machine: str,
    targets: tuple[str, ...],
    workloads: tuple[str, ...],
    output: Path | None,
    **options: Any,
) -> None:
    """Show the level of each series, and where it changed."""
    from isobench.history import search

    refuse_unwritable(options)
    if output is not None:
        refuse_target("--output", output)
    with search.beside() as searcher:
        from isobench.history import alarm, beside, series
        from isobench.history.store import Choice
        from isobench.report import history as view

        kept = store_at(store)
        chosen = Choice(since=since, machine=machine, targets=targets, workloads=workloads)
        # What the newest runs are compared with is read at once; they may be some days old.
        first = min(since, parameters.time_ago(alarm.LONGEST_BASE + _SLACK))
        every = _rows(kept, Choice(since=first, machine=machine))
        rows = [row for row in every if row.started >= since and chosen.has_cell(row)]
        if not rows:
            raise UsageError(
                f"{kept.folder} has no such runs since {since[:10]}",
                hint=f"{kept.command('list --since 2000-01-01')} shows all",
            )
        found = series.series_of(rows, searcher)
        machines = {row.machine for row in rows}
        # Cells that were not chosen are a part of the measure.
        newest = [
            one.only(chosen.has_cell)
            for one in beside.newest(
                [row for row in every if row.machine in machines],
                searcher,
                since=first,
                older=lambda key, begin: _rows(kept, Choice(since=begin, machine=key)),
            )
        ]
    unwritten = publish(
        view.trend(found, newest, str(kept.folder)),
        options,
        document=lambda: view.trend_document(found, newest),
        csv=lambda: view.trend_csv(found),
    )
    if output is not None:
        _write_page(output, found, newest, kept)
    sys.exit(unwritten)


def _write_page(
    output: Path, found: Sequence[Any], newest: "Sequence[Beside]", store: "Store"
) -> None:
    from isobench.report import trend as page

    try:
        page.write(output, found, newest, str(store.folder))
    except OSError as error:
        raise UsageError(
            f"{output}: {error.strerror}", hint="name a writable file with --output"
        ) from None


@history.command()
@store_option
@click.option(
    "--before", type=parameters.Since(), required=True, metavar="WHEN",
    help="Remove runs before then: 2025-01-01, or older than that: 730d.",
)  # fmt: skip
def prune(store: Path | None, before: str) -> None:
    """Remove old runs from the store. The runs themselves stay."""
    kept = store_at(store)
    removed = kept.prune(before)
    say(f"{counted(removed, 'run')} removed from {kept.folder}")


@history.command()
@store_option
@_since_option
@_machine_option
@click.argument("target", metavar="FILE", type=parameters.PathName(path_type=Path))
def export(store: Path | None, since: str, machine: str, target: Path) -> None:
    """Write the rows of the store into FILE: .parquet, .csv or .jsonl."""
    from isobench.history.store import Choice

    refuse_target("FILE", target)
    kept = store_at(store)
    count = kept.export(target, Choice(since=since, machine=machine))
    say(f"{counted(count, 'row')} written to {target}")
