"""What commands print, and the files they write besides."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isobench.cli import _progress
from isobench.cli._inputs import report_plugins
from isobench.cli._progress import as_called, program
from isobench.model import FAILED_CAUSES, Leftover
from isobench.model.errors import SessionError, UsageError
from isobench.model.wording import counted, duration_text
from isobench.report.exporters import EXPORTERS, of_plugins
from isobench.storage.cleaning import cleaned

if TYPE_CHECKING:
    from rich.console import Console

    from isobench.config.options import RunOptions
    from isobench.report.sheet import Sheet
    from isobench.report.write import Outcome
    from isobench.storage.reader import Run


def console_of(options: Mapping[str, Any]) -> "Console":
    """Return where people are spoken to: not where an export was sent."""
    to_stdout = "-" in exports_asked(options).values()
    return _progress.console_for(stderr=to_stdout, color=options["color"])


def show(outcome: "Outcome", options: Mapping[str, Any]) -> None:
    """Print the report for the terminal, and write what was asked for besides."""
    console = console_of(options)
    summary = outcome.summary.with_texts(as_called)
    if options["quiet"]:
        console.print(summary.run.headline, markup=False)
        failed = [gap for gap in summary.gaps if gap.cause in FAILED_CAUSES]
        if failed:
            first = f"{failed[0].target} {failed[0].workload}: {failed[0].detail}"
            said = f"{counted(len(failed), 'gap')}, the first: {first}"
            console.print(said, markup=False)
        if failed or outcome.folder != outcome.source:
            where = f"report: {outcome.folder / 'report.html'}"
            console.print(where, markup=False, soft_wrap=True)
    else:
        from isobench.report import sections, text

        text.render(sections.build(summary), console)
        console.print(
            f"\nreport: {outcome.folder / 'report.html'}",
            style="bold",
            markup=False,
            soft_wrap=True,
        )
    export(outcome, options)
    if outcome.interrupted:
        where = (
            ""
            if outcome.summary.run.headline.startswith("Nothing")
            else (f" {program()} run --resume goes on.")
        )
        console.print(
            f"Interrupted: the report holds what was measured until then.{where}", markup=False
        )


def exports_asked(options: Mapping[str, Any]) -> dict[str, str]:
    """Return where each export that was asked for goes, by the name of its exporter."""
    names = (*EXPORTERS, *of_plugins.exporters())
    found = {name: options.get(f"export_{name.replace('-', '_')}") for name in names}
    return {name: target for name, target in found.items() if target is not None}


def export(outcome: "Outcome", options: Mapping[str, Any]) -> None:
    """Write what was asked for besides. UsageError: an exporter of a plug-in's has failed; all
    others are written.
    """
    added = of_plugins.exporters()
    failed: list[str] = []
    for name, target in exports_asked(options).items():
        if name in EXPORTERS:
            write(target, EXPORTERS[name](outcome))
            continue
        try:
            text = added[name](outcome)
        except SessionError:
            failed.append(f"--export-{name} {target}")
        else:
            # A terminal may be there: what controls one is for files alone.
            bare = cleaned(text.replace("\r\n", "\n"), longest=None) if target == "-" else text
            write(target, bare)
    report_plugins()
    if failed:
        raise UsageError(
            f"{', '.join(failed)}: not written, by a bug of the plug-in",
            hint=f"isobench report {outcome.folder} with the same flag, once it is fixed",
        )


def write(target: str, content: str) -> None:
    if target == "-":
        click.echo(content)
        return
    try:
        Path(target).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{target}: {error.strerror}", hint="name a file that can be written"
        ) from None


def publish(
    sheet: "Sheet",
    options: Mapping[str, Any],
    *,
    document: Callable[[], Mapping[str, Any]],
    csv: Callable[[], str],
) -> None:
    """Print a sheet, or its closing sentence alone, and write what was asked for besides.

    `document` returns the same for JSON, `csv` its rows as CSV.
    """
    import json

    from isobench.report import sheet as module

    console = console_of(options)
    if options["quiet"]:
        console.print(sheet.closing, markup=False)
    else:
        module.render(sheet, console)
    texts: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(document(), indent=1),
        "csv": csv,
        "markdown": lambda: module.markdown(sheet),
    }
    for kind, text in texts.items():
        if (target := options.get(f"export_{kind}")) is not None:
            write(target, text())


def cleared(leftover: Leftover) -> str:
    """Return what is printed of something that a run which died had left."""
    if leftover.failure:
        return f"{leftover.what} is still there: {leftover.failure}"
    return f"cleared: {leftover.what}"


def refuse_unwritable(options: Mapping[str, Any]) -> None:
    """Raise UsageError where a file that is asked for cannot be written: before measuring."""
    for kind, target in exports_asked(options).items():
        if (exporter := of_plugins.exporters().get(kind)) is not None:
            exporter.check()
            report_plugins()  # now: measuring takes minutes
        if target == "-":
            continue
        path = Path(target)
        if path.is_dir():
            raise UsageError(f"--export-{kind} {path}: it is a folder", hint="name a file in it")
        _refuse_folder(f"--export-{kind} {path}", path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError(
                f"--export-{kind} {path}: it cannot be written", hint="name another file"
            )
    output = options.get("output")
    if output is not None:
        existing = next(
            folder for folder in (output, *output.absolute().parents) if folder.exists()
        )
        _refuse_folder(f"--output {output}", existing)


def _refuse_folder(flag: str, folder: Path) -> None:
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{flag}: {folder} {wrong}", hint=f"mkdir -p {folder}, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{flag}: nothing can be written in {folder}", hint="name another folder")


def announce(
    options: "RunOptions", chosen: Any, shown: _progress.Screen, earlier: "Run | None" = None
) -> None:
    """Say what is going to be measured, and for how long."""
    from isobench.config.options import UNBOUNDED

    if earlier is not None:
        done, planned = earlier.begun, options.maximum_blocks
        left = (
            "" if options.budget >= UNBOUNDED else f", for {duration_text(options.budget)} at most"
        )
        shown.say(
            f"Going on with {earlier.path}: {done} of at most {planned} blocks are there{left}."
        )
    cells = len(chosen.able) * len(chosen.workloads)
    if options.quick:
        length = "a quick look, no verdicts"
    elif options.budget >= UNBOUNDED:
        length = f"{options.maximum_blocks} blocks"
    else:
        length = f"budget {duration_text(options.budget)}"
    shown.say(
        f"Measuring {counted(len(chosen.workloads), 'workload')}"
        f" in {counted(len(chosen.able), 'target')}"
        f" ({cells} cells), {length}."
    )
