"""What commands print, and the files that they export."""

import os
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isobench.cli import _progress
from isobench.cli._inputs import refuse_links, report_plugins
from isobench.cli._progress import as_called
from isobench.config import bounded, redaction
from isobench.model import FAILED_CAUSES, Leftover, commands
from isobench.model.errors import IsobenchError, SessionError, UsageError
from isobench.model.wording import counted, duration_text, listed
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
    # The path of this isobench may have the name of a user in it.
    summary = outcome.summary.with_texts(as_called).redacted()
    if options["quiet"]:
        _show_headline(outcome, summary, console)
    else:
        from isobench.report import sections, text

        text.render(sections.build(summary), console)
        _show_failures(summary, console)
        console.print(
            f"\nreport: {outcome.folder / 'report.html'}",
            style="bold",
            markup=False,
            soft_wrap=True,
        )
    if outcome.interrupted:
        console.print(_interrupted(outcome), markup=False, soft_wrap=True)
    note_moved(outcome)


def note_moved(outcome: "Outcome") -> None:
    """Print a note where the path of a run leads elsewhere now."""
    if outcome.moved:
        _progress.note(outcome.moved, hint="the report is there, and not at that path")


def _interrupted(outcome: "Outcome") -> str:
    """Return what an interruption means for a run."""
    if outcome.summary.run.complete:
        return "Interrupted when everything had been measured: the run is complete."
    # A run that was interrupted before its plan cannot be resumed.
    resume = f" Continue it with {as_called(outcome.resume)}" if outcome.resume else ""
    return f"Interrupted: the report shows what was measured until then.{resume}"


def _show_headline(outcome: "Outcome", summary: "Summary", console: "Console") -> None:
    console.print(summary.run.headline, markup=False)
    failed = _show_failures(summary, console)
    # --quiet prints the path only where it is needed: for the details of a failure, and where the
    # report is not in the folder that the user named (the report of a zip).
    if failed or outcome.folder != outcome.source:
        path = f"report: {outcome.folder / 'report.html'}"
        console.print(path, markup=False, soft_wrap=True)


def _show_failures(summary: "Summary", console: "Console") -> bool:
    """Print how many cells failed, and why the first did; return whether one did. It is the reason
    of the exit code, so it stands where the eye is: above the prompt.
    """
    failed = [gap for gap in summary.gaps if gap.cause in FAILED_CAUSES]
    if failed:
        first = f"{failed[0].target} {failed[0].workload}: {failed[0].detail}"
        console.print(f"{counted(len(failed), 'gap')}, the first: {first}", markup=False)
    return bool(failed)


def requested_exports(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the file of each export that the options name, by the name of its exporter."""
    names = (*EXPORTERS, *of_plugins.exporters())
    found = {name: options.get(f"export_{name.replace('-', '_')}") for name in names}
    return {name: target for name, target in found.items() if target is not None}


def export(outcome: "Outcome", options: Mapping[str, Any]) -> int:
    """Write the exports that the options name, and then print which could not be written; return
    the exit code for that: 0 or 2.
    """
    added = of_plugins.exporters()

    def made(name: str, target: str) -> str | bytes:
        if name in EXPORTERS:
            return EXPORTERS[name](outcome)
        try:
            return added[name](outcome)
        except SessionError:
            raise UsageError(
                f"--export-{name} {target}: not written, because of a fault of the plug-in",
                hint=f"when it is fixed: isobench report {commands.path(outcome.source)} with the"
                " same option",
            ) from None

    contents = {name: partial(made, name, to) for name, to in requested_exports(options).items()}
    return _write_all(contents, options)


def _write_all(
    contents: Mapping[str, Callable[[], str | bytes]], options: Mapping[str, Any]
) -> int:
    """Write exports, each to the file of its option; return 0, or 2 where one was not written."""
    failed: list[IsobenchError] = []
    for name, content in contents.items():
        target = requested_exports(options)[name]
        # One that cannot be written takes nothing from the others, nor from what was found.
        try:
            refuse_target(f"--export-{name}", Path(target))  # a run may have begun there since
            write(target, content())
        except IsobenchError as error:
            failed.append(error)
    report_plugins()
    for each in failed:
        _progress.note(str(each), hint=each.hint)
    return UsageError.exit_code if failed else 0


def refuse_target(
    flag: str, target: Path, *, begun: Path | None = None, packing: bool = False
) -> None:
    """Check that a file which the user names is none of those from which a run or a history is
    read: unlike a report, these cannot be made again. `begun` is the folder of a run that begins;
    a bundle may be made again (`packing`). UsageError: it is one of them, or lies behind another
    user's link.
    """
    if str(target) == "-":
        return
    refuse_links(target)
    # What is written may replace a link, or what it leads to.
    beside = os.path.realpath(target.parent)
    for path in {Path(os.path.realpath(target)), Path(beside, target.name)}:
        if _is_of_run(path, begun) or (not packing and _is_packed(path)):
            what = "the run"
        elif _is_of_history(path):
            what = "a history"
        else:
            continue
        message = f"{flag} {target}: this is a file of {what} itself"
        raise UsageError(message, hint="name another file")


def _is_of_run(path: Path, begun: Path | None) -> bool:
    from isobench.storage.documents import METADATA, PLAN
    from isobench.storage.lock import RECORDS
    from isobench.storage.schema import FINDINGS

    is_inside = path.parent.name in ("state", "logs")
    folder = path.parent.parent if is_inside else path.parent
    # A user may call an export run.json, and write it again: a run has more than that.
    has_run = (folder / METADATA).exists() and any((folder / x).exists() for x in (PLAN, RECORDS))
    has_run = has_run or (begun is not None and folder == Path(os.path.realpath(begun)))
    return has_run and (is_inside or path.name in (METADATA, PLAN, RECORDS, FINDINGS))


def _is_packed(path: Path) -> bool:
    """Return whether a file is a zip of a run."""
    from isobench.storage.files import UNREADABLE, Files

    try:
        if not (path.is_file() and zipfile.is_zipfile(path)):
            return False
        with Files(path):
            return True
    except (UsageError, *UNREADABLE):
        return False


def _is_of_history(path: Path) -> bool:
    from isobench.history.store import MARKER

    if path.name == MARKER:
        return path.exists()
    return any(
        (folder / MARKER).exists() and path.relative_to(folder).parts[0].startswith("machine=")
        for folder in path.parents[1:3]
    )


def write(target: str, content: str | bytes) -> None:
    """Write a file, or to standard output ("-"). UsageError: it cannot be written.

    `content` has no secrets: exporters start from a summary without any.
    """
    if target == "-":
        # Escape sequences of a plug-in, or a line of somebody's run that is a command of a runner,
        # must not arrive there. A file gets the text as it is.
        if isinstance(content, str):
            click.echo(_progress.harmless(content))
        else:
            click.echo(content, nl=False)
        return
    try:
        # Names of files on the command line may be no UTF-8.
        data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        bounded.write(Path(target), data)
    except BrokenPipeError:  # the reader of a pipe has left, as that of standard output may
        pass
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}", hint="name a writable file") from None


def publish(
    sheet: "Sheet",
    options: Mapping[str, Any],
    *,
    document: Callable[[], Mapping[str, Any]],
    csv: Callable[[], str],
) -> int:
    """Print a sheet, or only its closing sentence, and write the exports that the options name, as
    `export` does; return the exit code for that: 0 or 2.

    `document` returns its content for JSON, `csv` its rows as CSV.
    """
    import json

    from isobench.report import sheet as module

    sheet = module.redacted(sheet)
    console = console_of(options)
    if options["quiet"]:
        console.print(sheet.closing, markup=False)
    else:
        module.render(sheet, console)
    texts: dict[str, Callable[[], str | bytes]] = {
        "json": lambda: json.dumps(redaction.plain(document()), indent=1),
        "csv": csv,
        "markdown": lambda: module.markdown(sheet),
    }
    wanted = requested_exports(options)
    return _write_all({kind: text for kind, text in texts.items() if kind in wanted}, options)


def leftover_text(leftover: Leftover) -> str:
    """Return the line that is printed about something that a killed run had left behind."""
    if leftover.failure:
        return f"not removed: {leftover.what}: {leftover.failure}"
    return f"removed {leftover.what}"


def refuse_unwritable(options: Mapping[str, Any]) -> None:
    """Check the paths of exports and of --output. UsageError: one cannot or must not be written, or
    two go to standard output.
    """
    output = options.get("output")
    # One after the other they are a document of neither kind.
    printed = [kind for kind, target in requested_exports(options).items() if target == "-"]
    if len(printed) > 1:
        raise UsageError(
            f"{listed([f'--export-{kind} -' for kind in printed])}: standard output takes one"
            " export only",
            hint="name a file for each other one",
        )
    # A run takes minutes: an export must not fail after it, nor a plug-in be reported only then.
    for kind, target in requested_exports(options).items():
        if (exporter := of_plugins.exporters().get(kind)) is not None:
            exporter.check()
            report_plugins()
        if target == "-":
            continue
        path = Path(target)
        refuse_target(f"--export-{kind}", path, begun=output)
        if path.is_dir():
            raise UsageError(f"--export-{kind} {path}: this is a folder", hint="name a file in it")
        _refuse_folder(f"--export-{kind} {path}", path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError(
                f"--export-{kind} {path}: the file is not writable", hint="name another file"
            )
    if output is not None:
        existing = next(
            folder for folder in (output, *output.absolute().parents) if folder.exists()
        )
        _refuse_folder(f"--output {output}", existing)


def _refuse_folder(flag: str, folder: Path) -> None:
    """Check that files can be created in a folder. UsageError: they cannot."""
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        make = "" if folder.exists() else f"mkdir -p {commands.path(folder)}, or "
        raise UsageError(f"{flag}: {folder} {wrong}", hint=f"{make}name another")
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
