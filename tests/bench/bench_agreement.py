"""Whether tools that know nothing of isobench see what it sees. A program, not a test:

    python tests/bench/bench_agreement.py [ROUNDS]

1. The cold start of Docker. hyperfine times a script that sends the engine the requests isobench
   sends (create, start) by curl, and the same script with requests that do nothing (`/_ping`,
   twice): the difference is what the engine takes. isobench's own figure is `startup.cold`, from
   the request to the payload's nonce.
2. CPU work in Docker. sysbench counts events natively and in a container, by turns; isobench's
   figure is the ratio of `cpu.sieve`.

Rounds alternate between the tools, so that all of them share the machine's moods. It needs docker,
hyperfine, curl and sysbench, and an engine at its usual socket; it removes the containers it makes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isobench import stats

SOCKET: Final = "/var/run/docker.sock"
RUNS: Final = 10
"""Of hyperfine in a round."""
LABEL: Final = "isobench.bench=agreement"
_CURL: Final = f"curl --silent --fail --unix-socket {SOCKET} -X"


def told(argv: Sequence[str], **options: Any) -> str:
    """Return what a command says; RuntimeError with its words where it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        message = f"{' '.join(argv)[:200]}: {done.stderr.strip()[-300:]}"
        raise RuntimeError(message)
    return done.stdout


def isobench(folder: Path, seed: int, blocks: int) -> dict[str, Any]:
    """Return the summary of one run of Docker against native."""
    out = folder / f"run-{seed}"
    told(
        [
            *(sys.executable, "-m", "isobench", "run", "-t", "docker", "-q"),
            *("-w", "startup.cold,cpu.sieve", "-r", str(blocks), "-o", str(out)),
        ]
    )
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary | {"folder": str(out)}


def starts(run: dict[str, Any]) -> Iterator[float]:
    """Yield Docker's cold starts of a run, in seconds."""
    for line in (Path(run["folder"]) / "records.jsonl").read_text().splitlines():
        row = json.loads(line)
        mine = (row.get("target"), row.get("workload")) == ("docker", "startup.cold")
        if mine and row.get("metric") == "time" and row.get("block", 0) > 0:
            yield row["value"] / 1e9


def image() -> str:
    """Return the image that isobench has made, with its payloads."""
    names = told(
        ["docker", "images", "--filter", "label=isobench", "--format", "{{.Repository}}:{{.Tag}}"]
    )
    return names.split()[0]


def script(folder: Path, name: str, lines: Sequence[str]) -> str:
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", "set -e", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def commands(folder: Path) -> tuple[str, str, str]:
    """Write the script that starts a container, the one that does nothing, and the one that
    removes what was made; return their paths.
    """
    asked = {
        "Image": image(),
        "Cmd": ["/isobench/_startup", "0123456789abcdef"],
        "Labels": dict([LABEL.split("=")]),
        "HostConfig": {"NetworkMode": "none"},
    }
    (folder / "create.json").write_text(json.dumps(asked))
    header = "-H 'Content-Type: application/json'"
    create = f"{_CURL} POST {header} -d @{folder}/create.json http://docker/containers/create"
    start = script(
        folder,
        "start",
        [
            f"said=$({create})",
            'id=${said#*\'"Id":"\'}',
            "id=${id%%'\"'*}",
            f"{_CURL} POST http://docker/containers/$id/start",
        ],
    )
    ping = f"{_CURL} GET http://docker/_ping"
    nothing = script(folder, "nothing", [f"said=$({ping})", f"{ping} >/dev/null"])
    remove = script(
        folder,
        "remove",
        [f"docker ps -aq --filter label={LABEL} | xargs -r docker rm -f >/dev/null"],
    )
    return start, nothing, remove


def hyperfine(command: str, folder: Path, prepare: str) -> list[float]:
    """Return the wall times of a command, in seconds."""
    out = folder / "hyperfine.json"
    told(
        [
            *("hyperfine", "-N", "--runs", str(RUNS), "--warmup", "1", "--style", "none"),
            *("--prepare", prepare, "--export-json", str(out), command),
        ]
    )
    times: list[float] = json.loads(out.read_text())["results"][0]["times"]
    return times


def sysbench(*prefix: str) -> float:
    """Return seconds per event."""
    said = told([*prefix, "/usr/bin/sysbench", "cpu", "--time=2", "--threads=1", "run"])
    found = re.search(r"events per second:\s*([\d.]+)", said)
    if found is None:
        message = f"sysbench said no rate: {said[-200:]}"
        raise RuntimeError(message)
    return 1 / float(found[1])


def inside() -> tuple[str, ...]:
    """Return the command that runs the host's own sysbench in a container of the same image."""
    mounts = [f"-v{path}:{path}:ro" for path in ("/usr", "/lib", "/lib64", "/etc")]
    shown = [path for path in mounts if Path(path[2:].partition(":")[0]).exists()]
    return ("docker", "run", "--rm", "--network=none", f"--label={LABEL}", *shown, image())


def median(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval, two one-sided bounds at 97.5 %."""
    array: NDArray[np.float64] = np.asarray(values)
    low = stats.quantile_lower(array, quantile=0.5, confidence=0.975)
    high = stats.quantile_upper(array, quantile=0.5, confidence=0.975)
    missing = float("nan")
    return float(np.median(array)), low or missing, high or missing


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main(rounds: int) -> None:
    """Measure and print a table in Markdown."""
    missing = [
        name for name in ("docker", "hyperfine", "curl", "sysbench") if not shutil.which(name)
    ]
    if missing:
        sys.exit(f"bench_agreement needs {', '.join(missing)}")
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"start": [], "nothing": []}
    pairs: list[tuple[float, float]] = []
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        isobench(folder, 0, 1)  # makes the image
        start, nothing, remove = commands(folder)
        try:
            for number in range(1, rounds + 1):
                runs.append(isobench(folder, number, 10))
                ours += starts(runs[-1])
                theirs["start"] += hyperfine(start, folder, remove)
                theirs["nothing"] += hyperfine(nothing, folder, "true")
                pairs += [(sysbench(*inside()), sysbench()) for _ in range(4)]
                sys.stderr.write(f"round {number} of {rounds}, load {os.getloadavg()[0]:.1f}\n")
        finally:
            told([remove])
    _print_starts(ours, theirs)
    _print_cpu(pairs, runs)


def _print_starts(ours: Sequence[float], theirs: dict[str, list[float]]) -> None:
    own = median(theirs["nothing"])
    say("| cold start of Docker | n | median | 95 % interval of the median |")
    say("|---|---|---|---|")
    less = [value - own[0] for value in theirs["start"]]
    for name, values in (
        ("isobench, startup.cold", ours),
        ("hyperfine, create and start by curl", theirs["start"]),
        ("the same less what curl itself takes", less),
        ("hyperfine, two requests that do nothing", theirs["nothing"]),
    ):
        at, low, high = (1000 * figure for figure in median(values))
        say(f"| {name} | {len(values)} | {at:.1f} ms | [{low:.1f}, {high:.1f}] |")


def _print_cpu(pairs: Sequence[tuple[float, float]], runs: Sequence[dict[str, Any]]) -> None:
    say("\n| CPU work in Docker over native | ratio | interval |")
    say("|---|---|---|")
    logs = np.log([subject / native for subject, native in pairs])
    found = stats.estimate(logs)
    if found is not None:
        bounds = f"[{found.interval.low:.3f}, {found.interval.high:.3f}]"
        say(f"| sysbench, {len(pairs)} pairs | {found.ratio:.3f} | {bounds} |")
    for number, run in enumerate(runs, 1):
        cell = next(
            c for c in run["cells"] if (c["target"], c["workload"]) == ("docker", "cpu.sieve")
        )
        low, high = cell["interval"]
        say(
            f"| isobench, cpu.sieve, run {number} | {cell['ratio']:.3f} | [{low:.3f}, {high:.3f}] |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
