"""`isobench pack`: one file with everything that belongs to a run."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isobench.cli._inputs import run_at, warn_if_running
from isobench.cli._options import redact_option, run_argument
from isobench.cli._outputs import refuse_target
from isobench.cli._progress import say
from isobench.config import held, parameters
from isobench.model import commands
from isobench.model.errors import UsageError
from isobench.model.wording import counted

if TYPE_CHECKING:
    from isobench.storage.schema import RunMetadata


@click.command()
@run_argument
@click.option(
    "-o", "--output", type=parameters.PathName(path_type=Path), metavar="FILE",
    help="The zip. Default: the id of the run with .zip, in this folder, unless another file is"
    " called so.",
)  # fmt: skip
@redact_option
def pack(path: Path | None, output: Path | None) -> None:
    """Write a zip of a run with everything that belongs to it. Default of RUN: the latest run.

    The same run gives the same bytes. isobench report, compare, verify and history read it as they
    read the folder.
    """
    from isobench.storage import bundle, reader

    if output is not None:
        refuse_target("--output", output, packing=True)
    source = run_at(path)
    folder = _held(source) if source.is_dir() else None
    source = source.resolve()
    run = reader.load(source, folder=folder)  # nothing is made of what is no run
    if folder is None:
        raise UsageError(f"{source} is packed already", hint="name the folder of a run")
    warn_if_running(source)
    # The id comes from a file that anybody may have sent. Nobody unpacks into "..".
    name = re.sub(r"[^\w.-]", "_", run.metadata.id or source.name).lstrip(".-") or "run"
    target = output or Path(f"{name}.zip")
    if output is None:
        _refuse_foreign(target, run.metadata, "" if path is None else f" {commands.path(path)}")
    names = bundle.write(folder, target, name, _reports)
    say(f"{counted(len(names), 'file')} of {source} written to {target}")


def _held(source: Path) -> held.Folder:
    """Return the folder of a run, which stays the same until it is packed. UsageError: another
    user's link says which it is.
    """
    try:
        return held.writable(source)
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}", hint="name the folder itself") from None


def _reports(data: bytes, folder: Path) -> Mapping[str, str]:
    """Return the files of the report in a folder again if something in the data of its summary is
    to be left out; else none.
    """
    from isobench.report import write
    from isobench.storage import documents

    summary = documents.summary_in(data, folder)
    clean = summary.redacted()
    if clean == summary:
        return {}
    return {documents.SUMMARY: documents.written(clean), **write.rendered(clean)}


def _refuse_foreign(target: Path, run: "RunMetadata", named: str) -> None:
    """Check that a file which nobody named is replaced only if it is a bundle of the same run.
    `named` is the run as the command line names it.
    """
    from isobench.storage import reader

    if not os.path.lexists(target):
        return
    if target.is_file() and not target.is_symlink():
        with contextlib.suppress(UsageError):
            if _identity(reader.metadata(target)) == _identity(run):
                return
    again = f"isobench pack{named} -o {commands.path(target)}"
    raise UsageError(
        f"{target} is there already, and is no bundle of this run",
        hint=f"{again} replaces it; -o FILE writes another file",
    )


def _identity(run: "RunMetadata") -> tuple[object, ...]:
    return run.id, run.started, run.seed, run.plan_sha256
