"""Which share of a contended CPU native and Docker get, by the cgroup that native is in. A program,
not a test:

    python -m tests.bench.bench_cpu_share SECONDS [quiet]

Neighbours keep every CPU busy in bursts (neighbour.py), in the cgroup and the session of this
process; with `quiet` there are none. A block starts one process for each placement. In each of its
rounds, every process does one turn of the same work, some milliseconds long, in random order, one
at a time. The table has the ratio to native in the cgroup of the neighbours: the true ratio of all
rows is 1. It needs root, cgroups with a CPU controller, and Docker.
"""

import contextlib
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import docker
import numpy as np

from isobench import stats
from isobench.evidence import cpu_share
from isobench.model import host_abi
from isobench.payload import build
from isobench.targets.shared import cgroups

ROUNDS: Final = 25
TURN: Final = 0.008
"""Seconds of one turn on a quiet CPU."""
HERE: Final = Path(__file__).parent
BESIDE: Final = "native, in the neighbours' cgroup and session"
TAG: Final = "isobench-bench-turns"
Start = Callable[[int], "subprocess.Popen[bytes]"]


def program() -> Path:
    """Return the program that takes turns."""
    abi = host_abi()
    assert abi is not None
    return build.build("turns", HERE / "turns" / "payload.c", abi).path


def started(argv: Sequence[str | Path], folder: Path | None = None, *, session: bool) -> Start:
    """Return a function that starts a process which takes turns of so many passes."""

    def enter() -> None:
        if folder is not None:
            (folder / "cgroup.procs").write_text("0")

    def start(passes: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*argv, str(passes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            start_new_session=session, preexec_fn=enter,  # noqa: PLW1509 - one thread
        )  # fmt: skip

    return start


def turn(process: "subprocess.Popen[bytes]") -> int:
    """Let a process take one turn; return its nanoseconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b".")
    answer = b""
    while not answer.endswith(b"\n"):
        answer += os.read(process.stdout.fileno(), 64)
    return int(answer.split()[0])


@contextlib.contextmanager
def groups() -> Iterator[tuple[Path, Path]]:
    """Yield a cgroup of one level and one of two levels below the root of the CPU controller."""
    place = cpu_share.membership("self")
    if place is None:
        message = "there is no CPU controller of cgroups here"
        raise RuntimeError(message)
    made = [place[0] / f"bench.{os.getpid()}.{levels}" for levels in (1, 2)]
    try:
        for folder in made:
            folder.mkdir()
        inner = made[1] / "programs"
        if (made[1] / "cgroup.subtree_control").exists():
            (made[1] / "cgroup.subtree_control").write_text("+cpu")
        inner.mkdir()
        yield made[0], inner
    finally:
        for folder in made:
            cgroups.remove(folder, attempts=200)


@contextlib.contextmanager
def image(path: Path) -> Iterator[str]:
    """Make an image that holds the program alone."""
    client = docker.from_env()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        argv = ["tar", "--create", f"--file={archive}", f"--directory={path.parent}"]
        subprocess.run([*argv, "--transform=s/.*/turns/", path.name], check=True)
        client.api.import_image_from_file(str(archive), repository=TAG)
    try:
        yield TAG
    finally:
        client.images.remove(TAG, force=True)


@contextlib.contextmanager
def neighbours(*, quiet: bool) -> Iterator[None]:
    """Keep every CPU busy in bursts meanwhile."""
    argv = [sys.executable, str(HERE / "neighbour.py")]
    cpus = [] if quiet else sorted(os.sched_getaffinity(0))
    busy = [subprocess.Popen([*argv, str(cpu), "7", str(os.getpid())]) for cpu in cpus]
    try:
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


@contextlib.contextmanager
def opened(starts: dict[str, Start], passes: int) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Start one process for each placement; end them at the end."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, start in starts.items():
            processes[name] = start(passes)
        for each in processes.values():
            turn(each)  # it runs, and its pages are there
        yield processes
    finally:
        for each in processes.values():
            each.communicate()


def block(starts: dict[str, Start], passes: int, rng: random.Random) -> dict[str, float]:
    """Return the log-ratio of each placement to the first: a trimmed mean over rounds."""
    logs: dict[str, list[float]] = {name: [] for name in starts}
    with opened(starts, passes) as processes:
        for _ in range(ROUNDS):
            order = list(processes)
            rng.shuffle(order)
            taken = {name: turn(processes[name]) for name in order}
            for name, own in taken.items():
                logs[name].append(math.log(own / taken[BESIDE]))
    cut = ROUNDS // 5
    return {name: float(np.mean(sorted(own)[cut:-cut])) for name, own in logs.items()}


def passes_of(start: Start) -> int:
    """Return how many passes a turn takes on a quiet CPU."""
    with opened({"one": start}, 20) as processes:
        return max(1, round(20 * TURN * 1e9 / min(turn(processes["one"]) for _ in range(30))))


def table(blocks: Sequence[dict[str, float]]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| placement | time over native's beside the neighbours | 97 % interval |"
    yield "|---|---|---|"
    for name in blocks[0]:
        found = stats.estimate(np.array([each[name] for each in blocks]))
        assert found is not None
        low, high = found.interval.ends
        yield f"| {name} | {found.ratio:.3f} | [{low:.3f}, {high:.3f}] |"


def main(seconds: float, *, quiet: bool) -> None:
    """Measure, and print the table."""
    rng, path, blocks = random.Random(1), program(), []  # noqa: S311 - an order, not a secret
    with groups() as (one, two), image(path) as tag:
        starts = {
            BESIDE: started([path], session=False),
            "native, a session of its own (autogroup)": started([path], session=True),
            "native, a cgroup of its own, one level": started([path], one, session=True),
            "native, a cgroup of its own, two levels": started([path], two, session=True),
            "docker": started(
                ["docker", "run", "--rm", "--interactive", "--network=none", tag, "/turns"],
                session=True,
            ),
        }
        passes = passes_of(starts[BESIDE])
        with neighbours(quiet=quiet):
            end = time.monotonic() + seconds
            while time.monotonic() < end or len(blocks) < stats.FEWEST_BLOCKS:
                blocks.append(block(starts, passes, rng))
    lines = [f"{len(blocks)} blocks of {ROUNDS} rounds, {passes} passes a turn", *table(blocks)]
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main(float(sys.argv[1]), quiet="quiet" in sys.argv[2:])
