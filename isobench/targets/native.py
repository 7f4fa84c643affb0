"""The reference: no isolation at all."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.config import paths
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
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import agents, cpu_group, elf, processes

_SAME: Final = Relation.SAME_AS_HOST


def _is_noexec(folder: Path) -> bool:
    """Return whether a folder, which need not exist, is on a file system without programs."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return bool(os.statvfs(nearest).f_flag & os.ST_NOEXEC)


@dataclass(frozen=True, kw_only=True)
class NativeTarget:
    """A plain process of this host."""

    name: ClassVar[TargetName] = TargetName("native")
    technology: ClassVar[Technology] = Technology.NATIVE
    abi: ClassVar[Abi | None] = None
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=_SAME),
        Expectation(key="machine", relation=_SAME),
        Expectation(key="ns.pid", relation=_SAME),
        Expectation(key="ns.mnt", relation=_SAME),
        Expectation(key="ns.net", relation=_SAME),
        # The negative control: only if native sees the planted file does it prove anything that a
        # container does not see it.
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=True),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "a process is started from a copy of the program made just before",
        "warm": "a process is started; a plain process leaves nothing to reuse",
        "exec": "isobench's agent, a plain process, forks and executes the payload; request and"
        " answer pass through it, which takes longer than a start by isobench's spawner",
    }

    def probe(self) -> Availability:
        """Look whether payloads exist for this host."""
        abi = host_abi()
        if abi is None:
            return Unavailable(
                lack=Lack.PLATFORM,
                what="isobench has payloads for Linux on x86_64, aarch64 and riscv64",
                hint="run isobench on such a machine",
            )
        folder = paths.cache()
        if _is_noexec(folder):
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"the cache folder {folder} is mounted noexec: no program runs there",
                hint="XDG_CACHE_HOME=/folder, one that is mounted otherwise",
            )
        return Available(version=f"Linux {abi.machine}")

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[agents.AgentSession]:
        """Start the agent as a plain process.

        The same agent executes payloads in sandboxes. Otherwise the ratio of `exec` would compare
        two ways of starting a program: with Python's for native, sandboxes came out faster.
        """
        programs = stage.root / "isobench"
        view = agents.View(
            programs=str(programs), scratch=str(_scratch(stage)), variables=processes.tied()
        )
        argv = [str(programs / "_agent"), "serve"]
        with agents.opened(argv, environment=processes.tied(), view=view) as session:
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start the payload as a plain process."""
        path = stage.root / "isobench" / command.argv[0]
        return _started(stage, [str(path), *command.argv[1:]], command, timeout)

    def null(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start the probe program: the cost of starting any program that prints something.

        It ends at the same event as a payload's start, its first output. Its file is made once for
        each root directory: a cold start, with a new root, gets a new file.
        """
        # Not in the directory of payloads: with one file more for each cold start, it became slower
        # to search, by a quarter in 20 blocks, and with it native's io.metadata.
        path = processes.private_scratch(stage.scratch, "native-null") / stage.root.name
        if not path.exists():
            abi = host_abi()
            assert abi is not None  # there is a stage, so there are payloads for this host
            path.write_bytes(elf.probe_program(abi.machine))
            path.chmod(0o755)
        return _started(stage, [str(path)], command, timeout)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Kill the plain processes of runs that have died, emulators' processes included, and
        remove the cgroups of these runs.
        """
        del cached  # nothing is kept between runs
        # The processes first: a cgroup is removed only when it is empty.
        return [*processes.sweep(alive), *cpu_group.sweep(alive)]


def _started(
    stage: Stage, argv: Sequence[str], command: Command, timeout: Nanoseconds
) -> Completed:
    variables = command.environ(str(_scratch(stage))) | processes.tied()
    command.on_phase(BEGIN)
    try:
        return processes.run(argv, timeout=timeout, env=variables, command=command)
    except OSError as error:
        raise SessionError(f"{argv[0]} cannot be executed: {error}") from None


def _scratch(stage: Stage) -> Path:
    return processes.private_scratch(stage.scratch, "native")
