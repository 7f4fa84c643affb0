"""How often a true difference of known size is found, and one cried where there is none: isobench,
hyperfine and pyperf on the same work, at equal wall time.

    python tests/bench/bench_dial.py --trials 10 --budget 20s --out dial.jsonl
    python tests/bench/bench_dial.py --table dial.jsonl
    python tests/bench/bench_dial.py --truth

Needs the extra `bench` (pyperf) and the program hyperfine. The workloads are cpu.dial, whose work a
dial makes longer by so many thousandths, and startup.dial, which waits longer; their other answers
stay the same. A trial compares dial 0 with one dial, once, as a user of the tool would:

    isobench        isobench run --targets dialled --budget …: its defaults, which are content with
                    intervals of 0.25 %. "dialled" is native that sees the dial (dialled_target/)
    isobench-fine   the same, told to go on until the budget is spent (--target-precision 0.1%)
    isobench-short  the same with short iterations, so that there are many blocks (--min-time 10ms)
    hyperfine       one invocation with two commands, as many runs as the budget allows
    pyperf          pyperf command, twice, as many processes as the budget allows; pyperf compare_to

Each trial is one line of the file, with its raw numbers and what else the machine did meanwhile; a
second call goes on where the first ended, and rules of decision can be applied again to old lines.
Every round has each cell once, in random order: tools and dials share the machine's moods. How much
work fits into the budget is learnt from the trials before, for each tool and condition by itself.
"""

import contextlib
import json
import math
import os
import random
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import psutil
from scipy import stats as distributions

from isobench.config import parameters
from isobench.model import host_abi
from isobench.payload import build, wire
from isobench.workloads import loader

HERE: Final = Path(__file__).resolve().parent
WORKLOADS: Final = HERE / "workloads"
LOOPS: Final = 2500
"""Loops of cpu.dial in a process that competitors time: about 0.1 s, pyperf's own least."""
FLOOR, CEILING = 3, 5000
"""Bounds of how many runs or processes a competitor is given."""
ALPHA: Final = 0.05


# ---- what a trial found: pure --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule of decision makes of one trial."""

    outcome: str
    """"slower", "faster" or "nothing": of the dialled side, against dial 0."""
    ratio: float | None
    low: float | None = None
    high: float | None = None
    """Bounds of the ratio, where the rule has them."""
    status: str = ""
    """isobench's verdict, which is about its margin of 5 %: "near-native", "slower" …"""

    @property
    def half_width(self) -> float | None:
        """Half the interval's width on the log scale, as a share (0.01: 1 %)."""
        if not self.low or not self.high:
            return None
        return math.sqrt(self.high / self.low) - 1


def by_interval(raw: Mapping[str, Any]) -> Finding:
    """isobench: a cell of its summary. A difference is found where the interval leaves out 1."""
    if raw["interval"] is None:
        return Finding(outcome="nothing", ratio=raw["ratio"])
    low, high = raw["interval"]
    return Finding(
        outcome="slower" if low > 1 else "faster" if high < 1 else "nothing",
        ratio=raw["ratio"],
        low=low,
        high=high,
        status=raw["standing"],
    )


def by_noise_floor(raw: Mapping[str, Any]) -> Finding:
    """isobench, read with care: a difference is found where the interval lies beyond what native
    against native showed in the same run.
    """
    found = by_interval(raw)
    if found.low is None or found.high is None or raw["noise"] is None:
        return replace(found, outcome="nothing")
    floor = 1 + raw["noise"]
    outcome = "slower" if found.low > floor else "faster" if found.high < 1 / floor else "nothing"
    return replace(found, outcome=outcome)


def by_welch(raw: Mapping[str, Any]) -> Finding:
    """hyperfine: Welch's t-test of the exported times at 5 %, as a script in its repository does.

    The bounds are those of the same test, of the difference over the first mean.
    """
    first, other = np.asarray(raw["first"], float), np.asarray(raw["other"], float)
    ratio = float(other.mean() / first.mean())
    test = distributions.ttest_ind(other, first, equal_var=False)
    bounds = test.confidence_interval(1 - ALPHA)
    return Finding(
        outcome=_direction(ratio, found=bool(test.pvalue < ALPHA)),
        ratio=ratio,
        low=1 + float(bounds.low / first.mean()),
        high=1 + float(bounds.high / first.mean()),
    )


def by_summary(raw: Mapping[str, Any]) -> Finding:
    """hyperfine: the line "A ran 1.02 ± 0.03 times faster than B" that it ends with, read as most
    will: a difference where what is printed leaves out 1.

    The figure after ± is made of both relative standard deviations, and does not shrink with the
    number of runs.
    """
    first, other = raw["first"], raw["other"]
    means = statistics.fmean(first), statistics.fmean(other)
    spread = math.hypot(statistics.stdev(first) / means[0], statistics.stdev(other) / means[1])
    ratio = means[1] / means[0]
    quick = max(ratio, 1 / ratio)  # the fastest is the reference, whichever that is
    printed = round(quick, 2) - round(quick * spread, 2)
    return Finding(
        outcome=_direction(ratio, found=printed > 1),
        ratio=ratio,
        low=ratio * (1 - spread),
        high=ratio * (1 + spread),
    )


def by_its_word(raw: Mapping[str, Any]) -> Finding:
    """pyperf: what `pyperf compare_to` says. ValueError: it says something else.

    The bounds are those of the t-test it makes: two samples, one common variance.
    """
    first, other = np.asarray(raw["first"], float), np.asarray(raw["other"], float)
    ratio = float(other.mean() / first.mean())
    bounds = distributions.ttest_ind(other, first).confidence_interval(1 - ALPHA)
    said = raw["said"].lower()
    if "not significant" in said or "no change" in said:
        outcome = "nothing"
    elif "slower" in said or "faster" in said:
        outcome = "slower" if "slower" in said else "faster"
    else:
        raise ValueError(f"pyperf compare_to says neither slower nor faster: {raw['said']!r}")
    return Finding(
        outcome=outcome,
        ratio=ratio,
        low=1 + float(bounds.low / first.mean()),
        high=1 + float(bounds.high / first.mean()),
    )


def _direction(ratio: float, *, found: bool) -> str:
    if not found:
        return "nothing"
    return "slower" if ratio > 1 else "faster"


Rule = Callable[[Mapping[str, Any]], Finding]
RULES: Final[Mapping[str, Sequence[tuple[str, Rule]]]] = {
    **{
        tool: [(tool, by_interval), (f"{tool}, beyond its noise floor", by_noise_floor)]
        for tool in ("isobench", "isobench-fine", "isobench-short")
    },
    "hyperfine": [("hyperfine, Welch test", by_welch), ("hyperfine, its ±", by_summary)],
    "pyperf": [("pyperf compare_to", by_its_word)],
}
"""How trials of each tool are judged: names of rows, and their rules."""
TOOLS: Final = tuple(RULES)
CONDITIONS: Final = ("quiet", "noisy")


def rate(hits: int, of: int) -> str:
    """Return a rate with its Wilson interval of 95 %: "80 % (55-93)"."""
    if not of:
        return "-"
    bounds = distributions.binomtest(hits, of).proportion_ci(0.95, method="wilson")
    low, high = 100 * bounds.low, 100 * bounds.high
    return f"{100 * hits / of:.0f} % ({abs(low):.0f}-{high:.0f})"


def _median(values: Sequence[float | None], pattern: str, factor: float = 1) -> str:
    known = [value for value in values if value is not None]
    return pattern.format(factor * statistics.median(known)) if known else "-"


HEADER: Final = (
    *("rule", "true difference", "trials", "found slower", "found faster"),
    *("called near-native", "called slower or faster", "holds the truth", "estimate"),
    *("± half-width", "runs or blocks", "seconds", "others' CPUs"),
)


def table(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield Markdown: a table for each workload and condition, a row for each rule and dial.

    Trials that failed are counted beneath it. Estimates, half-widths, seconds and loads are
    medians; the interval behind a rate is Wilson's, at 95 %. "Holds the truth": the rule's bounds
    have the true ratio between them, where that is known exactly.
    """
    groups = dict.fromkeys(
        (line["workload"], line["condition"])
        for line in sorted(lines, key=lambda one: CONDITIONS.index(one["condition"]))
    )
    for workload, condition in sorted(groups, key=lambda group: group[0]):
        mine = [x for x in lines if (x["workload"], x["condition"]) == (workload, condition)]
        yield f"**`{workload}`, {condition}**"
        yield ""
        yield f"| {' | '.join(HEADER)} |"
        yield "|" + "|".join("---" if i == 0 else "---:" for i, _ in enumerate(HEADER)) + "|"
        for dial in sorted({line["dial"] for line in mine}):
            for tool in TOOLS:
                cell = [x for x in mine if (x["tool"], x["dial"]) == (tool, dial)]
                good = [x for x in cell if "raw" in x]
                for name, rule in RULES[tool] if good else ():
                    yield _row(name, dial, good, [rule(line["raw"]) for line in good])
        failed = [line for line in mine if "raw" not in line]
        yield ""
        if failed:
            tools = ", ".join(sorted({line["tool"] for line in failed}))
            yield f"{len(failed)} trials failed ({tools}): {failed[0]['error']}"
            yield ""


def pooled(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one Markdown table of cpu.dial over all conditions: a row for each rule."""
    good = [line for line in lines if "raw" in line and line["workload"] == "cpu.dial"]
    dials = sorted({line["dial"] for line in good} - {0})
    header = ["rule", "false alarms", *(f"found {dial / 10:g} %" for dial in dials)]
    header += ["wrong direction", "holds the truth"]
    yield f"| {' | '.join(header)} |"
    yield "|" + "|".join("---" if i == 0 else "---:" for i, _ in enumerate(header)) + "|"
    for tool in TOOLS:
        mine = [line for line in good if line["tool"] == tool]
        for name, rule in RULES[tool] if mine else ():
            found = [(line["dial"], rule(line["raw"])) for line in mine]
            cells = [name, _share([x.outcome != "nothing" for dial, x in found if not dial])]
            cells += [
                _share([x.outcome == "slower" for dial, x in found if dial == one]) for one in dials
            ]
            cells.append(_share([x.outcome == "faster" for dial, x in found if dial]))
            cells.append(
                _share([held for dial, x in found if (held := _holds(x, dial)) is not None])
            )
            yield f"| {' | '.join(cells)} |"


def _share(hits: Sequence[bool]) -> str:
    """Return a rate with what it is made of: "3 of 4, 75 % (30-95)"."""
    return f"{sum(hits)} of {len(hits)}, {rate(sum(hits), len(hits))}" if hits else "-"


def _holds(found: Finding, dial: int) -> bool | None:
    """Say whether bounds have the true ratio of cpu.dial between them; None: there are none."""
    if found.low is None or found.high is None:
        return None
    return found.low <= 1 + dial / 1000 <= found.high


def _row(
    name: str, dial: int, trials: Sequence[Mapping[str, Any]], found: Sequence[Finding]
) -> str:
    count = len(found)
    verdicts = [one.status for one in found]
    held = [_holds(one, dial) for one in found]
    cells = (
        name,
        f"{dial / 10:g} %",
        str(count),
        rate(sum(one.outcome == "slower" for one in found), count),
        rate(sum(one.outcome == "faster" for one in found), count),
        rate(verdicts.count("near-native"), count) if any(verdicts) else "-",
        rate(verdicts.count("slower") + verdicts.count("faster"), count) if any(verdicts) else "-",
        # A start has parts that are no waiting: what share the dial adds to it nobody knows.
        "-"
        if trials[0]["workload"] != "cpu.dial"
        else f"{held.count(True)} of {held.count(True) + held.count(False)}",
        _median([one.ratio and one.ratio - 1 for one in found], "{:+.2f} %", 100),
        _median([one.half_width for one in found], "{:.2f} %", 100),
        _median([line["count"] for line in trials], "{:.0f}"),
        _median([line["seconds"] for line in trials], "{:.1f}"),
        _median([line["others"] for line in trials], "{:.2f}"),
    )
    return f"| {' | '.join(cells)} |"


# ---- the noisy neighbour -------------------------------------------------------------------------


@contextlib.contextmanager
def neighbours(seed: int) -> Iterator[list[int]]:
    """Let neighbour.py burn every CPU in bursts while the context lasts; yields the processes'
    numbers.

    They also end by themselves when this process is gone, whatever ended it.
    """
    program = str(HERE / "neighbour.py")
    with contextlib.ExitStack() as stack:
        started = []
        for cpu in sorted(os.sched_getaffinity(0)):
            # It is told whose child it is: this process may be gone before it can ask.
            argv = [sys.executable, program, str(cpu), str(seed), str(os.getpid())]
            process = subprocess.Popen(argv)
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process.pid)
        yield started


# ---- trials --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One comparison to make."""

    tool: str
    workload: str
    dial: int
    condition: str
    number: int

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What tells it from all others of a file."""
        return (self.tool, self.workload, self.dial, self.condition, self.number)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where trials find what they run."""

    folder: Path
    """For what a trial writes; emptied after each."""
    site: Path
    """A directory of Python modules in which "dialled" is an installed target."""
    programs: Mapping[str, Path]
    """The payloads, by workload."""
    budget: float
    """Seconds of wall time for one trial."""
    lines: list[dict[str, Any]]
    """The trials so far, from the first."""

    def earlier(self, trial: Trial) -> list[dict[str, Any]]:
        """Return the trials so far that cost what this one will, the latest ten."""
        alike = (trial.tool, trial.workload, trial.condition)
        found = [
            line
            for line in self.lines
            if (line["tool"], line["workload"], line["condition"]) == alike and "raw" in line
        ]
        return found[-10:]

    def count(self, trial: Trial, guess: float) -> int:
        """Return how many runs of a competitor fill the budget; `guess`: seconds that one takes,
        where no earlier trial tells.
        """
        earlier = self.earlier(trial)
        if earlier:
            guess = sum(x["seconds"] for x in earlier) / sum(x["count"] for x in earlier)
        return min(max(round(self.budget / guess), FLOOR), CEILING)

    def command(self, trial: Trial, dial: int) -> list[str]:
        """Return the payload's command line with this dial."""
        program = str(self.programs[trial.workload])
        if trial.workload == "startup.dial":
            return [program, "x", str(dial)]
        # No timed iteration: the untimed first one is the whole of its work.
        return [program, "x", "0", str(LOOPS), str(dial)]

    def alone(self, trial: Trial) -> float:
        """Return how many seconds the payload takes by itself."""
        began = time.monotonic()
        _run(self.command(trial, trial.dial))
        return time.monotonic() - began


class TrialError(Exception):
    """A tool failed."""


def _run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; return what it printed. TrialError: it failed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise TrialError(f"{argv[0]}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


MORE: Final[Mapping[str, Sequence[str]]] = {
    "isobench": (),
    "isobench-fine": ("--target-precision", "0.1%", "--max-blocks", "1000"),
    "isobench-short": (
        *("--target-precision", "0.1%", "--max-blocks", "1000"),
        *("--min-time", "0.01s"),
    ),
}
"""The flags of isobench's ways."""


def run_isobench(bench: Bench, trial: Trial) -> dict[str, Any]:
    """Measure by isobench's own command line."""
    # What lies before its budget begins and after it has ended: an interpreter, and a report.
    spent = [line["seconds"] - line["given"] for line in bench.earlier(trial) if line["all_of_it"]]
    budget = bench.budget - (statistics.median(spent) if spent else 2.0)
    configuration = bench.folder / "isobench.toml"
    configuration.write_text(f"[targets.dialled]\npermille = {trial.dial}\n")
    argv = [sys.executable, "-m", "isobench", "run", "--quiet", "--targets", "dialled"]
    argv += ["--workloads", trial.workload, "--workload-folder", str(WORKLOADS)]
    argv += ["--config", str(configuration), "--budget", f"{budget:.2f}s"]
    argv += ["--output", str(bench.folder / "run"), *MORE[trial.tool]]
    path = os.pathsep.join([str(bench.site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    _run(argv, {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)})
    summary = json.loads((bench.folder / "run" / "summary.json").read_text())
    (cell,) = [one for one in summary["cells"] if one["target"] == "dialled"]
    kept = ("ratio", "interval", "standing", "log_ratios", "doubt_codes", "reference")
    work = summary["workloads"][0]
    return {
        "count": cell["blocks"],
        "given": budget,
        "all_of_it": summary["run"]["stopped"] == "budget",
        "raw": {
            **{key: cell[key] for key in kept},
            "noise": summary["run"]["noise"][trial.workload],
            "invalid": summary["run"]["blocks_invalid"],
            "loops": work.get("loops"),
        },
    }


def run_hyperfine(bench: Bench, trial: Trial) -> dict[str, Any]:
    """Measure both commands by one call of hyperfine, without a shell between."""
    runs = bench.count(trial, 2 * bench.alone(trial))
    exported = bench.folder / "times.json"
    commands = [" ".join(bench.command(trial, dial)) for dial in (0, trial.dial)]
    argv = ["hyperfine", "-N", "--style", "none", "--warmup", "3", "--runs", str(runs)]
    _run([*argv, "--export-json", str(exported), *commands])
    results = json.loads(exported.read_text())["results"]
    first, other = (_seconds(one["times"]) for one in results)
    return {"count": runs, "raw": {"first": first, "other": other}}


def run_pyperf(bench: Bench, trial: Trial) -> dict[str, Any]:
    """Measure both commands by two calls of pyperf, and ask it what it makes of them."""
    # A process of pyperf is an interpreter that starts another for each of four values.
    processes = bench.count(trial, 2 * (0.3 + 4 * (max(bench.alone(trial), 0.1) + 0.05)))
    files = [str(bench.folder / name) for name in ("first.json", "other.json")]
    for file, dial in zip(files, (0, trial.dial), strict=True):
        argv = [sys.executable, "-m", "pyperf", "command", "--quiet", "--name", "dial"]
        _run([*argv, "-p", str(processes), "-o", file, "--", *bench.command(trial, dial)])
    said = _run([sys.executable, "-m", "pyperf", "compare_to", *files])
    first, other = map(_pyperf_values, files)
    return {"count": processes, "raw": {"first": first, "other": other, "said": said.strip()}}


def _pyperf_values(file: str) -> list[float]:
    """Return all values of a file of pyperf, in seconds; its calibration is none of them."""
    (benchmark,) = json.loads(Path(file).read_text())["benchmarks"]
    return _seconds([value for run in benchmark["runs"] for value in run.get("values", ())])


def _seconds(values: Sequence[float]) -> list[float]:
    """Return times to a tenth of a microsecond: more is no news, and makes long lines."""
    return [round(value, 7) for value in values]


RUNNERS: Final[Mapping[str, Callable[[Bench, Trial], dict[str, Any]]]] = {
    **dict.fromkeys(MORE, run_isobench),
    "hyperfine": run_hyperfine,
    "pyperf": run_pyperf,
}


def _busy() -> float:
    """Return the seconds that all CPUs have been busy since the machine started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _ours() -> float:
    """Return the CPU seconds of this process and its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def measure(bench: Bench, trial: Trial) -> dict[str, Any]:
    """Make one trial, with the neighbour it wants; return its line. What fails is said there."""
    line: dict[str, Any] = {
        "tool": trial.tool,
        "workload": trial.workload,
        "dial": trial.dial,
        "condition": trial.condition,
        "number": trial.number,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_before": os.getloadavg()[0],
    }
    whole, busy, ours = time.monotonic(), _busy(), _ours()
    with contextlib.ExitStack() as stack:
        if trial.condition == "noisy":
            stack.enter_context(neighbours(secrets.randbelow(1 << 31)))
        began = time.monotonic()
        try:
            found = RUNNERS[trial.tool](bench, trial)
        except (TrialError, OSError, ValueError, KeyError) as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        line["seconds"] = round(time.monotonic() - began, 2)
    elsewhere = (_busy() - busy) - (_ours() - ours)
    line |= {
        "load_after": os.getloadavg()[0],
        # The neighbours are ours.
        "others": round(max(0.0, elsewhere / (time.monotonic() - whole)), 3),
    }
    for leftover in bench.folder.iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return line | found


def plan(
    tools: Sequence[str],
    names: Sequence[str],
    dials: Sequence[int],
    conditions: Sequence[str],
    trials: int,
    *,
    seed: int,
) -> list[Trial]:
    """Return all trials: round by round, each with every cell once, in random order."""
    rng = random.Random(seed)  # noqa: S311 - an order to replay, not a secret
    planned: list[Trial] = []
    for number in range(trials):
        whole = [
            Trial(tool=tool, workload=name, dial=dial, condition=condition, number=number)
            for tool in tools
            for name in names
            for dial in dials
            for condition in conditions
        ]
        rng.shuffle(whole)
        planned += whole
    return planned


def truth(program: Path, dials: Sequence[int], *, rounds: int = 40) -> Iterator[str]:
    """Yield what cpu.dial takes by the shortest of very many iterations, for each dial.

    Whatever else the machine does only makes iterations longer; its clock rate moves, so that a
    dial is held against dial 0 in the same tenth of a second: the median of all rounds' ratios.
    """
    ratios: dict[int, list[float]] = {dial: [] for dial in dials if dial}
    for _ in range(rounds):
        least = _shortest(program, 0)
        for dial, found in ratios.items():
            found.append(_shortest(program, dial) / least - 1)
    for dial, found in ratios.items():
        yield f"dial {dial / 10:g} %: {100 * statistics.median(found):+.2f} %"


def _shortest(program: Path, dial: int) -> int:
    """Return the shortest of 300 iterations of five loops, ns."""
    argv = [str(program), "n", "300", "5", str(dial)]
    done = subprocess.run(argv, capture_output=True, check=True)
    reply = wire.read(done.stdout, nonce="n", iterations=300)
    return min(one.nanoseconds for one in reply.iterations)


# ---- the command ---------------------------------------------------------------------------------


def read(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of trials; the last may have been cut short, and counts not."""
    lines = []
    for text in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def build_programs(folder: Path) -> dict[str, Path]:
    """Build the payloads of both workloads as isobench does, and copy them into `folder`."""
    abi = host_abi()
    if abi is None:
        raise click.ClickException("isobench has no payloads for this machine")
    found = [one for one in loader.find([WORKLOADS]).values() if one.name.endswith(".dial")]
    built = build.build_all(build.programs(found), [abi], host=abi)
    return {
        str(one.program): Path(shutil.copy2(one.path, folder / one.program))
        for one in built
        if one.program.endswith(".dial")
    }


def make_site(folder: Path) -> Path:
    """Make a directory of modules in which the target "dialled" is installed, for processes that
    have it on their path alone.
    """
    site = folder / "site"
    information = site / "isobench_dialled-1.0.dist-info"
    information.mkdir(parents=True)
    shutil.copy(HERE / "dialled_target" / "isobench_dialled.py", site)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: isobench-dialled\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[isobench.targets]\ndialled = isobench_dialled:DialledTarget\n"
    )
    return site


@contextlib.contextmanager
def opened(budget: float, lines: list[dict[str, Any]]) -> Iterator[Bench]:
    """Make what trials need; all of it is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="isobench-dial-") as name:
        whole = Path(name)
        (whole / "trial").mkdir()
        (whole / "programs").mkdir()
        yield Bench(
            folder=whole / "trial",
            site=make_site(whole),
            programs=build_programs(whole / "programs"),
            budget=budget,
            lines=lines,
        )


def _words(known: Sequence[str]) -> Callable[..., tuple[str, ...]]:
    def read_words(_context: object, _parameter: object, value: str) -> tuple[str, ...]:
        words = tuple(word.strip() for word in value.split(",") if word.strip())
        for word in words:
            if word not in known:
                raise click.BadParameter(f"{word!r} is none of {', '.join(known)}")
        return words

    return read_words


def _numbers(_context: object, _parameter: object, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter("thousandths, with commas: 0,5,10") from None


@click.command(help=__doc__ and __doc__.partition("\n\n")[0])
@click.option("--trials", type=click.IntRange(1), default=10, help="Of each cell.")
@click.option("--budget", type=parameters.Duration(), default="20s", help="Wall time of one trial.")
@click.option("--dials", callback=_numbers, default="0,5,10,20,50", help="Thousandths.")
@click.option("--conditions", callback=_words(CONDITIONS), default="quiet,noisy")
@click.option("--tools", callback=_words(TOOLS), default="isobench,hyperfine,pyperf")
@click.option(
    "--workloads", "names", callback=_words(("cpu.dial", "startup.dial")), default="cpu.dial"
)
@click.option("--seed", type=int, default=1, help="Of the order.")
@click.option("--out", type=click.Path(path_type=Path), default="dial.jsonl", help="One line each.")
@click.option(
    "--table",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Measure nothing: print the tables of a file, or of several together.",
)
@click.option(
    "--truth", "true", is_flag=True, help="Show what the dials are, by the shortest times."
)
@click.option(
    "--pause-while",
    type=click.Path(path_type=Path),
    help="Between trials, wait while this file exists: the machine is wanted for other work.",
)
@click.option(
    "--most-others",
    type=float,
    default=math.inf,
    help="With --table: leave out trials during which others kept more CPUs busy than this.",
)
def main(  # noqa: PLR0917 - click passes them by name
    trials: int,
    budget: float,
    dials: Sequence[int],
    conditions: Sequence[str],
    tools: Sequence[str],
    names: Sequence[str],
    seed: int,
    out: Path,
    files: Sequence[Path],
    pause_while: Path | None,
    most_others: float,
    true: bool,
) -> None:
    if files:
        lines = [one for file in files for one in read(file) if one["others"] <= most_others]
        click.echo("\n".join([*pooled(lines), "", *table(lines)]))
        return
    if true:
        with opened(budget, []) as bench:
            click.echo("\n".join(truth(bench.programs["cpu.dial"], dials)))
        return
    lines = read(out)
    keys = ("tool", "workload", "dial", "condition", "number")
    done = {tuple(line[key] for key in keys) for line in lines}
    left = [
        t for t in plan(tools, names, dials, conditions, trials, seed=seed) if t.key not in done
    ]
    with opened(budget, lines) as bench, out.open("a") as stream:
        for position, trial in enumerate(left, start=1):
            while pause_while is not None and pause_while.exists():
                time.sleep(1)
            line = measure(bench, trial)
            lines.append(line)
            stream.write(json.dumps(line, separators=(",", ":")) + "\n")
            stream.flush()
            said = line.get("error") or str(RULES[trial.tool][0][1](line["raw"]).outcome)
            click.echo(f"{position}/{len(left)} {trial.key} {line['seconds']} s: {said}", err=True)
    click.echo("\n".join(table(lines)))


if __name__ == "__main__":
    main()
