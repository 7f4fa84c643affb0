"""gVisor: a kernel in user space between a program and this host's kernel.

`runsc` runs an OCI bundle that isobench makes. Its root directory is the stage's, read-only. The
scratch directory is a bind mount, so that a file written inside is a file of the host. (`runsc do`
would keep written files in memory.) gVisor's kernel, the sentry, is a process of this host. Its
programs are not.

Source: gvisor.dev, "Platform Guide" and "Filesystem".
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from isobench.config import cache
from isobench.evidence import cpu_share
from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Fact,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    commands,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import agents, elf, kvm, prefixes, processes, sentry, userns

_OWN_FAILURE: Final = 128
"""runsc's exit code if runsc itself fails. No payload of isobench exits with it."""
_TRIAL_TIMEOUT: Final = seconds(20)
"""Limit for the probe program in a sandbox. On some hosts runsc hangs with --platform=kvm."""
_OWN_FLAGS: Final = ("root", "platform", "network", "rootless", "overlay", "overlay2", "log")
"""Flags that isobench sets itself. An overlay would keep files in memory, where fsync does nothing.
"""


@dataclass(frozen=True, kw_only=True)
class GvisorTarget:
    """A sandbox whose kernel is a program of the host."""

    name: ClassVar[TargetName] = TargetName("gvisor")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    executes: ClassVar[Sequence[str]] = ("program", "flags")
    expectations: ClassVar[tuple[Expectation, ...]] = (
        *sentry.EXPECTATIONS,
        Expectation(
            key="security.cap_effective", relation=Relation.EQUALS, value="0000000000000000"
        ),
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "runsc runs a new bundle: it starts a gofer, a sentry, then the payload",
        "warm": "runsc runs a bundle on the same root directory: it has no stopped instances",
        "exec": "isobench's agent in an open sandbox forks and executes the payload",
    }

    program: str = "runsc"
    """runsc: a name on PATH, or a path."""
    platform: Literal["", "systrap", "kvm", "ptrace"] = ""
    """How the sentry intercepts system calls. Empty: the first of these that works here."""
    network: Literal["none", "host"] = "none"
    """Network of the sandbox. With "none" its set-up is no part of the start-up figures."""
    rootless: bool = False
    """Use --rootless even for root. Ordinary users always do."""
    flags: tuple[str, ...] = ()
    """Further flags of runsc: "--directfs=false", "--file-access-mounts=exclusive"."""

    def __post_init__(self) -> None:
        """Raise ValueError for flags that isobench sets itself."""
        for flag in self.flags:
            name = flag.lstrip("-").partition("=")[0]
            if not flag.startswith("-") or name in _OWN_FLAGS:
                options = "program, platform, network and rootless"
                raise ValueError(
                    f"flags: leave out {flag!r}: isobench sets it, or it is no flag; use the"
                    f" options {options}"
                )

    def _programs(self) -> set[str]:
        """Return how the file of runsc may be called, that of a run with other options too."""
        path = Path(shutil.which(self.program) or self.program)
        return {"runsc", path.name, path.resolve().name}

    def _install(self) -> str:
        if self.program == "runsc":
            return "isobench doctor --install gvisor"
        return f"fix program = {self.program!r}: there is no such program; or leave it out"

    def probe(self) -> Availability:
        """Start a program of a few bytes in a sandbox."""
        if host_abi() is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="gVisor needs Linux")
        if shutil.which(self.program) is None:
            return Unavailable(lack=Lack.TOOL, what=self.program, hint=self._install())
        if self.platform == "kvm" and (refused := _kvm_refusal()):
            return refused
        try:
            platform = self._platform()
        except SessionError as error:
            return _refusal(str(error), error.hint)
        more = " ".join(("", *self.flags))
        kind = "rootless" if self._is_rootless() else "rootful"
        return Available(version=f"gVisor {_version(self.program)}, {platform}, {kind}{more}")

    def _is_rootless(self) -> bool:
        return self.rootless or os.geteuid() != 0

    def _platform(self) -> str:
        """Return the platform to use; it is searched once in each process.

        Raises SessionError if none works.
        """
        if self in _working:
            return _working[self]
        problems = []
        for platform in [self.platform] if self.platform else ("systrap", "kvm", "ptrace"):
            # On KVM-PVM the device opens, but an unmodified kernel does not run: runsc hangs there
            # with --platform=kvm, until the time limit of each trial.
            if platform == "kvm" and not self.platform and _kvm_refusal() is not None:
                continue
            problem = _trial(self, platform)
            if not problem:
                _working[self] = platform
                return platform
            problems.append(problem)
        raise SessionError(
            f"{self.program} starts no sandbox: {problems[-1]}",
            hint=f"{commands.path(self.program)} {'--rootless ' if self._is_rootless() else ''}"
            f"--network=none --platform={self.platform or 'ptrace'} do true",
        )

    def flagged(self, platform: str, instance: Path) -> list[str]:
        """Return runsc with its global flags for an instance; a subcommand follows."""
        return [
            *(self.program, f"--root={instance / _STATE}", f"--platform={platform}"),
            *(f"--network={self.network}", "--overlay2=none", "--ignore-cgroups"),
            *("--log=/dev/null", *(["--rootless"] if self._is_rootless() else [])),
            *self.flags,
        ]

    @contextlib.contextmanager
    def _bundle(
        self, platform: str, root: Path, scratch: Path, argv: Sequence[str], env: Mapping[str, str]
    ) -> Iterator[list[str]]:
        """Make a bundle and yield the command that runs it; remove it and runsc's state."""
        token = secrets.token_hex(4)
        instance = cache.made("gvisor") / f"{ownership.mine()}-{token}"
        instance.mkdir()
        try:
            # A state directory for each instance: whatever runsc leaves in it is removed with it.
            (instance / _STATE).mkdir()
            configuration = _configuration(root, scratch, argv, env)
            (instance / "config.json").write_text(json.dumps(configuration))
            command = self.flagged(platform, instance)
            yield [*command, "run", f"--bundle={instance}", f"isobench-{os.getpid()}-{token}"]
        finally:
            ownership.remove_own(instance)

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a sandbox whose first process is the agent."""
        platform = self._platform()
        scratch = processes.private_scratch(stage.scratch, "gvisor")
        agent = [f"{Stage.INSIDE}/_agent", "serve"]
        with (
            self._bundle(platform, stage.root, scratch, agent, {}) as words,
            agents.opened(words, environment=_environment()) as session,
        ):
            yield _Session(session=session, target=self, platform=platform)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a sandbox whose first process is the payload."""
        platform = self._platform()
        scratch = processes.private_scratch(stage.scratch, "gvisor")
        inside = [f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]]
        variables = command.environ(agents.INSIDE.scratch)
        with self._bundle(platform, stage.root, scratch, inside, variables) as words:
            command.on_phase(BEGIN)
            return _run(words, timeout=timeout, command=command)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End sandboxes of dead runs, and remove runsc's state of them."""
        del cached  # this target keeps nothing between runs
        removed = processes.sweep(alive)
        for instance in sorted(_folder().glob("isobench-*")):
            if not alive(instance.name.rpartition("-")[0]):
                # runsc, the sentry and the gofer execute the same file, and all have the folder of
                # the state as an argument.
                mark = f"--root={instance / _STATE}"
                ended = processes.sweep_marked(mark, self._programs(), "gvisor process")
                removed += ended
                # The folder is what a process that stays is found by next time.
                if not any(one.failure for one in ended):
                    removed.append(ownership.removed_folder(instance))
        return removed


_STATE: Final = "state"
_working: dict[GvisorTarget, str] = {}
"""The platform of each target. It is found once in each process: a search would be timed otherwise.
"""


def _folder() -> Path:
    """Return the folder of bundles; each exists as long as its sandbox."""
    return cache.folder("gvisor")


def _environment() -> dict[str, str]:
    return {**prefixes.host_path(), **processes.tied()}


def _configuration(
    root: Path, scratch: Path, argv: Sequence[str], env: Mapping[str, str]
) -> dict[str, object]:
    """Return the config.json of a bundle that executes `argv`.

    Source: OCI Runtime Specification 1.0.2, config.md and config-linux.md.
    """
    spaces = ("pid", "network", "ipc", "uts", "mount")
    bound = {
        "destination": agents.INSIDE.scratch,
        "type": "bind",
        "source": str(scratch),
        "options": ["rbind", "rw"],
    }
    # These file systems are of gVisor's kernel: none of them shows files of the host.
    kernels = (("proc", "proc"), ("dev", "tmpfs"), ("sys", "sysfs"), ("tmp", "tmpfs"))
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(argv),
            "env": [f"{key}={value}" for key, value in env.items()],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "isobench",
        "mounts": [
            *(
                {"destination": f"/{where}", "type": kind, "source": kind}
                for where, kind in kernels
            ),
            bound,
        ],
        "linux": {"namespaces": [{"type": space} for space in spaces]},
    }


def _run(
    words: Sequence[str], *, timeout: Nanoseconds, command: Command | None = None
) -> Completed:
    """Run a bundle to the end of its program. Raises SessionError if runsc itself fails."""
    try:
        done = processes.run(words, timeout=timeout, env=_environment(), command=command)
    except OSError as error:
        raise SessionError(f"{words[0]} cannot be executed: {error}") from None
    if done.exit_code == _OWN_FAILURE:
        raise SessionError(f"runsc: {processes.last_line(done.stderr)}")
    return done


def _trial(target: GvisorTarget, platform: str) -> str:
    """Return why no program runs on this platform, or an empty string if one does."""
    try:
        with (
            prefixes.probe_root() as root,
            target._bundle(platform, root, root / "scratch", ["/answer"], {}) as command,  # noqa: SLF001
        ):
            done = _run(command, timeout=_TRIAL_TIMEOUT)
    except SessionError as error:
        return str(error).removeprefix("runsc: ")
    except OSError as error:
        return str(error)
    if done.stdout == elf.ANSWER:
        return ""
    if done.exit_code is None:
        return f"platform {platform}: no output within {_TRIAL_TIMEOUT // seconds(1)} s"
    return f"platform {platform}: {processes.last_line(done.stderr)}"


def _version(program: str) -> str:
    """Return the version of runsc: "0.0~20221219.0", "release-20240729.0"."""
    lines = (processes.output_of([program, "--version"]) or "").splitlines()
    return lines[0].rpartition(" ")[2] if lines else "of an unknown version"


def _kvm_refusal() -> Unavailable | None:
    """Return why gVisor cannot use /dev/kvm, or None."""
    seen = kvm.examine()
    if seen.lack is None:
        return None
    return Unavailable(lack=seen.lack, what=seen.what, hint=seen.hint)


def _refusal(problem: str, hint: str | None) -> Unavailable:
    # As an ordinary user runsc needs a user namespace.
    if "operation not permitted" in problem and os.geteuid() != 0:
        return userns.refusal(problem)
    return Unavailable(lack=Lack.RUNTIME, what=problem, hint=hint or "runsc --version")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    session: agents.AgentSession
    target: GvisorTarget
    platform: str
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        return self.session.run(command, timeout=timeout)

    def witness(self) -> Iterable[Evidence]:
        """Yield facts about the sandbox that the host sees.

        Raises SessionError if the sandbox does not use the requested platform.
        """
        # Inside, nothing shows the platform; the sentry's arguments and descriptors do.
        family = processes.process_tree(self.session.pid)
        platform = sentry.platform(family)
        if platform not in (self.platform, None):
            raise SessionError(
                f"the sandbox uses the platform {platform}, not {self.platform} as requested",
                hint=f'set platform = "{platform}" for this target, or leave it out',
            )
        facts: dict[str, tuple[Fact, str]] = {
            "host.sentry.platform": (platform, "/proc/PID of the sentry"),
            "host.sentry.version": (_version(self.target.program), "runsc --version"),
            "host.sentry.flags": (" ".join(self.target.flags) or "none", "flags"),
            "host.sentry.processes": (len(family), "process tree"),
            "host.rootless": (self.target._is_rootless(), "--rootless"),  # noqa: SLF001
            "host.resident_kib": (processes.proportional_kib(self.session.pid), "smaps_rollup"),
        }
        for key, (value, source) in facts.items():
            yield Evidence(key=key, value=value, source=source)
        # The process that was started last is the sentry's or one of its helpers'.
        yield from cpu_share.evidence(family[-1] if family else None)
