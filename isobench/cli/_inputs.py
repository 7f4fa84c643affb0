"""What commands read: configuration, claims, workloads, runs."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isobench.cli import _progress
from isobench.config import bounded, cache, redaction
from isobench.model import commands
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from isobench.config.file import Configuration
    from isobench.config.options import RunOptions
    from isobench.history.store import Store
    from isobench.model import Claim, Workload
    from isobench.model.units import WorkloadName
    from isobench.plugins.registry import Registry
    from isobench.storage.reader import Run

_T = TypeVar("_T")


def _once(file: Path | None, read: Callable[[], _T]) -> _T:
    """Return what `read` returns about a file, which a command reads once: it may be a pipe, as in
    --claims <(command), and a command that measures twice needs it twice.
    """
    context = click.get_current_context(silent=True)
    kept: Any = {} if context is None else context.find_root().meta
    key = f"{read.__qualname__}({file})"
    if key not in kept:
        kept[key] = read()
    found: _T = kept[key]
    return found


def configuration_of(config: Path | None) -> "Configuration":
    """Return the configuration in force; `config` is the file of --config."""
    from isobench.config import file as configuration

    return _once(config, lambda: configuration.find(config))


def registry_of(config: Path | None, named: Sequence[str] = ()) -> tuple["Registry", Any]:
    """Return the registry of targets, and the settings in force.

    `named` are the targets that the user typed: only for these may commands run that stand in a
    configuration file which isobench found by itself.
    """
    from isobench.plugins.registry import Registry

    cache.folder()  # a cache that is not safe is refused before anything in it is used
    found = configuration_of(config)
    for one in found.ignored:
        _progress.note(
            f"{one.path} is ignored: {one.reason}",
            hint=f"--config {commands.path(one.path)}, if you trust it",
        )
    redaction.learn(found.settings.targets)
    if redaction.is_leaving_out_names():
        redaction.leave_out_names(redaction.names_in(found.settings.targets))
    registry = Registry(found.settings.targets, source=found.source, trusted=found.named)
    registry.permit(named)
    registry.names()  # finds all targets, and with them names that two plug-ins use
    report_plugins()
    return registry, found.settings


def report_plugins() -> None:
    """Print which plug-ins are not used, or not completely, and why; each reason once."""
    from isobench.plugins import entry_points, surroundings

    for changed in surroundings.take_unreported():
        _progress.note(str(changed), hint=changed.hint)
    for plugin, fault in entry_points.take_unreported():
        _progress.note(f"{plugin.kind} {plugin.name} of {plugin.origin}: {fault}", hint=fault.hint)


def configured_as_before(registry: "Registry", earlier: "Run") -> "Registry":
    """Return a registry with the targets configured as in an earlier run.

    UsageError: the configuration in run.json has commands, and others may have written that file.
    """
    from isobench.config import trust
    from isobench.config.toml import Source
    from isobench.plugins.registry import Registry
    from isobench.plugins.untried import UntriedTarget

    tables = earlier.metadata.config.targets
    incomplete = [name for name, table in tables.items() if redaction.has_mark(table)]
    if incomplete:
        raise UsageError(
            f"{earlier.path} cannot be resumed without its configuration: run.json leaves out"
            f" secrets or names of {', '.join(incomplete)}",
            hint="name the configuration of that run: --config FILE",
        )
    written = earlier.path / "run.json"
    # Anybody may have sent this folder. Its options are data, but its commands would run here with
    # the rights of the user: so they need the same permission as those of an isobench.toml.
    if tables and (why := trust.distrust(written)):
        strict = Registry(tables, source=Source(origin=str(written)), trusted=False)
        commands = [name for name in tables if isinstance(strict.get(name), UntriedTarget)]
        if commands:
            raise UsageError(
                f"{written} has commands for {', '.join(commands)} and is not trusted: {why}",
                hint="name the configuration of that run: --config FILE",
            )
    return registry.with_tables(tables)


def claims_of(file: Path | None, settings: Any, config: Path | None) -> "tuple[Claim, ...]":
    """Return the user's claims: those in `file`, or else those in the configuration.

    UsageError: a file cannot be read, or a claim is wrong.
    """
    from isobench import claims

    if file is not None:
        return _once(file, lambda: claims.load_file(file))
    if not settings.claims:
        return ()
    found = configuration_of(config)
    return claims.of_table(settings.claims, origin=found.file, text=found.text)


def refuse_ignored_claims(options: Mapping[str, Any]) -> None:
    """Raise UsageError where --fail-on claim is given, and a configuration that may have claims is
    ignored.
    """
    if "claim" not in options["fail_on"] or options["claims"]:
        return
    for one in configuration_of(options["config"]).ignored:
        raise UsageError(
            f"--fail-on claim: {one.path} may have claims, and is ignored: {one.reason}",
            hint=f"--config {commands.path(one.path)}, if you trust it, or --claims FILE",
        )


def note_without_claims(fail_on: Collection[str], *, found: bool) -> None:
    """Print a note where --fail-on claim is given and none of the user's claims is `found`."""
    if "claim" in fail_on and not found:
        _progress.note(
            "--fail-on claim: there is no claim of yours to judge",
            hint="--claims FILE, or tables [[claims]] in isobench.toml; --fail-on documents means"
            " the documents' sentences",
        )


def workloads_of(options: "RunOptions") -> Any:
    """Return the workloads that the options select, by name.

    UsageError: a name is unknown, or the schedule cannot measure a workload. PayloadError: a
    payload must be compiled, and there is no compiler.
    """
    chosen = _selected_workloads(options)
    _check_payloads(chosen.values())
    return chosen


def _check_payloads(chosen: "Iterable[Workload]") -> None:
    from isobench.model import host_abi
    from isobench.payload import build
    from isobench.workloads import loader

    host = host_abi()
    # On any other machine no target can run, and the run reports that.
    if host is not None:
        # All workloads of isobench are part of every stage, selected or not. A workload of a
        # plug-in that cannot be built must not end the run.
        needed = [*loader.find().values(), *(each for each in chosen if not each.plugin)]
        build.demand(build.for_run(needed, [host], host))


def _selected_workloads(options: "RunOptions") -> "dict[WorkloadName, Workload]":
    from isobench.model import Schedule
    from isobench.plugins import workload_folders
    from isobench.workloads import classes, loader

    found = workload_folders.find(options.folders)
    report_plugins()
    if options.schedule is not Schedule.DUET:
        return loader.select(found, options.workloads)
    chosen = loader.select(found, options.workloads or classes.DUETS)
    others = [one.name for one in chosen.values() if not classes.get(one.class_name).duets]
    if others:
        raise UsageError(
            f"--schedule duet measures only CPU work, not {', '.join(others)}",
            hint=f"--workloads {','.join(classes.DUETS)}, or leave out --schedule duet",
        )
    return chosen


def refuse_links(path: Path) -> None:
    """Check that no link of another user decides where a path leads. UsageError: one does."""
    try:
        bounded.check_links(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="name another path") from None


def latest() -> Path:
    """Return the folder of the newest run. UsageError: there is none, or a link of another user
    says which it is.
    """
    from isobench.config import paths

    latest = paths.results() / "latest"
    refuse_links(latest)
    if not latest.exists():
        raise UsageError(
            f"nothing has been measured in {paths.results()} yet", hint="isobench run --quick"
        )
    return latest


def run_at(path: Path | None) -> Path:
    """Return the run of an argument RUN: without one, and for "latest", the newest run.

    UsageError: there is none.
    """
    return latest() if path is None or str(path) == "latest" else path


def warn_if_running(path: Path) -> None:
    """Print a note where a run is still being measured."""
    from isobench.storage import lock

    if who := lock.writer_of(path):
        _progress.note(
            f"{path} is still being measured ({who}): this report covers what it has so far",
            hint=f"isobench report {commands.path(path)}, when it has ended",
        )


def warn_of_losses(run: "Run") -> None:
    """Print a note where records of a run are missing or damaged."""
    from isobench.analysis.cells import loss_doubts

    for doubt in loss_doubts(run):
        _progress.note(f"{run.path}: {doubt.detail}", hint=doubt.advice)


def store_at(folder: Path | None) -> "Store":
    """Return the history in a folder, or else that of the user."""
    from isobench.config import paths
    from isobench.history.store import Store

    return Store(folder or paths.history())


def runs_at(names: Sequence[str]) -> list["Run"]:
    """Return the runs that `names` name: folders, zips, patterns, or "latest".

    UsageError: a name is not a run, or a pattern matches none.
    """
    return [run_in(path) for path in paths_of_runs(names)]


def run_in(path: Path) -> "Run":
    """Return the run in a folder or zip, with notes on what it lacks. UsageError: it is no run."""
    from isobench.storage import reader

    warn_if_running(path)
    run = reader.load(path)
    warn_of_losses(run)
    return run


def paths_of_runs(names: Sequence[str]) -> list[Path]:
    """Return the paths that `names` name: folders, zips, patterns, or "latest".

    UsageError: a pattern matches none.
    """
    import glob

    found: list[Path] = []
    for name in names:
        if name == "latest":
            found.append(latest().resolve())
        elif Path(name).exists() or not glob.has_magic(name):
            found.append(Path(name))
        else:
            # A link, such as "latest", is another name of a run that the pattern matches as well.
            # That run must not count twice.
            matched = [Path(path) for path in sorted(glob.glob(name))]  # noqa: PTH207 - absolute or not
            matched = [path for path in matched if not path.is_symlink()]
            _note_unseen(Path(name))
            if not matched:
                raise UsageError(f"no run matches {name!r}", hint="name the folders of runs")
            found += matched
    return found


def _note_unseen(pattern: Path) -> None:
    """Print a note for each folder that a pattern leads through and that cannot be looked into:
    glob passes over it.
    """
    import glob

    for part, parent in zip((pattern, *pattern.parents), pattern.parents, strict=False):
        if not glob.has_magic(str(part)):
            break
        above = str(parent)
        matched = glob.glob(above) if glob.has_magic(above) else [above]  # noqa: PTH207 - absolute or not
        for folder in map(Path, matched):
            try:
                if glob.has_magic(part.name):
                    next(folder.iterdir(), None)
                else:
                    (folder / part.name).lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                fault = bounded.unreadable(folder, error, "its runs are")
                _progress.note(str(fault), hint=fault.hint)
