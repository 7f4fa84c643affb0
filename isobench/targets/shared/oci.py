"""What Docker and Podman share: images, labels, options, and the settings to try. Pure."""

import hashlib
import io
import itertools
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar, Final, Self

from isobench.config import trust
from isobench.evidence import cpu_share
from isobench.model import (
    Abi,
    Evidence,
    Expectation,
    Limits,
    Relation,
    Stage,
    Technology,
)
from isobench.model.errors import SessionError
from isobench.plugins import ownership
from isobench.targets.shared import closing, elf, hypervisors, processes, sentry

LABEL: Final = "isobench"
OWNER_LABEL: Final = "isobench.owner"
REPOSITORY: Final = "localhost/isobench/stage"
_OWN_IMAGE: Final = re.compile(r"localhost/isobench/[a-z]+:[0-9a-f]{16}")
_PROBE_IMAGE: Final = "localhost/isobench/probe"
BASED: Final = "localhost/isobench/based"
"""Images that consist of one of the user's and a layer with the payloads."""
MARK: Final = f"LABEL {LABEL}=1"
"""The instruction that makes an image isobench's when it is imported or committed."""
OF_A_COMMIT: Final = (MARK, f"LABEL {OWNER_LABEL}=")
"""The instructions of a commit: containers of the image would get its owner label."""
_IMAGE: Final = re.compile(r"[A-Za-z0-9][\w.:/@-]{0,254}", re.ASCII)
_FOLDERS: Final = ("dev", "isobench", "proc", "scratch", "sys", "tmp")
INSIDE: Final = "/scratch"
AGENT: Final = f"{Stage.INSIDE}/_agent"

_CANARY: Final = Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False)
EXPECTATIONS: Final = (
    Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
    *(
        Expectation(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
        for space in ("ipc", "mnt", "net", "pid", "uts")
    ),
    _CANARY,
)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}


def image_name(stage: Stage, base: str = "") -> str:
    """Return the name of a stage's image, or of the image with its payloads on another one, whose
    id is `base`. The tag is the hash of its content.
    """
    if not base:
        return f"{REPOSITORY}:{stage.digest[:16]}"
    digest = hashlib.sha256(f"{stage.digest} {base}".encode()).hexdigest()
    return f"{BASED}:{digest[:16]}"


def image_text(image: str, base: str) -> str:
    """Return the user's image with its id, for a version: another build is another version."""
    return f", image {image} {base.removeprefix('sha256:')[:12]}" if image else ""


def check_image(image: str) -> None:
    """Check the name of the user's image; empty: there is none. ValueError: it is no name."""
    if image and _IMAGE.fullmatch(image) is None:
        raise ValueError(f'image = "{image}": write the name of an image: "debian:12"')


def is_own_image(name: str) -> bool:
    """Return whether this is the name of an image that isobench keeps: it ends in a hash."""
    return _OWN_IMAGE.fullmatch(name) is not None


def owner_of(labels: Mapping[str, str] | None, names: Iterable[str]) -> str:
    """Return who made something with these labels and names; empty where it lacks isobench's mark.

    A name is a part of the mark: a container has all labels of its image, and an image those of the
    container that somebody has committed.
    """
    found = labels or {}
    owner = found.get(OWNER_LABEL, "") if found.get(LABEL) == "1" else ""
    return owner if owner in map(ownership.owner_of, names) else ""


def labels(owner: str) -> dict[str, str]:
    """Return the labels of everything that isobench makes in an engine."""
    return {LABEL: "1", OWNER_LABEL: owner}


def new_name(owner: str) -> str:
    """Return a name for something that isobench makes in an engine."""
    return f"{owner}-{os.urandom(4).hex()}"


def removed(what: str, remove: Callable[[], str]) -> AbstractContextManager[None]:
    """Return a context that removes something at its end; `remove` returns why that fails, or an
    empty string. SessionError: it stays.
    """

    def close(_: BaseException | None) -> None:
        if failure := remove():
            raise SessionError(f"the {what} stays: {failure}", hint="isobench clean --stale")

    return closing.closed_at_end(close)


def _layer(files: Iterable[tuple[str, bytes]], folders: Iterable[str] = _FOLDERS) -> bytes:
    """Return a tar of mount points and programs, the same bytes for the same content."""
    buffer = io.BytesIO()
    # A TarInfo has time 0 and owner 0 unless they are set: files of the host would bring theirs.
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            # Containers may run as any user: rootless, or with a user namespace.
            folder.mode = 0o1777 if name in ("scratch", "tmp") else 0o755
            tar.addfile(folder)
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _archive(name: str, machine: str, layer: bytes) -> bytes:
    """Return an image in the format of `docker save`, which Docker and Podman load.

    Source: the "Docker Image Specification v1.2.0" of moby, "Combined Image JSON + Filesystem
    Changeset Format"; the configuration is also OCI's (image-spec, config.md).
    """
    # A fixed date and sorted keys: the same content always has the same identity.
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES[machine],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Labels": {LABEL: "1"}, "WorkingDir": "/"},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "isobench"}],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member_name, content in (
            ("layer.tar", layer),
            (config_name, config),
            ("manifest.json", manifest.encode()),
        ):
            member = tarfile.TarInfo(member_name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def stage_archive(stage: Stage, machine: str, *, name: str = "") -> bytes:
    """Return the image of a stage, which holds its payloads and nothing else.

    Another `name` than `image_name` is for an image that goes to a registry.
    """
    return _archive(name or image_name(stage), machine, _layer(_programs(stage)))


def stage_layer(stage: Stage) -> bytes:
    """Return a tar of a stage's payloads, and of the folder for what they write, for an image that
    has everything else.
    """
    return _layer(_programs(stage), ("isobench", "scratch"))


def _programs(stage: Stage) -> Iterator[tuple[str, bytes]]:
    for path in sorted((stage.root / "isobench").iterdir()):
        yield f"isobench/{path.name}", path.read_bytes()


def probe_image() -> str:
    """Return the name of this process's probe image."""
    # One for each process: each removes its image when its probe is done.
    return f"{_PROBE_IMAGE}:{ownership.mine()}"


def probe_owner(name: str) -> str | None:
    """Return the owner of a probe image; None for any other image."""
    image, _, owner = name.rpartition(":")
    return owner if image == _PROBE_IMAGE else None


def probe_archive(machine: str) -> bytes:
    """Return an image with the probe program, which shows whether a container starts."""
    return _archive(
        probe_image(), machine, _layer([("isobench/answer", elf.probe_program(machine))])
    )


class Kernel(Enum):
    """The kernel on which an OCI runtime runs programs."""

    HOST = "the host's"
    SENTRY = "gVisor's"
    GUEST = "a virtual machine's"


_SENTRY_NAMES: Final = ("gvisor", "runsc")
_GUEST_NAMES: Final = ("kata", "krun")


def kernel(runtime: str) -> Kernel:
    """Return the kernel on which a runtime of this name or path runs programs.

    "runsc-kvm", "/usr/bin/runsc" and "io.containerd.runsc.v1" are gVisor; "kata-qemu" is a virtual
    machine; any other name is taken for a runtime on the host's kernel.
    """
    # A wrong guess is noticed: the evidence from inside contradicts the expectations, and no figure
    # is shown under a wrong heading.
    words = re.split(r"[^a-z]+", runtime.rpartition("/")[2].lower())
    if not set(words).isdisjoint(_SENTRY_NAMES):
        return Kernel.SENTRY
    return Kernel.HOST if set(words).isdisjoint(_GUEST_NAMES) else Kernel.GUEST


_TECHNOLOGIES: Final = {
    Kernel.HOST: Technology.CONTAINERIZATION,
    Kernel.SENTRY: Technology.SANDBOX,
    Kernel.GUEST: Technology.VIRTUALIZATION,
}
# Only for the host's kernel are namespaces compared: another kernel numbers its own.
_EXPECTATIONS: Final = {
    Kernel.HOST: EXPECTATIONS,
    Kernel.SENTRY: (*sentry.EXPECTATIONS, _CANARY),
    Kernel.GUEST: (
        Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST),
        *hypervisors.SIGNED,
        _CANARY,
    ),
}


def runtime_version(program: str) -> str | None:
    """Return the first line of a runtime's `--version`; None where it has none, or is no program
    that can be trusted.

    An engine names it, and the engine may be another user's, or one behind a socket that leads to
    another machine: it must not choose what is executed here.
    """
    found = shutil.which(program) if "\0" not in program else None
    if found is None or not Path(found).is_absolute() or trust.distrust(Path(found)):
        return None
    return (processes.output_of([found, "--version"]) or "").partition("\n")[0] or None


def witnessed(runtime: str, first_pid: object) -> Iterator[Evidence]:
    """Yield what the host sees of a container: its share of the CPU, and its kernel where that is
    a process (gVisor).
    """
    if not isinstance(first_pid, int) or first_pid <= 0:
        return
    # Where the engine runs in a machine of its own, the number belongs to any process here.
    if processes.is_first_in_pid_namespace(first_pid):
        yield from cpu_share.evidence(first_pid)
    if kernel(runtime) is Kernel.SENTRY:
        platform = sentry.platform(processes.process_tree(first_pid))
        yield Evidence(key="host.sentry.platform", value=platform, source="/proc/PID of the sentry")


_MAX_CPUS: Final = 4096.0
_RATE: Final = re.compile(r"(\d+)([bkmg]?)", re.IGNORECASE)
_UNITS: Final = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}


def rate(text: str) -> int:
    """Return the bytes a second in a value of `write_limit`, such as "8m"."""
    found = _RATE.fullmatch(text)
    assert found is not None  # `Engine` refuses any other value
    return int(found[1]) << _UNITS[found[2].lower()]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The options that all container engines share, and what follows from them.

    The runtime decides the technology and the expectations: Docker with runsc is a sandbox.
    """

    abi: ClassVar[Abi | None] = None
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "the engine makes a container from its cached image and starts it, as `run` does",
        "warm": "the engine starts a container that exists and is stopped, as `start` does",
        "exec": "the engine executes the payload in a container that runs, as `exec` does",
    }

    short_options: ClassVar[Mapping[str, str]] = {
        "seccomp": "security_opt=seccomp={}",
        "apparmor": "security_opt=apparmor={}",
    }
    """Short names of parts of an option, for `--vary`."""

    image: str = ""
    """An image that the engine has, to which the payloads are added; none is pulled. Empty: an
    image that has nothing but the payloads.
    """
    runtime: str = ""
    """OCI runtime ("runc", "crun", "runsc"); empty: the engine's default, or the first that works.
    """
    network: str = "none"
    """Network mode; "none" keeps the set-up of a network out of the start-up times."""
    security_opt: tuple[str, ...] = ()
    """As `--security-opt`: "seccomp=unconfined", or "seccomp=" with the path of a profile."""
    memory: str = ""
    """Limit, as `--memory`; empty: none."""
    pids: int = 0
    """Maximum number of processes, as `--pids-limit`; 0: the engine's default."""
    cpu_quota: float = 0.0
    """Maximum CPU time, in CPUs, as `--cpus`; 0: no limit."""
    write_limit: str = ""
    """Maximum bytes a second written to the disk of the engine's storage, as `--device-write-bps`:
    "8m"; empty: no limit.
    """

    def __post_init__(self) -> None:
        """Check the options. ValueError: one is not a limit, or no name of an image."""
        check_image(self.image)
        if self.pids < 0:
            raise ValueError(f"pids = {self.pids}: write a number of processes; 0: no limit")
        if not 0 <= self.cpu_quota < _MAX_CPUS:
            raise ValueError(f"cpu_quota = {self.cpu_quota:g}: write CPUs, as in 0.5; 0: no limit")
        if self.write_limit and _RATE.fullmatch(self.write_limit) is None:
            raise ValueError(
                f'write_limit = "{self.write_limit}": write bytes a second with b, k, m or g: "8m"'
            )

    def limited(self, limits: Limits) -> Self:
        """Return this target with these limits."""
        return replace(
            self,
            memory=f"{limits.memory}b",
            pids=limits.processes,
            cpu_quota=limits.cpus,
            write_limit=f"{limits.write_rate}b",
        )

    @property
    def technology(self) -> Technology:
        """Containerization, unless the runtime has a kernel of its own."""
        return _TECHNOLOGIES[kernel(self.runtime)]

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What evidence from inside must show, depending on the runtime's kernel."""
        return _EXPECTATIONS[kernel(self.runtime)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One set of settings to start containers with. Empty: the engine's default."""

    runtime: str = ""
    cgroup_manager: str = ""
    limits: bool = False
    """Whether to lower the limits of open files and processes to `LIMITS`."""
    flags: tuple[str, ...] = ()
    """Flags for the runtime."""

    def description(self) -> str:
        """Return a description of the settings, for the report."""
        parts = [
            self.runtime or "its default runtime",
            f"cgroup manager {self.cgroup_manager}" if self.cgroup_manager else "",
            "lowered limits of files and processes" if self.limits else "",
            f"runtime flags {' '.join(self.flags)}" if self.flags else "",
        ]
        return ", ".join(part for part in parts if part)


# Engines raise both limits by default. Where this process's own hard limits are lower and may not
# be raised (in a container, say), the runtime then fails: "setrlimit RLIMIT_NOFILE: Operation not
# permitted" of crun 1.8 under Podman 4.3.
LIMITS: Final = (("nofile", 1024), ("nproc", 4096))


def candidate_settings(
    runtimes: Iterable[str],
    managers: Iterable[str] = ("",),
    flags: Iterable[tuple[str, ...]] = ((),),
) -> Iterator[Settings]:
    """Yield the settings to try, in order: the engine's defaults first, then all combinations.

    The first that starts a container is used, so that a host that needs nothing special gets what
    its users get.
    """
    for runtime, manager, more in itertools.product(runtimes, managers, tuple(flags)):
        for limits in (False, True):
            yield Settings(runtime=runtime, cgroup_manager=manager, limits=limits, flags=more)


def start_daemon_hint(service: str, daemon: str) -> str:
    """Return the command that starts an engine's daemon on this host."""
    sudo = "" if os.geteuid() == 0 else "sudo "  # not installed on every machine
    if Path("/run/systemd/system").is_dir():
        return f"{sudo}systemctl start {service}"
    # Without systemd: in a session of its own, or the daemon would end with the user's shell.
    return f"{sudo}sh -c 'setsid {daemon} >/var/log/{daemon}.log 2>&1 &'"
