"""`isobench report`: answer again from the records of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isobench.cli._inputs import claims_of, latest, say_if_going
from isobench.cli._options import (
    Exporting,
    claims_option,
    color_option,
    export_options,
    output_option,
)
from isobench.cli._outputs import show
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from isobench.model import Claim
    from isobench.report.write import Outcome


@click.command(cls=Exporting)
@click.argument("path", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@output_option
@export_options
@claims_option
@color_option
@click.option("-q", "--quiet", is_flag=True, help="Only the closing sentence.")
def report(path: Path | None, output: Path | None, **options: Any) -> None:
    """Answer again from the records of a run: a folder, or a zip of one. Measures nothing."""
    own = claims_of(options["claims"], None, None) if options["claims"] else ()
    show(answer_again(path or latest(), output, own), options)


def answer_again(source: Path, output: Path | None, added: "Sequence[Claim]" = ()) -> "Outcome":
    """Answer again from the records of a run, with these claims besides its own."""
    from isobench.report import write
    from isobench.storage import reader

    reader.load(source)
    say_if_going(source)
    target = output or (source if source.is_dir() else source.with_suffix(""))
    try:
        target.mkdir(parents=True, exist_ok=True)
        return write.answer(source, target, added)
    except OSError as error:
        if not Path(str(error.filename)).is_relative_to(target):
            raise
        raise UsageError(
            f"{error.filename}: {error.strerror}", hint="name a folder with --output"
        ) from None
