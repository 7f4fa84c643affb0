"""Three nights of docs/ci/github-nightly.yml, step by step: in the third, a tool has become slower.

    python3 tests/nights.py              on this machine, in a folder of its own
    python3 tests/nights.py bookworm     in a fresh Debian root (needs root and mmdebstrap)

The target is `dialled`: native whose payload does a known share of work more. Its version and that
share come from a file, as from a tool that is upgraded: between the first and the second night its
version grows, between the second and the third its work by a fifth. The third night must find that,
confirm it with fresh blocks, name it by exit code, summary and annotation, and be kept in the
history although it fails; the second must not raise anything. `nox -s nights` calls it;
tests/live/test_nights.py does the first.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(CHECKOUT))

from tests import bare  # noqa: E402 - the path is set above
from tests.workflows import Execute, Job  # noqa: E402 - as above

NIGHTS: Final = 3
WORKLOADS: Final = "cpu.dial,cpu.sieve,cpu.sha256,syscall.getppid,io.metadata"


def tools(slower: int) -> list[dict[str, object]]:
    """Return the tool of each night."""
    return [
        {"version": "1.0", "permille": 0},
        {"version": "1.1", "permille": 0},
        {"version": "1.1", "permille": slower},
    ]


@dataclasses.dataclass(kw_only=True)
class Machine:
    """Where the steps run."""

    root: Path
    """As this process sees the machine's /."""
    home: Path
    """A folder that the steps may write to, as they see it."""
    execute: Callable[[Path], Execute]
    """Returns what runs a command in a folder of the machine."""
    environment: Mapping[str, str]
    adopt: Callable[[Path], None] = lambda _: None
    """Gives a file or a folder, as this process sees it, to the user of the steps."""

    def seen(self, inner: Path) -> Path:
        """Return where this process sees a file of the machine."""
        return self.root / inner.relative_to("/")


def night(machine: Machine, number: int, budget: str, slower: int = 200) -> Job:
    """Run the workflow once; return how it went. `slower`: thousandths, in the third night."""
    workspace, temporary = machine.home / "isobench", machine.home / f"night-{number}"
    tool = machine.home / "tool.json"
    machine.seen(tool).write_text(json.dumps(tools(slower)[number]))
    for left in ("isobench-run", "isobench-history"):  # a runner begins with a fresh checkout
        shutil.rmtree(machine.seen(workspace / left), ignore_errors=True)
    job = Job(
        root=machine.root,
        adopt=machine.adopt,
        workspace=workspace,
        temporary=temporary,
        cache=machine.seen(machine.home / "cache"),
        artifacts=machine.seen(machine.home / f"artifacts-{number}"),
        execute=machine.execute(workspace),
        environment={**machine.environment, "ISOBENCH_DIAL_TOOL": str(tool)},
        github={
            "run_id": str(100 + number),
            "run_attempt": "1",
            "server_url": "https://github.example",
            "repository": "a/b",
        },
        overrides={
            "targets": "dialled",
            "workloads": WORKLOADS,
            "budget": budget,
            "install": f"isobench[history,build] {workspace}/tests/bench/dialled_target",
            "arguments": f"--workload-folder {workspace}/tests/bench/workloads",
        },
    )
    job.run(machine.seen(workspace) / "docs/ci/github-nightly.yml")
    return job


def publish(machine: Machine, folder: Path) -> None:
    """Build the wheel that pip finds in a folder, which plays the package index."""
    argv = ("python3", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder))
    environment = dict(machine.environment)
    code, output = machine.execute(machine.home)(
        [*argv, str(machine.home / "isobench")], environment
    )
    assert code == 0, output
    known = environment.get("PIP_FIND_LINKS", "")
    machine.environment = environment | {"PIP_FIND_LINKS": f"{known} {folder}".strip()}


def here(folder: Path) -> Machine:
    """Return this machine, with a clone of the checkout in a folder, and its wheel."""
    workspace = folder / "isobench"
    subprocess.run(
        ["git", "clone", "--quiet", str(CHECKOUT), str(workspace)],
        check=True, env={**os.environ, "GIT_CONFIG_COUNT": "1",
                         "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
    )  # fmt: skip

    def execute(place: Path) -> Execute:
        def run(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
            done = subprocess.run(
                argv, cwd=place, env=dict(environment), stdin=subprocess.DEVNULL, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            return done.returncode, done.stdout

        return run

    own = bare.environment("root", str(folder), os.environ)
    # A runner's python3 brings pip; that of a virtual environment need not.
    own["PATH"] = f"{Path(sys.base_prefix) / 'bin'}:{own['PATH']}"
    for name in ("PIP_CONFIG_FILE", "PIP_FIND_LINKS"):
        if name in os.environ:
            own[name] = os.environ[name]
    settings = Path.home() / ".config" / "pip" / "pip.conf"
    if settings.exists():
        own.setdefault("PIP_CONFIG_FILE", str(settings))
    machine = Machine(root=Path("/"), home=folder, execute=execute, environment=own)
    publish(machine, folder / "wheels")
    return machine


def in_root(suite: str, top: Path) -> Machine:
    """Return a fresh Debian root with an ordinary user, a clone of the checkout, and its wheel."""
    root = top / suite
    bare.make(suite, root)
    bare.clone(root, "tester", top / "clone.log")
    log = top / "step.log"

    def execute(place: Path) -> Execute:
        def run(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
            log.write_text("")
            words = " ".join(map(quoted, argv))
            pairs = " ".join(quoted(f"{name}={value}") for name, value in environment.items())
            code = bare.call(root, "tester", f"env {pairs} {words}", log, folder=str(place))
            return code, log.read_text(errors="replace")

        return run

    owner = (root / "home" / "tester").stat()

    def adopt(path: Path) -> None:
        for each in (path, *path.rglob("*")):
            os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)

    machine = Machine(
        root=root,
        adopt=adopt,
        home=Path("/home/tester"),
        execute=execute,
        environment=bare.environment("tester", "/home/tester", os.environ),
    )
    publish(machine, Path("/home/tester/wheels"))
    return machine


def quoted(word: str) -> str:
    """Return a word for the shell."""
    return "'" + word.replace("'", "'\\''") + "'"


def check(jobs: Sequence[Job]) -> list[str]:
    """Return what is not as it must be after the three nights."""
    wrong = []
    for number, job in enumerate(jobs[:2], start=1):
        if job.failed:
            first = job.failed[0]
            wrong.append(f"night {number}: {first.name} failed: {first.output[-2000:]}")
        if "::error" in everything(job) or "regression:" in job.summary:
            wrong.append(f"night {number} raised an alarm")
    last, output = jobs[2], everything(jobs[2])
    if [step.code for step in last.failed] != [1]:
        wrong.append(f"night 3 ended with {[(s.name, s.code) for s in last.failed]}, not with 1")
    for text, what in (
        ("::error title=Confirmed regression::dialled cpu.dial", "annotation"),
        ("1 confirmed regression: dialled cpu.dial", "closing sentence"),
    ):
        if text not in output:
            wrong.append(f"night 3 has no {what} {text!r}: {output[-3000:]}")
    if "1 confirmed regression: dialled cpu.dial" not in last.summary:
        wrong.append("the summary of night 3 does not name the regression")
    return [*wrong, *lost(last)]


def lost(last: Job) -> Iterator[str]:
    """Yield what the third night has not left as it must."""
    uploaded = {path.name for path in (last.artifacts / "isobench").glob("*")}
    if uploaded != {"isobench-run.zip", "isobench-trend.html", "isobench-junit.xml"}:
        yield f"night 3 uploaded {uploaded}"
    elif 'message="' not in (last.artifacts / "isobench" / "isobench-junit.xml").read_text():
        yield "isobench-junit.xml has no failure"
    if not is_kept(last):
        yield "the history in the cache does not have the run of night 3"


def is_kept(job: Job) -> bool:
    """Return whether the newest history in the cache has the run that a job has uploaded."""
    saved = sorted(job.cache.glob("*"), key=lambda one: one.stat().st_mtime_ns)
    bundle = job.artifacts / "isobench" / "isobench-run.zip"
    if not saved or not bundle.exists():
        return False
    with zipfile.ZipFile(bundle) as opened:
        # Those of the runs that confirm it lie deeper.
        (document,) = [one for one in opened.namelist() if one.split("/")[1:] == ["run.json"]]
        run = json.loads(opened.read(document))["id"]
    # As the store names the file of a run: no library for Parquet is needed here.
    file = f"run-{hashlib.sha256(run.encode()).hexdigest()[:20]}.parquet"
    return any(saved[-1].rglob(file))


def everything(job: Job) -> str:
    """Return what all steps printed."""
    return "\n".join(step.output for step in job.steps)


def main(argv: Sequence[str]) -> int:
    """Run the nights, print what they said, and return whether all was as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", nargs="?", choices=[*bare.SUITES, None], metavar="SUITE")
    parser.add_argument("--budget", default="45s")
    chosen = parser.parse_args(argv)
    with contextlib.ExitStack() as stack:
        if chosen.suite:
            machine = in_root(chosen.suite, stack.enter_context(bare.temporary()))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="isobench-nights-"))
            machine = here(Path(folder))
        jobs = []
        for number in range(NIGHTS):
            jobs.append(night(machine, number, chosen.budget))
            for step in jobs[-1].steps:
                print(f"night {number + 1}: {step.name}: {step.code}")  # noqa: T201 - a program
            tail = "\n".join(everything(jobs[-1]).strip().splitlines()[-6:])
            print(tail, flush=True)  # noqa: T201 - a program
        wrong = check(jobs)
    print("\n".join(wrong) or "all as it must be")  # noqa: T201 - a program
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
