"""Firejail: a sandbox that a set-user-id program sets up around a program of the host.

Nothing comes from a profile of the distribution's: what the sandbox is made of stands in
`_arguments`, and each part of it is an expectation. The program keeps the host's paths; of the
directory trees where the stage lies, and of the home directory, it sees nothing but the stage.
"""

import contextlib
import os
import pwd
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Expectation,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.shared import agents, elf, prefixes, processes

_RECORDS: Final = Path("/run/firejail/name")
"""Where Firejail keeps the name of each sandbox, in a file called after its first process."""


@dataclass(frozen=True, kw_only=True)
class FirejailTarget:
    """A process in firejail, without network, capabilities, devices and sight of the rest."""

    name: ClassVar[TargetName] = TargetName("firejail")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    executes: ClassVar[Sequence[str]] = ("arguments",)
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "firejail is executed for a program copied just before; the user's login shell"
        " executes it inside, as firejail always has it",
        "warm": "firejail is executed again for the same copy: it keeps no stopped instance",
        "exec": "isobench's agent in an open sandbox forks and executes the payload",
    }

    seccomp: bool = True
    """Filter its system calls by Firejail's default list."""
    noroot: bool = True
    """Give an ordinary user's sandbox a user namespace that knows no root. Root has none of it."""
    arguments: tuple[str, ...] = ()
    """More options for firejail: ("--protocol=unix", "--apparmor")."""

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """Hold what the arguments ask for."""
        equals, unlike = Relation.EQUALS, Relation.UNLIKE_HOST
        spaces = ["ipc", "mnt", "net", "pid", "uts", *(["user"] if self._without_root() else [])]
        expectations = [
            # A sandbox that could not be had is left out by firejail with a warning, and the
            # program runs all the same: so each part of it is held against evidence.
            Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
            *(Expectation(key=f"ns.{space}", relation=unlike) for space in spaces),
            Expectation(key="security.no_new_privs", relation=equals, value="1"),
            Expectation(key="security.cap_effective", relation=equals, value="0" * 16),
            Expectation(key="host.canary_readable", relation=equals, value=False),
        ]
        if self.seccomp:
            expectations += [
                Expectation(key="security.seccomp", relation=equals, value="2"),
                Expectation(key="security.seccomp_filters", relation=unlike),
            ]
        return tuple(expectations)

    def _without_root(self) -> bool:
        return self.noroot and os.geteuid() != 0

    def _arguments(self, root: Path, scratch: Path, name: str) -> list[str]:
        # fmt: off
        return [
            "firejail",
            "--quiet", "--noprofile",
            f"--name={name}",
            "--net=none", "--ipc-namespace",  # the others it makes unasked
            "--caps.drop=all", "--nonewprivs", "--nogroups",
            *(["--seccomp"] if self.seccomp else []),
            *(["--noroot"] if self._without_root() else []),
            "--private-dev",
            *_view_of(root, scratch),
            *self.arguments,
            "--",
        ]
        # fmt: on

    def probe(self) -> Availability:
        """Start the smallest program in a sandbox, and see that another one cannot be reached."""
        if shutil.which("firejail") is None:
            return Unavailable(
                lack=Lack.TOOL, what="firejail", hint="isobench doctor --install firejail"
            )
        if host_abi() is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="firejail needs Linux")
        said = self._complaint()
        if said:
            return _refusal(said)
        version = processes.output_of(["firejail", "--version"]) or "firejail"
        return Available(version=version.splitlines()[0].replace(" version", ""))

    def _complaint(self) -> str:
        """Return what is wrong with a sandbox, or nothing."""
        with prefixes.probe_root() as root:
            hidden = root.parent / "answer"
            shutil.copy2(root / "answer", hidden)
            prefix = self._arguments(root, root / "scratch", _name(ownership.mine()))
            for program, reached in ((root / "answer", True), (hidden, False)):
                try:
                    done = processes.run(
                        [*prefix, str(program)],
                        timeout=seconds(20), env=prefixes.host_path(),
                    )  # fmt: skip
                except OSError as error:
                    return str(error)
                if (done.stdout == elf.ANSWER) != reached:
                    return processes.last_line(done.stderr) if reached else _NO_SANDBOX
        return ""

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[agents.AgentSession]:
        """Start a sandbox whose command is the agent."""
        view = _view(stage)
        with (
            _tidied(),
            prefixes.opened(
                self._prefix(stage), environment=prefixes.host_path(), view=view
            ) as session,
        ):
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a sandbox whose command is the payload."""
        with _tidied():
            done = prefixes.launch(
                self._prefix(stage), command,
                timeout=timeout, environment=prefixes.host_path(), view=_view(stage),
            )  # fmt: skip
        said = processes.last_line(done.stderr)
        if done.exit_code == 1 and not done.stdout and said.startswith("Error"):
            raise SessionError(f"firejail: {said}")
        return done

    def _prefix(self, stage: Stage) -> list[str]:
        return self._arguments(stage.root, _scratch(stage), _name(stage.owner))

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End the sandboxes of runs that have died."""
        del cached  # nothing is kept between runs
        removed = []
        for pid, name in _listed():
            if alive(name.rpartition("-")[0]):
                continue
            error = processes.terminate(pid)
            removed.append(Leftover(what=f"sandbox {name}", failure=error or ""))
        return removed


def _name(whose: str) -> str:
    """Return a sandbox's name: whom it belongs to, and what no other has."""
    return f"{whose}-{secrets.token_hex(4)}"


def _view_of(root: Path, scratch: Path) -> list[str]:
    """Return the options by which a sandbox sees two directories and nothing beside them.

    A directory that is listed leaves an empty file system over its top directory (/tmp, /srv, the
    home directory) with nothing but itself in it. Where that is not the home directory, this one
    is emptied as well.
    """
    root, scratch, home = root.resolve(), scratch.resolve(), _home()
    inside = home is not None and root.is_relative_to(home)
    # fmt: off
    return [
        f"--whitelist={root}", f"--read-only={root}",
        f"--whitelist={scratch}",
        *([] if inside else ["--private"]),
    ]
    # fmt: on


def _home() -> Path | None:
    """Return the home directory as firejail takes it: of the user database, not of HOME."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir).resolve()
    except KeyError:
        return None


def _scratch(stage: Stage) -> Path:
    return processes.private_scratch(stage.scratch, "firejail")


def _view(stage: Stage) -> agents.View:
    return agents.View(
        programs=str(stage.root.resolve() / "isobench"), scratch=str(_scratch(stage).resolve())
    )


# ---- what is left --------------------------------------------------------------------------------


def _listed() -> list[tuple[int, str]]:
    """Return the sandboxes of isobench's: process and name. Asking also clears away the records of
    those that were killed.
    """
    said = processes.output_of(["firejail", "--list"]) or ""
    found = re.findall(r"^(\d+):[^:]*:(isobench-[^:]+):", said, re.MULTILINE)
    return [(int(pid), name) for pid, name in found]


@contextlib.contextmanager
def _tidied() -> Iterator[None]:
    """Clear away the record of a sandbox that had to be killed."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if any(not Path(f"/proc/{record.name}").exists() for record in _RECORDS.iterdir()):
                processes.output_of(["firejail", "--list"])


_NO_SANDBOX: Final = "firejail executes programs without a sandbox here"


def _refusal(said: str) -> Unavailable:
    if said == _NO_SANDBOX:
        return Unavailable(
            lack=Lack.RUNTIME,
            what=f"{said}: it does so inside of another sandbox or container",
            hint="run isobench on the host itself; see what `firejail true` says",
        )
    if "This account is" in said:
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"firejail executes programs by the user's login shell, and this is none: {said}",
            hint="sudo chsh -s /bin/sh $USER",
        )
    return Unavailable(
        lack=Lack.RUNTIME, what=said, hint="firejail --noprofile --net=none --seccomp true"
    )
