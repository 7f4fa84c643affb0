"""`isobench report`: write the report of a run again, from its records."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isobench.cli import _ci
from isobench.cli._inputs import claims_of, run_at, warn_if_running
from isobench.cli._options import (
    Exporting,
    claims_option,
    color_option,
    export_options,
    output_option,
    run_argument,
)
from isobench.cli._outputs import export, refuse_unwritable, show
from isobench.model import commands
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from isobench.model import Claim
    from isobench.report.write import Outcome
    from isobench.storage.reader import Run


@click.command(cls=Exporting)
@run_argument
@output_option
@export_options
@claims_option
@color_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the closing sentence.")
def report(path: Path | None, output: Path | None, **options: Any) -> None:
    """Write the report of a run again, from its records. Nothing is measured.

    RUN is a folder or a zip of one. Default: the latest run.
    """
    refuse_unwritable(options)
    own = claims_of(options["claims"], None, None) if options["claims"] else ()
    outcome = answer_again(run_at(path), output, own)
    try:
        show(outcome, options)
    finally:  # whatever standard output is
        unwritten = export(outcome, options)
    _ci.publish(outcome, ())
    sys.exit(unwritten)


def answer_again(source: Path, output: Path | None, added: "Sequence[Claim]" = ()) -> "Outcome":
    """Write summary and reports of a run from its records, with `added` claims.

    They are written into `output`, or else into the folder of the run, or next to its zip.
    UsageError: the run is damaged, or the files cannot be written.
    """
    from isobench.config import held
    from isobench.report import write
    from isobench.storage import reader

    target = output or (source if source.is_dir() else source.with_suffix(""))
    try:
        # What is read and what is written is one folder, whatever becomes of its path.
        folder = held.writable(source) if target == source and source.is_dir() else None
        # Reading comes first: nothing is created for something that is not a run.
        run = reader.load(source, folder=folder)
        warn_if_running(source)
        if target == source and folder is None:
            again = f"isobench report {commands.path(source)} -o DIR"
            raise UsageError(
                f"{source} is a zip without an ending, beside which no folder can have its name",
                hint=f"name a folder for its report: {again}",
            )
        _refuse_foreign(target, run, is_named=output is not None or target == source)
        folder = folder or held.writable(target, create=True)
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}", hint="name a folder with --output"
        ) from None
    return write.answer(source, target, added, run=run, folder=folder)


def _refuse_foreign(target: Path, run: "Run", *, is_named: bool) -> None:
    """Check what a report would replace. UsageError: a report of another run, beside its records;
    or, in a folder that nobody named, anything but a report of this run.
    """
    from isobench.report.write import MARKDOWN, PAGE
    from isobench.storage import documents, reader

    hint = "name another folder with --output"
    if _id_of(lambda: reader.metadata(target).id) not in (None, run.metadata.id):
        raise UsageError(f"{target} is another run, whose report would be replaced", hint=hint)
    if is_named:
        return
    if target.is_symlink():
        raise UsageError(f"{target} is a link: no report is written there unasked", hint=hint)
    names = [name for name in (documents.SUMMARY, MARKDOWN, PAGE) if (target / name).exists()]
    if names and _id_of(lambda: documents.read_summary(target).run.id) != run.metadata.id:
        raise UsageError(
            f"{target / names[0]} is there already, and is no report of this run", hint=hint
        )


def _id_of(read: Callable[[], str | None]) -> str | None:
    """Return the id that `read` returns; None where there is none to be read."""
    try:
        return read()
    except UsageError:
        return None
