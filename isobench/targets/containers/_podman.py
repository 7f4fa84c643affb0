"""Podman's command line, for every target that stands on it: calls, settings that work here, the
removal of what isobench has made.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isobench.config import paths
from isobench.model import Leftover, Resource, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, seconds
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.shared import disks, elf, oci, prefixes, processes

CALL: Final = seconds(120)
"""Time limit of a command of Podman's that should take a second."""
NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, kw_only=True)
class Options(oci.Engine):
    """What may be said of Podman's containers."""

    runtime_flags: tuple[str, ...] = ()
    """As `--runtime-flag`: "platform=ptrace" for runsc."""

    @property
    def executes(self) -> Sequence[str]:
        """Which options are commands: a runtime by its path is, one that Podman knows is not."""
        return ("runtime", "runtime_flags") if "/" in self.runtime else ("runtime_flags",)

    def flags(self) -> tuple[tuple[str, ...], ...]:
        """Return what to tell the runtime: choices, the plainest first."""
        if oci.kernel(self.runtime) is not oci.Kernel.SENTRY:
            return (self.runtime_flags,)
        # runsc has a network of its own to be chosen beside the container's, and it makes cgroups
        # where an ordinary user may make none.
        network = [f"network={self.network}"] if self.network in ("none", "host") else []
        flags = (*network, *self.runtime_flags)
        return (flags, ("ignore-cgroups", *flags))


_working: dict[Options, oci.Settings] = {}
_CONTROLLERS: Final = {
    Resource.CPU: {"cpu"},
    Resource.MEMORY: {"memory"},
    Resource.PROCESSES: {"pids"},
    Resource.IO: {"io", "blkio"},
}


def limitable(engine: Options) -> list[Resource]:
    """Return what cgroups limit for this user; nothing where Podman does not say."""
    try:
        said = info(*before_the_verb(working(engine))).get("host", {})
    except (SessionError, ValueError):
        return []
    own = set(said.get("cgroupControllers") or ())
    return [
        resource
        for resource, names in _CONTROLLERS.items()
        if names & own and (resource is not Resource.IO or storage_disk() is not None)
    ]


def adopt(engine: Options, other: Options) -> None:
    """Start containers of `engine` with the settings that work for `other`."""
    if other in _working:
        _working[engine] = _working[other]


def run(
    *arguments: str,
    timeout: Nanoseconds = CALL,
    variables: Mapping[str, str] = NOTHING,
    folder: Path | None = None,
) -> Completed:
    """Run podman; SessionError when it cannot be executed at all.

    What starts a container begins in a `folder` that will be removed: the monitor that it leaves
    with the container writes a file named "oom" where it stands, once memory has run out.
    """
    try:
        return processes.run(
            ["podman", *arguments],
            timeout=timeout,
            env={**os.environ, **variables},
            folder=folder,
        )
    except OSError as error:
        raise SessionError(f"podman cannot be executed: {error}") from None


def must(
    *arguments: str,
    timeout: Nanoseconds = CALL,
    variables: Mapping[str, str] = NOTHING,
    folder: Path | None = None,
) -> bytes:
    """Run podman as `run` does and return what it says; SessionError when it fails."""
    done = run(*arguments, timeout=timeout, variables=variables, folder=folder)
    if done.exit_code != 0:
        verb = next((word for word in arguments if not word.startswith("-")), "")
        raise SessionError(f"podman {verb}: {processes.last_line(done.stderr)}")
    return done.stdout


def info(*options: str) -> Mapping[str, Any]:
    """Return what `podman info` says."""
    said = must(*options, "info", "--format", "json", timeout=seconds(60))
    loaded: Mapping[str, Any] = json.loads(said)
    return loaded


def working(engine: Options) -> oci.Settings:
    """Return settings with which a container starts; SessionError when none do.

    What worked last time is tried first: on a host where Podman's defaults fail, the search
    costs seconds.
    """
    if engine in _working:
        return _working[engine]
    if host_abi() is None:
        raise SessionError("no payloads for this host", hint="use Linux on x86_64 or aarch64")
    runtimes = [engine.runtime] if engine.runtime else ["", *filter(shutil.which, ("crun", "runc"))]
    rungs = itertools.chain(
        _remembered(engine), oci.candidate_settings(runtimes, ("", "cgroupfs"), engine.flags())
    )
    complaints: list[str] = []
    with prefixes.probe_root("run", "etc") as root:
        for settings in rungs:
            said = _trial(engine, settings, root)
            if not said:
                _working[engine] = settings
                _remember(engine, settings)
                return settings
            complaints.append(said)
    said = " and then ".join(dict.fromkeys((complaints[0], complaints[-1])))
    raise SessionError(
        f"podman is there, but no container starts: {said}", hint=_runtime_hint(said)
    )


def pairs(option: str, values: Mapping[str, str]) -> Iterator[str]:
    """Yield an option before each KEY=VALUE."""
    for key, value in values.items():
        yield option
        yield f"{key}={value}"


def before_the_verb(settings: oci.Settings) -> list[str]:
    """Return the settings that are options of podman itself."""
    return [
        *([f"--cgroup-manager={settings.cgroup_manager}"] if settings.cgroup_manager else []),
        *([f"--runtime={settings.runtime}"] if settings.runtime else []),
        *(f"--runtime-flag={flag}" for flag in settings.flags),
    ]


def options(engine: Options, settings: oci.Settings) -> list[str]:
    """Return the options of a container."""
    words = ["--network", engine.network]
    if settings.limits:
        for name, value in oci.LIMITS:
            words += ["--ulimit", f"{name}={value}:{value}"]
    for option in engine.security_opt:
        words += ["--security-opt", option]
    if engine.memory:
        words += ["--memory", engine.memory]
    if engine.pids:
        words += ["--pids-limit", str(engine.pids)]
    if engine.cpu_quota:
        words += ["--cpus", f"{engine.cpu_quota:g}"]
    if engine.write_limit:
        disk = storage_disk()
        if disk is None:
            raise SessionError(
                "write_limit limits a disk, and Podman's storage is on none",
                hint="leave out write_limit of this target in isobench.toml",
            )
        words += ["--device-write-bps", f"{disk}:{oci.rate(engine.write_limit)}"]
    return words


def storage_disk() -> str | None:
    """Return the disk that Podman's storage lies on; None where it is on none of its own."""
    disk = disks.disk_under(Path(info()["store"]["graphRoot"]))
    return None if disk is None else disk[0]


def _trial(engine: Options, settings: oci.Settings, root: Path) -> str:
    """Return why no container starts with these settings, or nothing when one did and answered."""
    done = run(
        *(*before_the_verb(settings), "run", "--rm", *options(engine, settings)),
        *pairs("--label", oci.labels(ownership.mine())),
        *("--rootfs", str(root), "/answer"),
        timeout=seconds(60),
    )
    if done.exit_code == 0 and done.stdout == elf.ANSWER:
        return ""
    return processes.last_line(done.stderr)


def memory() -> Path:
    """Return the file of settings that have worked: it is there once a container has started."""
    return paths.cache() / "podman-settings.json"


def _notes() -> dict[str, Any]:
    """Return the settings that have worked, by what was asked for."""
    with contextlib.suppress(OSError, ValueError):
        notes = json.loads(memory().read_text())
        if isinstance(notes, dict):
            return {asked: note for asked, note in notes.items() if isinstance(note, dict)}
    return {}


def _asked(engine: Options) -> str:
    return " ".join((engine.runtime, *engine.flags()[-1]))


def _remembered(engine: Options) -> Iterator[oci.Settings]:
    with contextlib.suppress(TypeError, KeyError):
        note = _notes()[_asked(engine)]
        yield oci.Settings(**{**note, "flags": tuple(note["flags"])})


def _remember(engine: Options, settings: oci.Settings) -> None:
    path = memory()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_notes() | {_asked(engine): dataclasses.asdict(settings)}))


def _runtime_hint(said: str) -> str:
    if "newuidmap" in said or "subuid" in said:
        return (
            "isobench doctor --install podman;"
            " sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
        )
    if "hybrid" in said:
        return (
            'runtime = "runc", which runs on hybrid cgroups as well; or start this machine with'
            " systemd.unified_cgroup_hierarchy=1"
        )
    if "cgroup" in said:
        return (
            "isobench doctor --install podman (it brings runc, which also runs on hybrid cgroups)"
        )
    return "podman run --rm --network none --rootfs / true, to see what it says"


def remove(name: str) -> None:
    """Remove a container with its anonymous volumes."""
    with contextlib.suppress(SessionError):
        run("rm", "--force", "--time", "0", "--volumes", "--ignore", name)


def sweep_containers(alive: Callable[[str], bool], *, label: str = oci.LABEL) -> list[Leftover]:
    """Remove and return containers with this label whose run has died. SessionError or
    ValueError: Podman does not answer.
    """
    removed = []
    said = must("ps", "--all", "--filter", f"label={label}", "--format", "json")
    for found in json.loads(said or b"[]") or ():
        if not alive((found.get("Labels") or {}).get(oci.OWNER_LABEL, "")):
            remove(found["Id"])
            removed.append(Leftover(what=f"podman container {found['Id'][:12]}"))
    return removed


def sweep_images(*, label: str = oci.LABEL) -> list[Leftover]:
    """Remove and return images with this label. Errors as `sweep_containers`."""
    removed = []
    said = must("images", "--filter", f"label={label}", "--format", "json")
    for image in json.loads(said or b"[]") or ():
        must("rmi", image["Id"])
        names = ", ".join(image.get("Names") or [image["Id"][:12]])
        removed.append(Leftover(what=f"podman image {names}"))
    return removed
