"""Podman's command line, for the targets that use it: calls, working settings, sweeps."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from isobench.config import cache
from isobench.model import Leftover, Resource, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, seconds
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.shared import cgroups, disks, elf, oci, prefixes, processes

CALL: Final = seconds(120)
"""Time limit of a command of Podman, which normally takes a second."""
_TRIAL: Final = seconds(40)
"""Time limit of the probe program in a container: shorter than a probe, so that the probe can say
itself that Podman does not answer, after it has removed the container.
"""
_NONE_SUCH: Final = 1
"""What `podman image exists` and `podman container exists` exit with where there is none: see
podman-image-exists(1).
"""
_ID: Final = re.compile(r"[0-9a-f]{64}")
"""The id of a container."""
_sweeping: Final = threading.Lock()
_ATTEMPTS: Final = 100
"""How often the removal of a cgroup is tried, 10 ms apart."""
_PROXIES: Final = frozenset({
    *("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy", "rsync_proxy"),
})  # fmt: skip
NO_VARIABLES: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, kw_only=True)
class Options(oci.Engine):
    """The options of Podman's containers."""

    runtime_flags: tuple[str, ...] = ()
    """As `--runtime-flag`: "platform=ptrace" for runsc."""

    @property
    def executes(self) -> Sequence[str]:
        """The options that are commands: a runtime's path is, a name that Podman knows is not.

        What follows the colon in a network are arguments: "pasta:--pcap,FILE" writes a file.
        """
        return (
            "runtime_flags",
            *(("runtime",) if "/" in self.runtime else ()),
            *(("network",) if ":" in self.network else ()),
        )

    def flags(self) -> tuple[tuple[str, ...], ...]:
        """Return the sets of flags for the runtime that are worth trying, the plainest first."""
        if oci.kernel(self.runtime) is not oci.Kernel.SENTRY:
            return (self.runtime_flags,)
        # runsc has a network option of its own beside the container's. It also makes cgroups, which
        # fails for an ordinary user who may make none.
        network = [f"network={self.network}"] if self.network in ("none", "host") else []
        flags = (*network, *self.runtime_flags)
        return (flags, ("ignore-cgroups", *flags))


_T = TypeVar("_T")
_working: dict[Options, oci.Settings] = {}
"""The settings that start a container, for this process."""
_CONTROLLERS: Final = {
    Resource.CPU: {"cpu"},
    Resource.MEMORY: {"memory"},
    Resource.PROCESSES: {"pids"},
    Resource.IO: {"io", "blkio"},
}


def limitable(engine: Options) -> list[Resource]:
    """Return the resources that cgroups can limit for this user; empty where that is unknown."""
    try:
        own = set(info(*global_options(working_settings(engine))).host.cgroup_controllers or ())
        found = [resource for resource, names in _CONTROLLERS.items() if names & own]
        without_disk = Resource.IO in found and storage_disk() is None
    except SessionError:
        return []
    return [one for one in found if not (one is Resource.IO and without_disk)]


def share_settings(engine: Options, other: Options) -> None:
    """Let containers of `engine` start with the settings that work for `other`."""
    if other in _working:
        _working[engine] = _working[other]


def environment() -> dict[str, str]:
    """Return the environment variables of podman: the user's, without those of proxies."""
    # Podman copies them into every container (containers.conf(5), http_proxy), and `kube play` has
    # no option against it: the password of a proxy would be in the payloads' environment. isobench
    # downloads nothing with podman.
    return {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}


def run(
    *arguments: str,
    timeout: Nanoseconds = CALL,
    variables: Mapping[str, str] = NO_VARIABLES,
    folder: Path | None = None,
) -> Completed:
    """Run podman in `folder`. SessionError: it cannot be executed.

    Commands that start a container need a folder that will be removed.
    """
    # conmon, the monitor that podman leaves with a container, writes a file "oom" into its working
    # directory when the container's memory has run out.
    try:
        return processes.run(
            ["podman", *arguments],
            timeout=timeout,
            env={**environment(), **variables},
            folder=folder,
        )
    except OSError as error:
        raise SessionError(f"podman cannot be executed: {error}") from None


def checked(
    *arguments: str,
    timeout: Nanoseconds = CALL,
    variables: Mapping[str, str] = NO_VARIABLES,
    folder: Path | None = None,
) -> bytes:
    """Run podman as `run` does and return its standard output. SessionError: it fails."""
    done = run(*arguments, timeout=timeout, variables=variables, folder=folder)
    if done.exit_code != 0:
        verb = next((word for word in arguments if not word.startswith("-")), "")
        silent = done.exit_code is None and not done.stderr
        why = "it does not answer" if silent else processes.last_line(done.stderr)
        raise SessionError(f"podman {verb}: {why}")
    return done.stdout


class _Runtime(msgspec.Struct):
    name: str | None = None
    path: str | None = None


class _Security(msgspec.Struct):
    rootless: bool | None = None


class _Host(msgspec.Struct, rename="camel"):
    cgroup_controllers: tuple[str, ...] | None = None
    cgroup_manager: str | None = None
    cgroup_version: str | None = None
    oci_runtime: _Runtime = msgspec.field(default_factory=_Runtime)
    security: _Security = msgspec.field(default_factory=_Security)


class _Store(msgspec.Struct, rename="camel"):
    graph_driver_name: str | None = None
    graph_root: str | None = None


class _Version(msgspec.Struct, rename="pascal"):
    version: str | None = None


class Info(msgspec.Struct):
    """Podman as it describes itself."""

    host: _Host = msgspec.field(default_factory=_Host)
    store: _Store = msgspec.field(default_factory=_Store)
    version: _Version = msgspec.field(default_factory=_Version)


def info(*options: str) -> Info:
    """Return the content of `podman info`. SessionError: it fails, or prints something else."""
    output = checked(*options, "info", "--format", "json", timeout=seconds(60))
    try:
        return msgspec.json.decode(output, type=Info)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SessionError(f"podman info: {error}") from None


def working_settings(engine: Options) -> oci.Settings:
    """Return the first settings with which a container starts. SessionError: none do."""
    if engine in _working:
        return _working[engine]
    if host_abi() is None:
        raise SessionError("no payloads for this host", hint="use Linux on x86_64 or aarch64")
    runtimes = [engine.runtime] if engine.runtime else ["", *filter(shutil.which, ("crun", "runc"))]
    possible = [*oci.candidate_settings(runtimes, ("", "cgroupfs"), engine.flags())]
    # The settings that worked last time come first: where Podman's defaults fail, the search takes
    # seconds. A file of the cache never adds settings: a runtime is a program.
    candidates = [*(one for one in _remembered(engine) if one in possible), *possible]
    errors: list[str] = []
    if not settings_cache().exists():
        _write_cache({})  # before the first start: a sweep looks if the file exists
    with prefixes.probe_root("run", "etc") as root:
        for settings in candidates:
            error = _start_error(engine, settings, root)
            if not error:
                _working[engine] = settings
                _remember(engine, settings)
                return settings
            errors.append(error)
    if not _cached():
        with contextlib.suppress(OSError):
            settings_cache().unlink()
    # Two errors may have two causes, as for crun 1.8 on hybrid cgroups: with the default limits
    # "setrlimit RLIMIT_NOFILE: Operation not permitted", with lower ones "cgroups in hybrid mode
    # not supported".
    both = " and then ".join(dict.fromkeys((errors[0], errors[-1])))
    raise SessionError(
        f"podman is installed, but no container starts: {both}", hint=_runtime_hint(both)
    )


def pairs(option: str, values: Mapping[str, str]) -> Iterator[str]:
    """Yield the option before each KEY=VALUE."""
    for key, value in values.items():
        yield option
        yield f"{key}={value}"


def global_options(settings: oci.Settings) -> list[str]:
    """Return the settings as options of podman itself, which come before the subcommand."""
    return [
        *([f"--cgroup-manager={settings.cgroup_manager}"] if settings.cgroup_manager else []),
        *([f"--runtime={settings.runtime}"] if settings.runtime else []),
        *(f"--runtime-flag={flag}" for flag in settings.flags),
    ]


def container_options(engine: Options, settings: oci.Settings) -> list[str]:
    """Return the options of a container. SessionError: its write_limit cannot be set."""
    # Whatever containers.conf says: no variables of the user's, and no image from elsewhere under
    # the name of one that is missing.
    arguments = ["--pull=never", "--http-proxy=false", "--env-host=false"]
    arguments += ["--network", engine.network]
    if settings.limits:
        for name, value in oci.LIMITS:
            arguments += ["--ulimit", f"{name}={value}:{value}"]
    for option in engine.security_opt:
        arguments += ["--security-opt", option]
    if engine.memory:
        arguments += ["--memory", engine.memory]
    if engine.pids:
        arguments += ["--pids-limit", str(engine.pids)]
    if engine.cpu_quota:
        arguments += ["--cpus", f"{engine.cpu_quota:g}"]
    if engine.write_limit:
        disk = storage_disk()
        if disk is None:
            raise SessionError(
                "write_limit needs a disk, and Podman's storage is not on one",
                hint="remove write_limit of this target from isobench.toml",
            )
        arguments += ["--device-write-bps", f"{disk}:{oci.rate(engine.write_limit)}"]
    return arguments


def storage_disk() -> str | None:
    """Return the device path of the disk with Podman's storage, or None. SessionError: Podman
    fails.
    """
    root = info().store.graph_root
    disk = None if root is None else disks.disk_under(Path(root))
    return None if disk is None else disk[0]


def _start_error(engine: Options, settings: oci.Settings, root: Path) -> str:
    """Run the probe program in a container; return "" if it answered, else the last error.

    SessionError: podman does not end, as it would not with other settings either.
    """
    name = oci.new_name(ownership.mine())
    # Killing the command does not end the container: conmon, which holds it, is no child of it.
    finished = False
    try:
        done = run(
            *(*global_options(settings), "run", "--rm", *container_options(engine, settings)),
            *("--name", name),
            *pairs("--label", oci.labels(ownership.mine())),
            *("--rootfs", str(root), "/answer"),
            timeout=_TRIAL,
        )
        finished = done.exit_code is not None
    finally:
        if not finished:
            remove(name)
    if not finished:
        printed = f": {processes.last_line(done.stderr)}" if done.stderr else ""
        raise SessionError(f"podman run does not answer{printed}")
    if done.exit_code == 0 and done.stdout == elf.ANSWER:
        return ""
    return processes.last_line(done.stderr)


def settings_cache() -> Path:
    """Return the file of the settings that have worked. It exists once a container was started,
    unless none can be.
    """
    return cache.folder() / "podman-settings.json"


def _cached() -> dict[str, Any]:
    """Return the content of the file, by `_cache_key`; empty where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        cached = json.loads(settings_cache().read_text(encoding="utf-8"))
        if isinstance(cached, dict):
            return {key: entry for key, entry in cached.items() if isinstance(entry, dict)}
    return {}


def _cache_key(engine: Options) -> str:
    return " ".join((engine.runtime, *engine.flags()[-1]))


def _remembered(engine: Options) -> Iterator[oci.Settings]:
    with contextlib.suppress(TypeError, KeyError):
        entry = _cached()[_cache_key(engine)]
        yield oci.Settings(**{**entry, "flags": tuple(entry["flags"])})


def _remember(engine: Options, settings: oci.Settings) -> None:
    _write_cache(_cached() | {_cache_key(engine): dataclasses.asdict(settings)})


def _write_cache(known: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        cache.made()
        cache.replace(settings_cache(), json.dumps(known).encode())


def _runtime_hint(error: str) -> str:
    if "newuidmap" in error or "subuid" in error:
        return (
            "isobench doctor --install podman;"
            " sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
        )
    if "hybrid" in error:
        return (
            'runtime = "runc", which runs on hybrid cgroups as well; or boot this machine with'
            " systemd.unified_cgroup_hierarchy=1"
        )
    if "cgroup" in error:
        return (
            "isobench doctor --install podman (it brings runc, which also runs on hybrid cgroups)"
        )
    return "podman run --rm --network none --rootfs / true"


def remove(name: str) -> str:
    """Remove a container with its anonymous volumes; return why that fails, or an empty string."""
    return _failure("rm", "--force", "--time", "0", "--volumes", "--ignore", "--", name)


def remove_pod(pod: str) -> str:
    """Remove a pod with its containers; return why that fails, or an empty string."""
    return _failure("pod", "rm", "--force", "--time", "0", "--ignore", "--", pod)


def _failure(*arguments: str) -> str:
    """Let podman remove something; return why it fails, or an empty string."""
    failure = ""
    for _ in range(2):  # a process that ends at this moment can fail the first removal
        try:
            checked(*arguments)
        except SessionError as error:
            failure = str(error)
        else:
            return ""
    ownership.doubt()
    return failure


class Listed(msgspec.Struct):
    """A container, or a pod, in a list of Podman's."""

    id: str = msgspec.field(name="Id")
    labels: Mapping[str, str] | None = msgspec.field(name="Labels", default=None)
    name: str = msgspec.field(name="Name", default="")
    names: tuple[str, ...] | None = msgspec.field(name="Names", default=None)
    """Those of a container; a pod has one name."""


class _State(msgspec.Struct, rename="pascal"):
    pid: int | None = None


class _HostConfig(msgspec.Struct, rename="pascal"):
    memory: int | None = None
    security_opt: tuple[str, ...] | None = None
    network_mode: str | None = None


class _Config(msgspec.Struct, rename="pascal"):
    labels: Mapping[str, str] | None = None


class Inspected(msgspec.Struct, rename="pascal"):
    """A container as Podman describes it."""

    runtime: str | None = msgspec.field(name="OCIRuntime", default=None)
    pod: str | None = None
    state: _State = msgspec.field(default_factory=_State)
    host_config: _HostConfig = msgspec.field(default_factory=_HostConfig)
    config: _Config = msgspec.field(default_factory=_Config)


def inspected(name: str) -> Inspected:
    """Return what Podman shows of a container. SessionError: Podman fails, or shows no such."""
    output = checked("inspect", name)
    try:
        (found,) = msgspec.json.decode(output, type=tuple[Inspected, ...])
    except (ValueError, RecursionError) as error:
        raise SessionError(f"podman inspect: {error}") from None
    return found


class _Image(msgspec.Struct):
    id: str = msgspec.field(name="Id")
    names: tuple[str, ...] | None = msgspec.field(name="Names", default=None)


def listed(kind: type[_T], *arguments: str) -> list[_T]:
    """Return what a command of Podman lists that has isobench's mark, by its type.

    SessionError: Podman does not answer, or with something else.
    """
    output = checked(*arguments, "--filter", f"label={oci.LABEL}=1", "--format", "json")
    try:
        return msgspec.json.decode(output or b"[]", type=list[kind] | None) or []  # type: ignore[valid-type]
    except (msgspec.DecodeError, RecursionError) as error:
        raise SessionError(f"podman {arguments[0]}: its list cannot be read: {error}") from None


def sweep(alive: Callable[[str], bool], *, images: bool) -> list[Leftover]:
    """Remove what runs that have died left with Podman, and with `images` isobench's images, and
    return it.
    """
    # Three targets use Podman and sweep at the same time, and each shall find nothing left when it
    # returns: the next waits until the first is done. Pods come before their containers, which
    # another isobench that removes the pod at this moment may have left in the list.
    removed: list[Leftover] = []
    with _sweeping:
        try:
            removed += _sweep_pods(alive)
            removed += _sweep_containers(alive)
            removed += _sweep_forgotten(alive)
            removed += _sweep_storage(alive)
            removed += _sweep_images() if images else []
        except SessionError as error:
            removed.append(Leftover(what="what podman may have left", failure=str(error)))
    return removed


def _dead(alive: Callable[[str], bool], *arguments: str) -> list[Listed]:
    """Return the pods or containers in a list of Podman's whose run has died."""
    return [
        one
        for one in listed(Listed, *arguments)
        if not alive(oci.owner_of(one.labels, (one.name, *(one.names or ()))))
    ]


def _sweep_pods(alive: Callable[[str], bool]) -> list[Leftover]:
    return [
        Leftover(what=f"podman pod {pod.name}", failure=remove_pod(pod.id))
        for pod in _dead(alive, "pod", "ps")
    ]


def _sweep_containers(alive: Callable[[str], bool]) -> list[Leftover]:
    return [
        Leftover(what=f"podman container {one.id[:12]}", failure=remove(one.id))
        for one in _dead(alive, "ps", "--all")
    ]


def _sweep_storage(alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove containers that Podman knows only as storage: it was killed before it had written the
    rest. They have no labels and keep an image in use; their names begin with an owner.
    """
    form = "{{.ID}} {{.Names}} {{.Status}}"
    done = run("ps", "--all", "--external", "--format", form)
    removed = []
    for line in processes.text(done.stdout).splitlines() if done.exit_code == 0 else ():
        container, _, rest = line.partition(" ")
        name, _, status = rest.partition(" ")
        owner = ownership.owner_of(name)
        if status == "Storage" and owner and not alive(owner):
            what = f"podman container {name}, of which there is only storage"
            removed.append(Leftover(what=what, failure=remove(container)))
    return removed


def _sweep_forgotten(alive: Callable[[str], bool]) -> list[Leftover]:
    """End the monitors of containers that Podman no longer knows, with the containers' processes.

    Podman that is killed at a certain moment of a start has the container not yet in its list, and
    its monitor (conmon) runs already. The name of the container is one of its arguments.
    """
    removed = []
    store: str | None = None
    for pid, words in processes.own("conmon"):
        options = dict(itertools.pairwise(words))
        name, container = options.get("-n", ""), options.get("-c", "")
        owner = ownership.owner_of(name)
        if not owner or alive(owner) or not _ID.fullmatch(container):
            continue
        # One that Podman knows has labels, which say whose it is: the user may have given it this
        # name, or another one since. One in another store is known there.
        if store is None:
            store = info().store.graph_root or ""
        is_ours = options.get("-b", "").startswith(f"{store}/")
        if not is_ours or run("container", "exists", container).exit_code != _NONE_SUCH:
            continue
        left = processes.end_tree(pid)
        failure = remove(container)
        if left:
            failure = f"processes {', '.join(map(str, left))} do not end"
        for folder in cgroups.named(f"libpod-{container}"):
            failure = failure or cgroups.remove(folder, attempts=_ATTEMPTS)
        what = f"podman container {name}, which Podman has forgotten"
        removed.append(Leftover(what=what, failure=failure))
    return removed


def _sweep_images() -> list[Leftover]:
    removed = []
    for image in listed(_Image, "images"):
        # As for Docker: labels alone are no mark of an image.
        for name in filter(oci.is_own_image, image.names or ()):
            try:
                checked("rmi", name)
            except SessionError as error:
                # Another isobench may sweep as well.
                if run("image", "exists", name).exit_code != _NONE_SUCH:
                    removed.append(Leftover(what=f"podman image {name}", failure=str(error)))
            else:
                removed.append(Leftover(what=f"podman image {name}"))
    return removed
