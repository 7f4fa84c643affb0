"""A command before the command is the whole technology: bwrap, firejail, our own launchers.

The prefix names the root directory, the scratch directory and whatever confines; what follows it is
the path of a program inside. It lives as long as the program does.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from isobench.model import Command, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, seconds
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import agents, elf, processes

Prefix = Callable[[Path, Path], Sequence[str]]
"""Takes the root directory and the scratch directory on the host; gives the words that confine."""

OWN_FAILURE: Final = 125
"""The exit code by which isobench's own launchers say that they, not the program, have failed."""


def host_path() -> dict[str, str]:
    """Return the one variable of the host's that a tool of the host's needs."""
    return {"PATH": os.environ.get("PATH", "")}


def opened(
    prefix: Sequence[str],
    *,
    environment: Mapping[str, str],
    view: agents.View = agents.INSIDE,
) -> AbstractContextManager[agents.AgentSession]:
    """Start an instance whose command is the agent."""
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

    `own_failure` is the exit code by which the prefix says that it has failed itself.
    """
    variables = {**command.environ(view.scratch), **view.variables, **environment}
    command.on_phase(BEGIN)  # where the target has not done so before
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
    """Yield a root directory with mount points and `answer`, the smallest program that answers.

    Everybody may pass through it: an engine's user need not be this one.
    """
    abi = host_abi()
    assert abi is not None  # who asks has looked
    with tempfile.TemporaryDirectory(prefix="isobench-probe-") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "root"
        for name in ("dev", "proc", "scratch", "sys", "tmp", *more):
            (root / name).mkdir(parents=True)
        (root / "answer").write_bytes(elf.probe_program(abi.machine))
        (root / "answer").chmod(0o755)
        yield root


def probe_answered(done: Completed) -> bool:
    """Say whether the smallest program has run and said its word."""
    return done.exit_code == 0 and done.stdout == elf.ANSWER


def start_error(prefix: Prefix, *, environment: Mapping[str, str]) -> str:
    """Start the smallest program under the prefix; return nothing when it answered, and else the
    last that was said.
    """
    with probe_root() as root:
        argv = [*prefix(root, root / "scratch"), "/answer"]
        try:
            done = processes.run(argv, timeout=seconds(20), env=environment)
        except OSError as error:
            return str(error)
    return "" if probe_answered(done) else processes.last_line(done.stderr)
