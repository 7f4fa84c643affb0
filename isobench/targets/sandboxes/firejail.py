"""Firejail: a sandbox that a set-user-ID program makes around a program of the host.

No profile of the distribution is used. `_arguments` lists all restrictions, and each of them is an
expectation. The program keeps the host's paths. Of the home directory, and of the directory trees
that contain the stage, it sees only the stage.

Source: firejail(1).
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
"""Folder with a file for each sandbox: its name is the PID of the sandbox's first process, its
content the name of the sandbox.
"""


@dataclass(frozen=True, kw_only=True)
class FirejailTarget:
    """A process in firejail, without network, capabilities, most devices and other files."""

    name: ClassVar[TargetName] = TargetName("firejail")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    executes: ClassVar[Sequence[str]] = ("arguments",)
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "firejail is executed for a new copy of the program; inside, the user's login shell"
        " executes it, which is firejail's way",
        "warm": "firejail is executed again for the same copy: it has no stopped instances",
        "exec": "isobench's agent in an open sandbox forks and executes the payload",
    }

    seccomp: bool = True
    """Filter system calls with Firejail's default list."""
    noroot: bool = True
    """Use a user namespace without root. It has no effect if root runs isobench."""
    arguments: tuple[str, ...] = ()
    """Further options for firejail: ("--protocol=unix", "--apparmor")."""

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """One expectation for each restriction that the arguments request."""
        equals, unlike = Relation.EQUALS, Relation.UNLIKE_HOST
        spaces = ["ipc", "mnt", "net", "pid", "uts", *(["user"] if self._without_root() else [])]
        expectations = [
            # If firejail cannot make a part of a sandbox, it prints a warning and executes the
            # program without it. So evidence must show each part.
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
            # Profiles of distributions differ, and the default one hides programs outside of the
            # standard paths. --quiet: standard error must contain only what the program writes.
            "--quiet", "--noprofile",
            f"--name={name}",
            "--net=none", "--ipc-namespace",  # firejail makes mount, PID and UTS by default
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
        """Start a program of a few bytes in a sandbox, and check that another one is hidden."""
        if shutil.which("firejail") is None:
            return Unavailable(
                lack=Lack.TOOL, what="firejail", hint="isobench doctor --install firejail"
            )
        if host_abi() is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="firejail needs Linux")
        problem = self._problem()
        if problem:
            return _refusal(problem)
        version = processes.output_of(["firejail", "--version"]) or "firejail"
        return Available(version=version.splitlines()[0].replace(" version", ""))

    def _problem(self) -> str:
        """Return why no sandbox can be made, or an empty string.

        Inside another sandbox firejail only executes the program, and that without an error. A
        program outside of the view must therefore be out of reach.
        """
        with prefixes.probe_root() as root:
            # The same program outside of the view: it may only run if there is no sandbox.
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
            _records_removed(),
            prefixes.opened(
                self._prefix(stage), environment=prefixes.host_path(), view=view
            ) as session,
        ):
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a sandbox whose command is the payload."""
        with _records_removed():
            done = prefixes.launch(
                self._prefix(stage), command,
                timeout=timeout, environment=prefixes.host_path(), view=_view(stage),
            )  # fmt: skip
        # firejail has no exit code of its own for its errors: 1 may be the program's.
        error = processes.last_line(done.stderr)
        if done.exit_code == 1 and not done.stdout and error.startswith("Error"):
            raise SessionError(f"firejail: {error}")
        return done

    def _prefix(self, stage: Stage) -> list[str]:
        return self._arguments(stage.root, _scratch(stage), _name(stage.owner))

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End the sandboxes of dead runs."""
        del cached  # this target keeps nothing between runs
        removed = []
        for pid, name in _listed():
            if alive(name.rpartition("-")[0]):
                continue
            error = processes.terminate(pid)
            removed.append(Leftover(what=f"sandbox {name}", failure=error or ""))
        return removed


def _name(owner: str) -> str:
    """Return a unique name for a sandbox that contains its owner."""
    return f"{owner}-{secrets.token_hex(4)}"


def _view_of(root: Path, scratch: Path) -> list[str]:
    """Return the options that show two directories and hide their surroundings.

    --whitelist mounts an empty file system over the top directory of its argument (/tmp, /srv, the
    home directory), and shows only the argument in it. If that is not the home directory, --private
    replaces the home directory by an empty one.
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
    """Return the home directory that firejail uses: from the user database, not from HOME."""
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


# ---- records and leftovers -----------------------------------------------------------------------


def _listed() -> list[tuple[int, str]]:
    """Return the PID and the name of each sandbox of isobench.

    `firejail --list` also removes the records of sandboxes that were killed.
    """
    output = processes.output_of(["firejail", "--list"]) or ""
    found = re.findall(r"^(\d{1,9}):[^:]*:(isobench-[^:]+):", output, re.MULTILINE)
    # It lists the sandboxes of all users, with their arguments as they are, newlines too: a line
    # counts only for a sandbox that this user has started under this name.
    started = dict(processes.own("firejail"))
    return [
        (int(pid), name) for pid, name in found if f"--name={name}" in started.get(int(pid), ())
    ]


@contextlib.contextmanager
def _records_removed() -> Iterator[None]:
    """Remove the record of a sandbox that had to be killed: firejail itself does so at its end."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if any(not Path(f"/proc/{record.name}").exists() for record in _RECORDS.iterdir()):
                processes.output_of(["firejail", "--list"])


_NO_SANDBOX: Final = "firejail executes programs without a sandbox here"


def _refusal(problem: str) -> Unavailable:
    if problem == _NO_SANDBOX:
        return Unavailable(
            lack=Lack.RUNTIME,
            what=f"{problem}: it does so inside another sandbox or container",
            hint="run isobench on the host itself; firejail true shows the reason",
        )
    # The output of nologin(8), which the shell of a system account may be.
    if "This account is" in problem:
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"firejail needs a login shell of the user, and this is none: {problem}",
            hint="sudo chsh -s /bin/sh $USER",
        )
    return Unavailable(
        lack=Lack.RUNTIME,
        what=problem,
        hint="find the reason with: firejail --noprofile --net=none --seccomp true",
    )
