"""What Docker and Podman share: images made from nothing, labels, the ladder of settings. No engine
is touched here.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.model import Abi, Promise, Relation, Stage, Technology
from isobench.targets import _elf

LABEL: Final = "isobench"
OWNER_LABEL: Final = "isobench.owner"
REPOSITORY: Final = "localhost/isobench/stage"
PROBE_IMAGE: Final = "localhost/isobench/probe:1"
INSIDE: Final = "/scratch"
AGENT: Final = f"{Stage.INSIDE}/_agent"

PROMISES: Final = (
    Promise(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
    *(
        Promise(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
        for space in ("ipc", "mnt", "net", "pid", "uts")
    ),
    Promise(key="host.canary_readable", relation=Relation.EQUALS, value=False),
)
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}


def image_name(stage: Stage) -> str:
    """Return the name of the image of a stage: its content decides."""
    return f"{REPOSITORY}:{stage.digest[:16]}"


def labels(owner: str) -> dict[str, str]:
    """Return the labels of everything isobench makes in an engine."""
    return {LABEL: "1", OWNER_LABEL: owner}


def _layer(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a tar of mount points and programs, the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("dev", "isobench", "proc", "scratch", "sys", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            folder.mode = 0o1777 if name in ("scratch", "tmp") else 0o755
            tar.addfile(folder)
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _archive(name: str, machine: str, layer: bytes) -> bytes:
    """Return an image in the format of `docker save`, which both engines load."""
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
    """Return the image of a stage: its payloads and nothing else; under another `name` where it is
    to go to a registry.
    """
    programs = sorted((stage.root / "isobench").iterdir())
    layer = _layer((f"isobench/{path.name}", path.read_bytes()) for path in programs)
    return _archive(name or image_name(stage), machine, layer)


def probe_archive(machine: str) -> bytes:
    """Return an image of 200 bytes of program: enough to see a container start."""
    return _archive(PROBE_IMAGE, machine, _layer([("isobench/answer", _elf.answering(machine))]))


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What a container engine is to isobench, and the options that all of them have."""

    technology: ClassVar[Technology] = Technology.CONTAINERIZATION
    abi: ClassVar[Abi | None] = None
    promises: ClassVar[tuple[Promise, ...]] = PROMISES
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "the engine makes a container from its cached image and starts it, as `run` does",
        "warm": "the engine starts a container that exists and is stopped, as `start` does",
        "exec": "the engine executes the payload in a container that runs, as `exec` does",
    }

    runtime: str = ""
    """OCI runtime ("runc", "crun", "runsc"); empty: the engine's own, or the first that works."""
    network: str = "none"
    """Network mode; "none" leaves the network's set-up out of the start-up figures."""
    security_opt: tuple[str, ...] = ()
    """As `--security-opt`."""
    memory: str = ""
    """Limit, as `--memory`; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One way to ask an engine for a container. Empty means the engine's default."""

    runtime: str = ""
    cgroup_manager: str = ""
    limits: bool = False
    """Ask for low limits of files and processes: an engine's defaults may exceed what this host
    allows.
    """

    def words(self) -> str:
        """Return the settings in words, for the report."""
        parts = [
            self.runtime or "its default runtime",
            f"cgroup manager {self.cgroup_manager}" if self.cgroup_manager else "",
            "lowered limits of files and processes" if self.limits else "",
        ]
        return ", ".join(part for part in parts if part)


LIMITS: Final = (("nofile", 1024), ("nproc", 4096))


def ladder(runtimes: Iterable[str], managers: Iterable[str] = ("",)) -> Iterator[Settings]:
    """Yield settings to try, the engine's own defaults first: the first that starts a container is
    used.
    """
    for runtime in runtimes:
        for manager in managers:
            for limits in (False, True):
                yield Settings(runtime=runtime, cgroup_manager=manager, limits=limits)


def start_daemon_hint(service: str, daemon: str) -> str:
    """Return what to type to start an engine's daemon on this host."""
    sudo = "" if os.geteuid() == 0 else "sudo "  # root's machine need not have it
    if Path("/run/systemd/system").is_dir():
        return f"{sudo}systemctl start {service}"
    return f"{sudo}sh -c 'setsid {daemon} >/var/log/{daemon}.log 2>&1 &'"
