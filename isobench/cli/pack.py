"""`isobench pack`: one file with everything that belongs to a run."""

import re
from pathlib import Path

import click

from isobench.cli._inputs import run_at, warn_if_running
from isobench.cli._options import redact_option
from isobench.cli._progress import say
from isobench.config import parameters, redaction
from isobench.model.errors import UsageError
from isobench.model.wording import counted


@click.command()
@click.argument("path", metavar="[RUN]", required=False, type=parameters.PathName(path_type=Path))
@click.option(
    "-o", "--output", type=parameters.PathName(path_type=Path), metavar="FILE",
    help="The zip. Default: the id of the run with .zip, in this folder.",
)  # fmt: skip
@redact_option
def pack(path: Path | None, output: Path | None) -> None:
    """Write a zip of a run with everything that belongs to it. Default of RUN: the latest run.

    The same run gives the same bytes. isobench report, compare, verify and history read it as they
    read the folder.
    """
    from isobench.report.write import names_of
    from isobench.storage import bundle, reader

    source = run_at(path).resolve()
    run = reader.load(source)  # nothing is made of what is no run
    if not source.is_dir():
        raise UsageError(f"{source} is packed already", hint="name the folder of a run")
    warn_if_running(source)
    if redaction.is_leaving_out_names():
        redaction.leave_out_names(names_of(run))
    # The id comes from a file that anybody may have sent.
    name = re.sub(r"[^\w.-]", "_", run.metadata.id or source.name)
    target = output or Path(f"{name}.zip")
    names = bundle.write(source, target, name)
    say(f"{counted(len(names), 'file')} of {source} written to {target}")
