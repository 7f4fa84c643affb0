"""What commands read: configuration, claims, workloads, runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isobench.errors import UsageError

if TYPE_CHECKING:
    from isobench.model import Claim
    from isobench.registry import Registry
    from isobench.store import Run
    from isobench.wish import Wish


def registry_of(config: Path | None) -> tuple["Registry", Any]:
    from isobench import config as configuration
    from isobench.registry import Registry

    file, settings = configuration.found(config)
    return Registry(settings.targets, file=file), settings


def claims_of(file: Path | None, settings: Any, config: Path | None) -> "tuple[Claim, ...]":
    """Return the user's claims: those of a file named, else those of the configuration."""
    from isobench import claims
    from isobench import config as configuration

    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text"
            raise UsageError(f"{file}: {reason}", hint="name a claims file with --claims") from None
        return claims.load(text, origin=str(file))
    if not settings.claims:
        return ()
    origin, _ = configuration.found(config)
    text = Path(origin).read_text(encoding="utf-8")
    return claims.of_table(settings.claims, origin=origin, text=text)


def workloads_of(wish: "Wish") -> Any:
    from isobench import workloads
    from isobench.model import Schedule

    found = workloads.find(wish.folders)
    if wish.schedule is not Schedule.DUET:
        return workloads.select(found, wish.workloads)
    chosen = workloads.select(found, wish.workloads or ("cpu",))
    others = [workload.name for workload in chosen.values() if workload.group != "cpu"]
    if others:
        raise UsageError(
            f"--schedule duet measures work of the CPU alone: {', '.join(others)} cannot be",
            hint="--workloads cpu, or leave out --schedule duet",
        )
    return chosen


def latest() -> Path:
    """Return the newest run; UsageError where nothing has been measured yet."""
    from isobench import places

    latest = places.results() / "latest"
    if not latest.exists():
        raise UsageError(
            f"nothing has been measured in {places.results()} yet", hint="isobench run --quick"
        )
    return latest


def runs_at(names: Sequence[str]) -> list["Run"]:
    """Return runs by folder, zip, pattern, or "latest"."""
    import glob

    from isobench import store

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
    return [store.load(path) for path in found]
