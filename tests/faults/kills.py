"""Kills isobench at random moments, and looks whether anything is left or anything foreign is gone.

    python tests/faults/kills.py --kills 1000 --beside 4 --out kills.jsonl
    python tests/faults/kills.py --table kills.jsonl

Each time a command begins: a short run of one to three targets, one that looks for targets, or one
of a history or a report of an example. At a random moment it gets a signal: SIGINT, SIGTERM, SIGHUP
(sometimes twice) or SIGKILL. After the first three it must have removed everything when it ends.
After SIGKILL the next start does so, here `isobench clean --stale`. Then what is left of it is
counted (processes, containers, cgroups, folders, mounts), and what looks like isobench's and is not
must still be there. The results of a killed run must be readable up to its last complete line, and
so must a history.

With --beside several commands run at a time, so that each is killed and cleaned up among others
that live. One line of the file is one kill. A second call goes on where the first ended. Needs
root, and the engines that are installed.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import psutil

from isobench.plugins import ownership

TARGETS: Final = (
    *("docker", "podman", "podman-pod", "namespaces", "nspawn", "lxc", "bubblewrap", "landlock"),
    *("firejail", "gvisor", "wasm", "uml", "qemu", "qemu-user-aarch64", "wine"),
)
WORKLOADS: Final = ("cpu.sieve", "syscall.getppid", "io.metadata", "startup.cold", "startup.exec")
SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
LONGEST: Final = 40.0
"""Seconds after which a run has got its signal."""
LONGEST_OF_OTHERS: Final = 4.0
"""The same of a command that measures nothing."""
EXAMPLES: Final = Path(__file__).parents[2] / "reports" / "examples"
ISOBENCH: Final = (sys.executable, "-m", "isobench")
CRASHES: Final = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)
PATIENCE: Final = 120.0
"""Seconds within which a command must have ended after its signal."""
SETTLING: Final = 10.0
"""Seconds that killed processes, and what they hold, may take to be gone."""
MOST_ERRORS: Final = 10_000
"""Characters of standard error that a line keeps of a command with a traceback."""
CGROUPS: Final = Path("/sys/fs/cgroup")
FOREIGN: Final = "isobench-kills"
"""The beginning of the names of look-alikes."""


def output(*argv: str) -> str:
    """Return what a command prints; nothing where it cannot be executed or fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout
    return ""


# ---- what is there -------------------------------------------------------------------------------


Owned = Callable[[str], bool]
"""Whether a text is an owner whose things must be gone."""


def is_dead(owner: str) -> bool:
    """Return whether a text is the owner of something whose process has ended."""
    return bool(owner) and not ownership.alive(owner)


def dead_as(pid: int) -> Owned:
    """Return the same for the things of one process."""
    return lambda owner: f"-{pid}-" in owner and is_dead(owner)


def processes(owned: Owned) -> set[str]:
    """Return the processes of runs that have ended, by their environment or their arguments."""
    found = set()
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        words = process.info["cmdline"] or ()
        owners = [ownership.owner_of(word.rpartition("/")[2]) for word in words]
        with contextlib.suppress(psutil.Error, OSError):
            owners.append(process.environ().get("ISOBENCH_TIED", ""))
        if any(map(owned, owners)):
            found.add(f"process {process.info['name']} {process.pid}: {' '.join(words)[:120]}")
    return found


_FORMATS: Final = {
    ("docker", ()): '{{.ID}} {{.Label "isobench.owner"}}',
    ("podman", ()): '{{.ID}} {{index .Labels "isobench.owner"}}',
    ("podman", ("pod",)): '{{.ID}} {{index .Labels "isobench.owner"}}',
}


def containers(owned: Owned) -> set[str]:
    """Return the containers and pods of runs that have ended."""
    found = set()
    for engine in ("docker", "podman"):
        for what in ((), ("pod",)) if engine == "podman" else ((),):
            words = (
                engine,
                *what,
                "ps",
                "--filter",
                "label=isobench=1",
                "--format",
                _FORMATS[engine, what],
            )
            listed = output(*words, *([] if what else ["--all"]))
            for line in listed.splitlines():
                name, _, owner = line.partition(" ")
                if owned(owner):
                    found.add(f"{engine} {' '.join(what)} {name}")
    return found


def folders(owned: Owned) -> set[str]:
    """Return cgroups, temporary folders, run folders and mounts of runs that have ended."""
    found = {
        f"cgroup {Path(path, name)}"
        for path, names, _ in os.walk(CGROUPS)
        for name in names
        if owned(ownership.owner_of(name[name.find("isobench-") :]))
    }
    place = Path(tempfile.gettempdir())
    cache = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "isobench"
    for folder in (*place.glob("isobench-*"), *(cache / "runs").glob("*")):
        if owned(ownership.owner_of(folder.name)):
            found.add(f"folder {folder}")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        inside = line.partition(f"{cache / 'runs'}/")[2].partition(" ")[0]
        if inside and owned(ownership.owner_of(f"{inside.partition('/')[0]}-")):
            found.add(f"mount {line}")
    return found


def everything(owned: Owned = is_dead) -> set[str]:
    """Return all that is on this machine of runs that have ended, or of one of them."""
    return processes(owned) | containers(owned) | folders(owned)


# ---- look-alikes ---------------------------------------------------------------------------------


@dataclass
class LookAlikes:
    """Things that look like isobench's and belong to somebody else."""

    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / f"{FOREIGN}-notes")
    process: subprocess.Popen[bytes] | None = None
    cgroup: Path = CGROUPS / "pids" / FOREIGN

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """Make them, and remove them at the end."""
        self.folder.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            self.cgroup.mkdir(exist_ok=True)
        argv = [f"{FOREIGN}-sleep", "86400"]
        self.process = subprocess.Popen(argv, executable=shutil.which("sleep"))
        try:
            yield
        finally:
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.cgroup.rmdir()

    def missing(self) -> list[str]:
        """Return which of them are gone."""
        assert self.process is not None
        gone = [] if self.process.poll() is None else ["the process"]
        return gone + [str(one) for one in (self.folder, self.cgroup) if not one.exists()]


# ---- kills ---------------------------------------------------------------------------------------


def command(rng: random.Random, folder: Path) -> list[str]:
    """Return a random command, which writes to a folder or beside it."""
    kind = rng.random()
    if kind < 0.1:
        return [*ISOBENCH, rng.choice(["targets", "doctor"])]
    if kind < 0.25:
        return of_history(rng, folder.with_name("store"))
    targets = rng.sample(TARGETS, rng.randint(1, 3))
    workloads = rng.sample(WORKLOADS, rng.randint(1, 2))
    return [
        *(*ISOBENCH, "run", "--targets", ",".join(targets), "--workloads", ",".join(workloads)),
        *("--budget", "40s", "--quiet", "--output", str(folder)),
    ]


def of_history(rng: random.Random, store: Path) -> list[str]:
    """Return a random command of a history that has a run, or a report of an example."""
    first, *others = sorted(str(found.parent) for found in EXAMPLES.glob("*/plan.json"))
    history, at = [*ISOBENCH, "history"], ("--store", str(store))
    output(*history, "add", first, *at)
    return rng.choice(
        [
            [*history, "add", *others, *at],
            [*history, "list", *at],
            [*history, "export", str(store.with_name("rows.jsonl")), *at],
            [*ISOBENCH, "report", first, "--output", str(store.with_name("page"))],
        ]
    )


def kill(number: int, seed: int, look_alikes: LookAlikes) -> dict[str, Any]:
    """Run a command, kill it, clean up, and return what was found."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - to be repeated, not a secret
    with tempfile.TemporaryDirectory(prefix=f"{FOREIGN}-") as place:
        folder = Path(place) / "run"
        argv = command(rng, folder)
        longest = LONGEST if "run" in argv else LONGEST_OF_OTHERS
        name, after = rng.choice(SIGNALS), rng.uniform(0.2, longest)
        twice = name != "SIGKILL" and rng.random() < 0.3
        line: dict[str, Any] = {"number": number, "argv": argv[3:], "signal": name, "twice": twice}
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        tree = []
        with contextlib.suppress(psutil.Error):
            tree = psutil.Process(process.pid).children(recursive=True)
        line["after"] = round(after, 2)
        line["had_ended"] = process.poll() is not None
        for _ in range(1 + twice):
            process.send_signal(getattr(signal, name))
            time.sleep(rng.uniform(0.0, 0.5) if twice else 0.0)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            line["hung"] = True
        line["code"] = process.returncode
        line["traceback"] = b"Traceback" in errors or process.returncode in CRASHES
        if line["traceback"]:
            line["errors"] = errors.decode(errors="replace")[-MOST_ERRORS:]
        if name == "SIGKILL":
            # What the dead process has started ends a moment after it.
            time.sleep(0.5)
            output(*ISOBENCH, "clean", "--stale")
        line["left"] = settled(tree, dead_as(process.pid))
        line["gone"] = look_alikes.missing()
        line["unreadable"] = unreadable(folder) or unreadable_store(folder.with_name("store"))
    return line


def settled(tree: Sequence[psutil.Process], owned: Owned) -> list[str]:
    """Return what is left when the kernel has had time to remove what was killed."""
    until = time.monotonic() + SETTLING
    while True:
        left = sorted({*everything(owned), *filter(None, map(running, tree))})
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.5)


def running(process: psutil.Process) -> str:
    """Return a process in words; empty where it has ended, whoever waits for it."""
    with contextlib.suppress(psutil.Error):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return f"child {process.pid}: {process.name()}"
    return ""


def unreadable(folder: Path) -> str:
    """Return why the results of a run cannot be read; empty: they can, or there are none."""
    records = folder / "records.jsonl"
    if not records.is_file() or not (folder / "run.json").is_file():
        return ""
    whole = records.read_bytes()
    for number, line in enumerate(whole[: whole.rfind(b"\n") + 1].splitlines(), 1):
        try:
            json.loads(line)
        except ValueError as error:
            return f"line {number}: {error}"
    argv = [*ISOBENCH, "report", str(folder), "--quiet"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return done.stderr[-500:] if "Traceback" in done.stderr else ""


def unreadable_store(store: Path) -> str:
    """Return why a history has lost its first run; empty: it has not, or there is none."""
    if not store.exists():
        return ""
    argv = [*ISOBENCH, "history", "list", "--store", str(store)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else f"{done.returncode}: {done.stderr[-500:]}"


def is_bad(line: dict[str, Any]) -> bool:
    """Return whether a kill has shown a defect."""
    return bool(
        line["left"] or line["gone"] or line["unreadable"] or line["traceback"] or line.get("hung")
    )


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table: kills and defects by signal; then each defect."""
    yield "| signal | kills | in time | left | foreign gone | unreadable | hung | traceback |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in (*SIGNALS, "all"):
        mine = [one for one in lines if name in (one["signal"], "all")]
        counts = Counter(
            key
            for one in mine
            for key in ("left", "gone", "unreadable", "hung", "traceback")
            if one.get(key)
        )
        running = sum(not one["had_ended"] for one in mine)
        figures = [counts[key] for key in ("left", "gone", "unreadable", "hung", "traceback")]
        yield f"| {name} | {len(mine)} | {running} | {' | '.join(map(str, figures))} |"
    for one in filter(is_bad, lines):
        yield f"\n{json.dumps(one)}"


@click.command(help=__doc__ and __doc__.partition("\n\n")[0])
@click.option("--kills", type=click.IntRange(1), default=1000)
@click.option("--beside", type=click.IntRange(1), default=1, help="Commands at a time.")
@click.option("--seed", type=int, default=1)
@click.option("--out", type=click.Path(path_type=Path), default="kills.jsonl")
@click.option("--table", "file", type=click.Path(path_type=Path, exists=True))
def main(kills: int, beside: int, seed: int, out: Path, file: Path | None) -> None:
    """Kill isobench so many times; the exit code is 1 if anything was wrong."""
    if file is not None:
        click.echo("\n".join(table([json.loads(line) for line in file.read_text().splitlines()])))
        return
    # A shell that starts this in the background ignores SIGINT for it: isobench would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = everything()
    if before:
        raise click.ClickException(f"there is something of isobench already: {sorted(before)}")
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    left = sorted(set(range(kills)) - {line["number"] for line in done})
    look_alikes = LookAlikes()
    with look_alikes.made(), out.open("a") as results, ThreadPoolExecutor(beside) as pool:
        waiting = [pool.submit(kill, number, seed, look_alikes) for number in left]
        for each in as_completed(waiting):
            line = each.result()
            done.append(line)
            results.write(json.dumps(line) + "\n")
            results.flush()
            mark = "BAD" if is_bad(line) else "ok"
            click.echo(f"{len(done)}/{kills} {mark} {line['signal']} {' '.join(line['argv'])}")
    click.echo("\n".join(table(done)))
    sys.exit(any(map(is_bad, done)))


if __name__ == "__main__":
    main()
