"""`isobench report`: write the report of a run again, from its records."""

from collections.abc import Sequence
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
)
from isobench.cli._outputs import export, show
from isobench.config import parameters
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from isobench.model import Claim
    from isobench.report.write import Outcome


@click.command(cls=Exporting)
@click.argument("path", metavar="[RUN]", required=False, type=parameters.PathName(path_type=Path))
@output_option
@export_options
@claims_option
@color_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the closing sentence.")
def report(path: Path | None, output: Path | None, **options: Any) -> None:
    """Write the report of a run again, from its records. Nothing is measured.

    RUN is a folder or a zip of one. Default: the latest run.
    """
    own = claims_of(options["claims"], None, None) if options["claims"] else ()
    outcome = answer_again(run_at(path), output, own)
    try:
        show(outcome, options)
    finally:  # whatever standard output is
        export(outcome, options)
    _ci.publish(outcome, ())


def answer_again(source: Path, output: Path | None, added: "Sequence[Claim]" = ()) -> "Outcome":
    """Write summary and reports of a run from its records, with `added` claims.

    They are written into `output`, or else into the folder of the run, or next to its zip.
    UsageError: the run is damaged, or the files cannot be written.
    """
    from isobench.report import write
    from isobench.storage import reader

    # Reading comes first: nothing is created for something that is not a run.
    reader.load(source)
    warn_if_running(source)
    target = output or (source if source.is_dir() else source.with_suffix(""))
    try:
        target.mkdir(parents=True, exist_ok=True)
        return write.answer(source, target, added)
    except OSError as error:
        # Any other file is one of isobench's own: --output would not help.
        if not Path(str(error.filename)).is_relative_to(target):
            raise
        raise UsageError(
            f"{error.filename}: {error.strerror}", hint="name a folder with --output"
        ) from None
