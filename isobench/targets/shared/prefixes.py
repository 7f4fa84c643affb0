"""Technologies that are a command prefix: bwrap, firejail, isobench's own launchers.

The prefix is a tool with its options: the root directory, the scratch directory, what confines. The
path of a program inside follows it. The tool lives as long as the program does.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from isobench.model import Command, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, seconds
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import agents, elf, processes

Prefix = Callable[[Path, Path], Sequence[str]]
"""Takes the root directory and the scratch directory on the host; returns the prefix."""

OWN_FAILURE: Final = 125
"""The exit code of isobench's own launchers when they, not the program, have failed."""


def host_path() -> dict[str, str]:
    """Return the only environment variable that a tool of the host needs: its PATH."""
    return {"PATH": os.environ.get("PATH", "")}


def opened(
    prefix: Sequence[str],
    *,
    environment: Mapping[str, str],
    view: agents.View = agents.INSIDE,
) -> AbstractContextManager[agents.AgentSession]:
    """Start an instance whose command is the agent. Errors are those of `agents.opened`."""
    argv = [*prefix, f"{view.programs}/_agent", "serve"]
    return agents.opened(argv, environment=environment, view=view)


def launch(
    prefix: Sequence[str],
    command: Command,
    *,
    timeout: Nanoseconds,
    environment: Mapping[str, str],
    view: agents.View = agents.INSIDE,
    own_failure: int | None = None,
) -> Completed:
    """Start an instance whose command is the payload, and wait for its end.

    `own_failure` is the tool's exit code when the tool itself fails, if it has one. SessionError:
    the tool fails, or cannot be executed.
    """
    variables = {**command.environ(view.scratch), **view.variables, **environment}
    command.on_phase(BEGIN)  # without effect if the target has reported it already
    try:
        done = processes.run(
            [*prefix, f"{view.programs}/{command.argv[0]}", *command.argv[1:]],
            timeout=timeout,
            env=variables,
            command=command,
        )
    except OSError as error:
        raise SessionError(f"{prefix[0]} cannot be executed: {error}") from None
    if own_failure is not None and done.exit_code == own_failure:
        raise SessionError(f"{Path(prefix[0]).name}: {processes.last_line(done.stderr)}")
    return done


@contextlib.contextmanager
def probe_root(*more: str) -> Iterator[Path]:
    """Yield a root directory with mount points and `answer`, the probe program.

    `more` are further mount points. The caller has checked that this host has payloads.
    """
    abi = host_abi()
    assert abi is not None
    with ownership.temporary_folder("probe") as folder:
        # Open to all users: an instance may run as another user than this process.
        folder.chmod(0o755)
        root = folder / "root"
        for name in ("dev", "proc", "scratch", "sys", "tmp", *more):
            (root / name).mkdir(parents=True)
        (root / "answer").write_bytes(elf.probe_program(abi.machine))
        (root / "answer").chmod(0o755)
        yield root


def probe_answered(done: Completed) -> bool:
    """Return whether the probe program has run and printed its line."""
    return done.exit_code == 0 and done.stdout == elf.ANSWER


def start_error(prefix: Prefix, *, environment: Mapping[str, str]) -> str:
    """Run the probe program with the prefix.

    Return an empty string if it answered, else the last line on standard error.
    """
    with probe_root() as root:
        argv = [*prefix(root, root / "scratch"), "/answer"]
        try:
            done = processes.run(argv, timeout=seconds(20), env=environment)
        except OSError as error:
            return str(error)
    return "" if probe_answered(done) else processes.last_line(done.stderr)
