"""What commands print, and the files that they export."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isobench.cli import _progress
from isobench.cli._inputs import report_plugins
from isobench.cli._progress import as_called, program
from isobench.config import bounded, redaction
from isobench.model import FAILED_CAUSES, Leftover
from isobench.model.cleaning import cleaned
from isobench.model.errors import SessionError, UsageError
from isobench.model.wording import counted, duration_text
from isobench.report.exporters import EXPORTERS, of_plugins

if TYPE_CHECKING:
    from rich.console import Console

    from isobench.config.options import RunOptions
    from isobench.report.sheet import Sheet
    from isobench.report.write import Outcome
    from isobench.storage.reader import Run
    from isobench.storage.schema import Summary


def console_of(options: Mapping[str, Any]) -> "Console":
    """Return the console for people: standard error where an export goes to standard output."""
    to_stdout = "-" in requested_exports(options).values()
    return _progress.console_for(stderr=to_stdout, color=options["color"])


def show(outcome: "Outcome", options: Mapping[str, Any]) -> None:
    """Print the report of a run."""
    console = console_of(options)
    summary = outcome.summary.with_texts(as_called)
    if options["quiet"]:
        _show_headline(outcome, summary, console)
    else:
        from isobench.report import sections, text

        text.render(sections.build(summary), console)
        console.print(
            f"\nreport: {outcome.folder / 'report.html'}",
            style="bold",
            markup=False,
            soft_wrap=True,
        )
    if outcome.interrupted:
        # A run that was interrupted before its plan cannot be resumed.
        nothing = outcome.summary.run.headline.startswith("Nothing")
        resume = "" if nothing else f" Continue it with {program()} run --resume."
        console.print(
            f"Interrupted: the report shows what was measured until then.{resume}", markup=False
        )


def _show_headline(outcome: "Outcome", summary: "Summary", console: "Console") -> None:
    console.print(summary.run.headline, markup=False)
    failed = [gap for gap in summary.gaps if gap.cause in FAILED_CAUSES]
    if failed:
        first = f"{failed[0].target} {failed[0].workload}: {failed[0].detail}"
        console.print(f"{counted(len(failed), 'gap')}, the first: {first}", markup=False)
    # --quiet prints the path only where it is needed: for the details of a failure, and where the
    # report is not in the folder that the user named (the report of a zip).
    if failed or outcome.folder != outcome.source:
        path = f"report: {outcome.folder / 'report.html'}"
        console.print(path, markup=False, soft_wrap=True)


def requested_exports(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the file of each export that the options name, by the name of its exporter."""
    names = (*EXPORTERS, *of_plugins.exporters())
    found = {name: options.get(f"export_{name.replace('-', '_')}") for name in names}
    return {name: target for name, target in found.items() if target is not None}


def export(outcome: "Outcome", options: Mapping[str, Any]) -> None:
    """Write the exports that the options name.

    UsageError: an exporter of a plug-in failed. All other exports are written.
    """
    added = of_plugins.exporters()
    failed: list[str] = []
    for name, target in requested_exports(options).items():
        if name in EXPORTERS:
            write(target, EXPORTERS[name](outcome))
            continue
        try:
            text = added[name](outcome)
        except SessionError:
            failed.append(f"--export-{name} {target}")
        else:
            # Standard output may be a terminal: there, escape sequences of a plug-in must not
            # arrive. A file gets the text as it is.
            bare = cleaned(text.replace("\r\n", "\n"), longest=None) if target == "-" else text
            write(target, bare)
    report_plugins()
    if failed:
        raise UsageError(
            f"{', '.join(failed)}: not written, because of a fault of the plug-in",
            hint=f"when it is fixed: isobench report {outcome.folder} with the same option",
        )


def write(target: str, content: str | bytes) -> None:
    """Write a file, or to standard output ("-"). UsageError: it cannot be written."""
    # Exporters of isobench start from a summary without secrets; this is for those of plug-ins.
    content = redaction.text(content) if isinstance(content, str) else content
    if target == "-":
        click.echo(content, nl=isinstance(content, str))
        return
    try:
        bounded.write(Path(target), content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}", hint="name a writable file") from None


def publish(
    sheet: "Sheet",
    options: Mapping[str, Any],
    *,
    document: Callable[[], Mapping[str, Any]],
    csv: Callable[[], str],
) -> None:
    """Print a sheet, or only its closing sentence, and write the exports that the options name.

    `document` returns its content for JSON, `csv` its rows as CSV.
    """
    import json

    from isobench.report import sheet as module

    console = console_of(options)
    if options["quiet"]:
        console.print(sheet.closing, markup=False)
    else:
        module.render(sheet, console)
    texts: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(redaction.plain(document()), indent=1),
        "csv": csv,
        "markdown": lambda: module.markdown(sheet),
    }
    for kind, text in texts.items():
        if (target := options.get(f"export_{kind}")) is not None:
            write(target, text())


def leftover_text(leftover: Leftover) -> str:
    """Return the line that is printed about something that a killed run had left behind."""
    if leftover.failure:
        return f"not removed: {leftover.what}: {leftover.failure}"
    return f"removed {leftover.what}"


def refuse_unwritable(options: Mapping[str, Any]) -> None:
    """Check the paths of exports and of --output. UsageError: one cannot be written."""
    # A run takes minutes: an export must not fail after it, nor a plug-in be reported only then.
    for kind, target in requested_exports(options).items():
        if (exporter := of_plugins.exporters().get(kind)) is not None:
            exporter.check()
            report_plugins()
        if target == "-":
            continue
        path = Path(target)
        if path.is_dir():
            raise UsageError(f"--export-{kind} {path}: this is a folder", hint="name a file in it")
        _refuse_folder(f"--export-{kind} {path}", path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError(
                f"--export-{kind} {path}: the file is not writable", hint="name another file"
            )
    output = options.get("output")
    if output is not None:
        existing = next(
            folder for folder in (output, *output.absolute().parents) if folder.exists()
        )
        _refuse_folder(f"--output {output}", existing)


def _refuse_folder(flag: str, folder: Path) -> None:
    """Check that files can be created in a folder. UsageError: they cannot."""
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{flag}: {folder} {wrong}", hint=f"mkdir -p {folder}, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{flag}: the folder {folder} is not writable", hint="name another folder")


def announce(
    options: "RunOptions", chosen: Any, shown: _progress.Screen, earlier: "Run | None" = None
) -> None:
    """Print what will be measured, and for how long. `earlier`: the run that is resumed."""
    from isobench.config.options import UNBOUNDED

    if earlier is not None:
        done, planned = earlier.begun, options.maximum_blocks
        left = (
            "" if options.budget >= UNBOUNDED else f", for {duration_text(options.budget)} at most"
        )
        shown.say(f"Resuming {earlier.path}: {done} of at most {planned} blocks are done{left}.")
    cells = len(chosen.able) * len(chosen.workloads)
    if options.quick:
        length = "quick, no verdicts"
    elif options.budget >= UNBOUNDED:
        length = f"{options.maximum_blocks} blocks"
    else:
        length = f"budget {duration_text(options.budget)}"
    shown.say(
        f"Measuring {counted(len(chosen.workloads), 'workload')}"
        f" in {counted(len(chosen.able), 'target')}"
        f" ({cells} cells), {length}."
    )
