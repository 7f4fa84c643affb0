"""Workloads x ABIs -> Payloads: those that came with isobench, and all others compiled.

What is compiled is cached by the content of everything that goes in. The compiler itself is the
extra `build`: only C workloads of one's own, and changed sources, need it.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from isobench.config import cache, paths
from isobench.model import Abi, Payload, Workload
from isobench.model.errors import PayloadError
from isobench.model.units import Sha256
from isobench.payload import compiler, shipped
from isobench.plugins import deadlines
from isobench.plugins.signals import uninterrupted

AGENT: Final = "_agent"
EVIDENCE: Final = "_evidence"
INIT: Final = "_init"
LIMITS: Final = "_limits"
STARTUP: Final = "_startup"
LAUNCH: Final = "_launch"
CONFINE: Final = "_confine"
SPAWN: Final = "_spawn"
TOOLS: Final = (LAUNCH, CONFINE, SPAWN)
"""Programs of isobench's own for the host side; no stage's root holds them."""
INSIDE: Final = (EVIDENCE, AGENT, INIT, LIMITS)
"""Programs of isobench's own that a stage holds."""
_ENDING: Final = 10.0
"""Seconds that compilers may take to end after an interruption."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One program to have, for one ABI."""

    program: str
    source: Path
    abi: Abi
    libc: bool


def add_toolchain(
    abi: Abi,
    *,
    triple: str,
    headers: Iterable[str] = (),
    flags: Iterable[str] = (),
    entry: Iterable[str] = (),
    machine: Path | None = None,
) -> None:
    """Say how payloads are built for an ABI that isobench does not know: `Abi("s390x-linux")`.

    To be called by the module of a target of that ABI. `triple` is what the compiler calls it
    (`zig targets` lists all), `headers` are folders of the system's headers below the compiler's
    own `lib/libc/include`, `flags` go to the compiler, `entry` to the linker where no C library
    says where a program begins. `machine` is a header for an ISA that isobench.h does not know; its
    file on_linux.h says what must be in there. ValueError: the ABI has a toolchain already, another
    one.
    """
    chain = compiler.Toolchain(
        triple=triple,
        headers=tuple(headers),
        flags=tuple(flags),
        entry=tuple(entry),
        machine=machine,
    )
    compiler.add(abi, chain)


def without_toolchain(abi: Abi | None) -> str:
    """Return why no payload can be built for an ABI; empty where one can, or for the host's own."""
    unknown = abi is not None and not compiler.knows(abi)
    return f"{compiler.NO_TOOLCHAIN} {abi}" if unknown else ""


def programs(workloads: Iterable[Workload]) -> dict[str, tuple[Path, bool]]:
    """Return the programs that a stage for these workloads holds: name -> source, with libc or
    without.
    """
    root = paths.shared("workloads")
    own = {name: (root / name / "payload.c", False) for name in INSIDE}
    return own | {workload.program: (workload.source, workload.libc) for workload in workloads}


def jobs(wanted: Mapping[str, tuple[Path, bool]], abis: Iterable[Abi]) -> list[Job]:
    """Return what is to be had of these programs: each for every ABI that has it."""
    return [
        Job(program=name, source=source, abi=abi, libc=libc)
        for abi in abis
        for name, (source, libc) in wanted.items()
        if name not in INSIDE or name in _inside(abi)
    ]


def tool_jobs(host: Abi) -> list[Job]:
    """Return the tools that a host of this ABI needs."""
    root = paths.shared("workloads")
    return [
        Job(program=tool, source=root / tool / "payload.c", abi=host, libc=False) for tool in TOOLS
    ]


def _inside(abi: Abi) -> tuple[str, ...]:
    """Return which of isobench's own programs there are for an ABI."""
    # The others fork and are passed descriptors: WASI and Windows have neither.
    return INSIDE if abi.system == "linux" else (EVIDENCE,)


def build(program: str, source: Path, abi: Abi, *, libc: bool = False) -> Payload:
    """Return one payload: as it came with isobench, from the cache, or compiled.

    PayloadError: it must be compiled, and there is no compiler, or it refuses the source.
    """
    if (found := shipped.take(program, source, abi, libc=libc)) is not None:
        return found
    name = compiler.name()
    key = hashlib.sha256(f"{name}\n{compiler.inputs(source, abi, libc=libc)}".encode()).hexdigest()
    path = cache.made("payloads") / f"{key[:32]}-{program}"
    content = cache.verified(path) if os.access(path, os.X_OK) else None
    if content is None:
        from isobench.plugins import ownership  # noqa: PLC0415 - psutil, which is not there where the wheel is built

        store, prefix = cache.made("zig"), f"{ownership.mine()}-build-"
        compiler.compile_to(path, program, source, abi, libc=libc, store=store, prefix=prefix)
        content = path.read_bytes()
        cache.keep(path, content, mode=0o755)
    return Payload(
        program=program,
        abi=abi,
        path=path,
        sha256=Sha256(hashlib.sha256(content).hexdigest()),
        compiler=name,
        flags=compiler.flags(abi, libc=libc),
    )


def to_compile(wanted: Iterable[Job]) -> dict[str, str]:
    """Return the payloads that must be compiled: program -> reason, one for all its ABIs."""
    found: dict[str, str] = {}
    for job in wanted:
        why = shipped.obstacle(job.program, job.source, job.abi, libc=job.libc)
        if why:
            found.setdefault(job.program, why)
    return found


def demand(wanted: Iterable[Job]) -> None:
    """Raise PayloadError where a payload must be compiled and no compiler can."""
    missing = to_compile(wanted)
    if not missing:
        return
    try:
        compiler.name()
    except PayloadError as error:
        title = f"{error}, and these payloads must be compiled:"
        lines = [f"  {program}: {why}" for program, why in missing.items()]
        raise PayloadError("\n".join([title, *lines]), hint=error.hint) from None


def for_run(workloads: Iterable[Workload], abis: Iterable[Abi], host: Abi) -> list[Job]:
    """Return all that a run of these workloads needs."""
    return [*jobs(programs(workloads), abis), *tool_jobs(host)]


def build_all(
    wanted: dict[str, tuple[Path, bool]],
    abis: Sequence[Abi],
    *,
    host: Abi,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[Payload, ...]:
    """Build every program for every ABI that has it, and the host's own tools, side by side.

    `progress` hears how many of how many are done.
    """
    todo = [*jobs(wanted, abis), *tool_jobs(host)]
    demand(todo)
    return tuple(
        side_by_side(
            lambda job: build(job.program, job.source, job.abi, libc=job.libc), todo, progress
        )
    )


def side_by_side(
    make: Callable[[Job], _T],
    wanted: Sequence[Job],
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[_T]:
    """Return what `make` returns for each job; as many run at once as there are CPUs.

    An error, or an interruption, ends the compilers that run, and no other is started.
    """
    running: list[deadlines.Deadline] = []

    def one(job: Job) -> _T:
        with deadlines.watched(compiler.TIME_LIMIT) as deadline:
            running.append(deadline)
            return make(job)

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    futures: list[Future[_T]] = []
    made: list[_T] = []
    try:
        futures.extend(pool.submit(one, job) for job in wanted)
        for future in futures:
            made.append(future.result())
            progress(len(made), len(wanted))
    finally:
        with uninterrupted():
            pool.shutdown(wait=False, cancel_futures=True)
            _end(futures, running)
    return made


def _end(futures: Sequence[Future[_T]], running: Sequence[deadlines.Deadline]) -> None:
    """End the calls that still run, and wait for them."""
    # Again and again: one may have been about to start its compiler.
    until = time.monotonic() + _ENDING
    while not all(future.done() for future in futures) and time.monotonic() < until:
        for deadline in [*running]:
            deadline.cancel()
        wait(futures, timeout=0.1)
