"""What commands read: configuration, claims, workloads, runs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isobench.cli import _progress
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from isobench.config.options import RunOptions
    from isobench.model import Claim, Workload
    from isobench.model.units import WorkloadName
    from isobench.plugins.registry import Registry
    from isobench.storage.reader import Run


def registry_of(config: Path | None, named: Sequence[str] = ()) -> tuple["Registry", Any]:
    """Return all targets and the settings in force.

    The commands of a configuration that was found, and not named, run for the targets alone whose
    names the user has typed.
    """
    from isobench.config import file as configuration
    from isobench.plugins.registry import Registry

    found = configuration.find(config)
    for one in found.ignored:
        _progress.note(
            f"{one.path} is not obeyed: {one.reason}", hint=f"--config {one.path}, if you trust it"
        )
    registry = Registry(found.settings.targets, source=found.source, trusted=found.named)
    registry.permit(named)
    registry.names()  # looks for all targets: two may have one name
    report_plugins()
    return registry, found.settings


def report_plugins() -> None:
    """Print which plug-ins are not used, or not wholly, and why: once for each reason."""
    from isobench.plugins import entry_points

    for plugin, fault in entry_points.take_unreported():
        _progress.note(f"{plugin.kind} {plugin.name} of {plugin.origin}: {fault}", hint=fault.hint)


def configured_as_before(registry: "Registry", earlier: "Run") -> "Registry":
    """Return a registry in which targets are configured as in an earlier run; UsageError where that
    has commands that others may have written.
    """
    from isobench.config import trust
    from isobench.config.toml import Source
    from isobench.plugins.registry import Registry
    from isobench.plugins.untried import UntriedTarget

    tables = earlier.metadata.config.targets
    written = earlier.path / "run.json"
    if tables and (why := trust.distrust(written)):
        strict = Registry(tables, source=Source(origin=str(written)), trusted=False)
        commands = [name for name in tables if isinstance(strict.get(name), UntriedTarget)]
        if commands:
            raise UsageError(
                f"{written} has commands for {', '.join(commands)} and is not obeyed: {why}",
                hint="name the configuration of that run yourself: --config FILE",
            )
    return registry.with_tables(tables)


def claims_of(file: Path | None, settings: Any, config: Path | None) -> "tuple[Claim, ...]":
    """Return the user's claims: those of a file named, else those of the configuration."""
    from isobench import claims
    from isobench.config import file as configuration

    if file is not None:
        return claims.load_file(file)
    if not settings.claims:
        return ()
    found = configuration.find(config)
    return claims.of_table(settings.claims, origin=found.file, text=found.text)


def workloads_of(options: "RunOptions") -> Any:
    """Return the workloads to measure; PayloadError where one must be compiled and no compiler is
    here: before any target is looked for.
    """
    chosen = _named_workloads(options)
    _demand_payloads(chosen.values())
    return chosen


def _demand_payloads(chosen: "Iterable[Workload]") -> None:
    from isobench.model import host_abi
    from isobench.payload import build
    from isobench.workloads import loader

    host = host_abi()
    if host is not None:  # elsewhere nothing runs at all, which the run says
        # All that ship go into every stage. A plug-in's workload that cannot be built ends nothing.
        needed = [*loader.find().values(), *(each for each in chosen if not each.plugin)]
        build.demand(build.for_run(needed, [host], host))


def _named_workloads(options: "RunOptions") -> "dict[WorkloadName, Workload]":
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
            f"--schedule duet measures only work of the CPU, not {', '.join(others)}",
            hint=f"--workloads {','.join(classes.DUETS)}, or leave out --schedule duet",
        )
    return chosen


def latest() -> Path:
    """Return the newest run; UsageError where nothing has been measured yet."""
    from isobench.config import paths

    latest = paths.results() / "latest"
    if not latest.exists():
        raise UsageError(
            f"nothing has been measured in {paths.results()} yet", hint="isobench run --quick"
        )
    return latest


def say_if_going(path: Path) -> None:
    """Say that a run is still being measured, where it is."""
    from isobench.storage import lock

    if who := lock.writer_of(path):
        _progress.note(
            f"{path} is still going ({who}): these answers are of what it has measured until now",
            hint=f"isobench report {path}, when it has ended",
        )


def runs_at(names: Sequence[str]) -> list["Run"]:
    """Return runs by folder, zip, pattern, or "latest"."""
    import glob

    from isobench.storage import reader

    found: list[Path] = []
    for name in names:
        if name == "latest":
            found.append(latest().resolve())
        elif Path(name).exists() or not glob.has_magic(name):
            found.append(Path(name))
        else:
            # The link "latest" is another name for a run that the pattern has matched.
            matched = [Path(path) for path in sorted(glob.glob(name))]  # noqa: PTH207 - absolute or not
            matched = [path for path in matched if not path.is_symlink()]
            if not matched:
                raise UsageError(f"no run matches {name!r}", hint="name the folders of runs")
            found += matched
    for path in found:
        say_if_going(path)
    return [reader.load(path) for path in found]
