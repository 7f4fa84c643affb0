"""The command line: output, exit codes, and a hint for every mistake."""

import contextlib
import errno
import functools
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest

from isobench import __version__, stats
from isobench.cli import _front, _help, _progress, compare
from isobench.cli import run as run_module
from isobench.config import held, parameters, paths
from isobench.config.options import UNBOUNDED, RunOptions
from isobench.model import Cause, Gap, Lack, Leftover, Technology, Unavailable
from isobench.model.errors import PayloadError, UnavailableError, UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.payload import build, compiler, shipped
from isobench.plugins import packages, registry
from isobench.plugins.testing import FakeTarget
from isobench.report import comparison as report_comparison
from isobench.report import write
from isobench.report.write import Outcome
from isobench.run import cleanup, lifecycle, selection
from isobench.run.selection import Chosen
from isobench.selftest import planted, simulate
from isobench.selftest.scenarios import SCENARIOS
from isobench.storage import writer
from isobench.workloads import loader
from tests.unit.command import Done

COMMANDS = (
    *("run", "report", "verify", "compare", "noise", "targets", "workloads", "selftest", "doctor"),
    "clean",
)
HEAVY = (
    "click",
    "msgspec",
    "pandas",
    "numpy",
    "scipy",
    "docker",
    "requests",
    "rich",
    "jinja2",
    "psutil",
    "ziglang",
)
MISSING = Unavailable(lack=Lack.TOOL, what="jar", hint="apt install jar")
Write = Callable[..., Path]


Run = Callable[..., Done]

pytestmark = pytest.mark.usefixtures("somewhere")


def refused(done: Done, *words: str, code: int = 2) -> None:
    """Assert that a command was refused with all these words, on standard error alone."""
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.words


def in_a_process(*argv: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return of_python("-m", "isobench", *argv, **options)


def of_python(*argv: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *argv]
    # Without `env` a program gets what the C library knows, and a test that has run `main` in this
    # process has set a variable there alone.
    options = {"env": dict(os.environ), **options}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, **options
    )


@pytest.fixture
def two_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with native, which can run, and jar, which cannot."""

    class Two(registry.Registry):
        def names(self) -> tuple[TargetName, ...]:
            return (TargetName("native"), TargetName("jar"))

        def get(self, name: str) -> FakeTarget:
            if name not in self.names():
                raise UsageError(f"no target is called {name!r}", hint="isobench targets")
            if name == "jar":
                return FakeTarget(name=TargetName("jar"), availability=MISSING)
            return FakeTarget(name=TargetName("native"), technology=Technology.NATIVE)

    monkeypatch.setattr(registry, "Registry", Two)


# ---- help


def test_help_answers_without_any_heavy_library() -> None:
    program = (
        "import sys, isobench.cli as c\n"
        "sys.argv = ['isobench', '--help']\n"
        "try: c.main()\n"
        "except SystemExit as done: assert not done.code\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "loaded: []" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)


def test_an_interruption_inside_executed_text_keeps_the_exit_code() -> None:
    """Python ends itself by a signal after one, whatever the exit code: 124 was -2."""
    program = (
        "import sys, isobench.cli as c\n"
        "def interrupted():\n"
        "    try: exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt: sys.exit(124)\n"
        "c._main = interrupted\n"
        "c.main()\n"
    )
    assert of_python("-c", program).returncode == 124


BLAS = """
import ctypes, os
from isobench import cli

def command():
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    print(libc.getenv(b"OPENBLAS_NUM_THREADS"), os.environ.get("OPENBLAS_NUM_THREADS"))

cli._command = command
cli.main()
"""


@pytest.mark.parametrize(("users", "seen"), [(None, "b'1' None"), ("3", "b'3' 3")])
def test_a_library_is_told_to_start_no_threads_and_what_isobench_starts_is_not(
    users: str | None, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if users is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", users)
    assert of_python("-c", BLAS).stdout.strip() == seen


LIMITED = """
import os, resource, sys

limit = int(sys.argv[2])
resource.setrlimit(getattr(resource, sys.argv[1]), (limit, limit))
os.execv(sys.executable, [sys.executable, "-m", "isobench", "report", "none"])
"""


@pytest.mark.parametrize(("lack", "limit"), [("RLIMIT_AS", 100 << 20), ("RLIMIT_NOFILE", 4)])
def test_no_lack_of_memory_or_descriptors_has_the_exit_code_of_a_regression(
    lack: str, limit: int
) -> None:
    done = of_python("-c", LIMITED, lack, str(limit))
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith("isobench: ")
    assert "ulimit -v, -n" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_package_can_be_run_as_a_program() -> None:
    done = in_a_process("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout


def command(name: str) -> click.Command:
    found = _front.cli.get_command(click.Context(_front.cli), name)
    assert found is not None
    return found


def test_help_lists_every_command_in_whole_lines(isobench: Run) -> None:
    lines = isobench("--help").out.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == list(_help.COMMANDS)
    assert not any(line.endswith("...") for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_explains_itself_and_every_flag(name: str, flag: str, isobench: Run) -> None:
    done = isobench(name, flag)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: isobench {name}")
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=len) in done.out
            assert parameter.help, parameter


@pytest.mark.parametrize(
    "argv", [("rnu",), ("--frobnicate",), ("run", "--frobnicate"), ("targets", "extra")]
)
def test_an_unknown_command_or_option_is_refused_with_a_link_to_help(
    argv: tuple[str, ...], isobench: Run
) -> None:
    refused(isobench(*argv), argv[-1], "--help")


def test_a_misspelt_command_has_a_suggestion(isobench: Run) -> None:
    done = isobench("verfy")
    assert done.code == 2
    assert "No such command 'verfy': did you mean verify?" in done.err


def test_without_a_command_isobench_prints_what_to_type_next(isobench: Run) -> None:
    done = isobench()
    assert (done.code, done.err) == (0, "")
    assert "isobench run" in done.out
    assert "Nothing has been measured in this folder yet." in done.out


def test_without_a_command_isobench_prints_the_last_headline(
    somewhere: Path, isobench: Run
) -> None:
    latest = somewhere / "isobench-results" / "latest"
    latest.mkdir(parents=True)
    run = {"started": "2024-01-02T03:04:05Z", "headline": "All is well."}
    (latest / "summary.json").write_text(json.dumps({"schema_version": 1, "run": run}))
    assert "Last run (2024-01-02T03:04:05Z): All is well." in isobench().out


@pytest.mark.parametrize("text", [b"[]", b"{", b"\xff", b'{"run": 3}', b'{"run": {}}', b"null"])
def test_a_damaged_last_summary_is_ignored(text: bytes, somewhere: Path, isobench: Run) -> None:
    latest = somewhere / "isobench-results" / "latest"
    latest.mkdir(parents=True)
    (latest / "summary.json").write_bytes(text)
    assert "Nothing has been measured" in isobench().out


# ---- values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h0m1s", 3601.0),
        ("45", 45.0),
        (" 2m ", 120.0),
        ("0.05s", 0.05),
        ("50ms", 0.05),
        ("1m30s500ms", 90.5),
        ("1.5h", 5400.0),
        (30, 30.0),
    ],
)
def test_a_duration_is_read(text: Any, expected: float) -> None:
    assert parameters.Duration().convert(text, None, None) == pytest.approx(expected)


BAD_DURATIONS = (
    "10x",
    "",
    "0",
    "0s",
    "-5m",
    "m",
    "ten",
    "1.2.3s",
    "inf",
    "nan",
    "5 m!",
    "1d",
    "ms",
    "5 ms",
    "3 4m",
    "²m",
)


@pytest.mark.parametrize(
    "words",
    [("run", "-o"), ("report", "-o"), ("report", "--export-json"), ("report",), ("pack", "-o"),
     ("history", "list", "--store"), ("run", "--config"), ("run", "--workload-folder")],
)  # fmt: skip
def test_an_empty_path_is_refused(words: tuple[str, ...], isobench: Run) -> None:
    done = isobench(*words, "")
    assert done.code == 2
    assert "the path is empty" in done.err


@pytest.mark.parametrize("text", BAD_DURATIONS)
@pytest.mark.parametrize("flag", ["--budget", "--timeout", "--min-time"])
def test_a_wrong_duration_is_refused_with_examples(text: str, flag: str, isobench: Run) -> None:
    refused(isobench("run", f"{flag}={text}"), flag, repr(text), "90s, 10m or 1h30m")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5%", 0.05), ("2.5%", 0.025), ("0.05", 0.05), (" 1 %", 0.01), (0.3, 0.3)],
)
def test_a_share_is_read(text: Any, expected: float) -> None:
    assert parameters.Share().convert(text, None, None) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["5", "0%", "100%", "-1%", "five", "", "%", "nan%", "1e9%"])
@pytest.mark.parametrize("flag", ["--margin", "--target-precision"])
def test_a_wrong_share_is_refused_with_an_example(text: str, flag: str, isobench: Run) -> None:
    refused(isobench("run", f"{flag}={text}"), flag, repr(text), "5%")


@pytest.mark.parametrize(
    "argv",
    [
        ("--blocks", "0"),
        ("--blocks", "many"),
        ("--min-blocks", "-1"),
        ("--max-blocks", "100000"),
        ("--seed", "-1"),
        ("--seed", "x"),
        ("--schedule", "quartet"),
        ("--launch", "warm"),
        ("--color", "green"),
    ],
)
def test_a_wrong_value_is_refused_with_its_option(argv: tuple[str, str], isobench: Run) -> None:
    refused(isobench("run", *argv), argv[0], argv[1])


# ---- run: what is refused before anything runs


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("-t", "dockr"), ("no target is called 'dockr'", "isobench targets")),
        (("-t", "native,dockr"), ("'dockr'",)),
        (("--require", "dockr"), ("'dockr'", "isobench targets")),
        (("-w", "cpu.siev"), ("no workload or class is called 'cpu.siev'", "isobench workloads")),
        (("-w", "cpu", "-w", "ram"), ("'ram'",)),
        (("--workload-folder", "nowhere"), ("no such folder", "nowhere")),
        (("--quick", "--rigorous"), ("exclude each other",)),
        (
            ("--fail-on", "claims"),
            ("'claims'", "claim, documents, regression, error,"),
        ),
        (("--config", "missing.toml"), ("missing.toml", "No such file", "name a readable file")),
        (("-t", "native", "--fail-on", "regression"), ("native alone", "--targets NAME")),
    ],
)
def test_wrong_options_are_refused_with_a_hint(
    argv: tuple[str, ...], words: tuple[str, ...], isobench: Run, two_targets: None
) -> None:
    done = isobench("run", "-q", *argv)
    refused(done, *words)
    assert "→" in done.err


@pytest.mark.parametrize("argv", [("run", "-o"), ("run", "--claims"), ("pack", "-o"), ("report",)])
def test_a_path_is_no_standard_stream(argv: tuple[str, ...], isobench: Run) -> None:
    refused(isobench(*argv, "-"), "standard stream", "./-")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nblock = 3\n", ("isobench.toml", "block")),
        ("[run\n", ("isobench.toml",)),
        ('[run]\nbudget = "10x"\n', ("isobench.toml:2: [run] budget", "90s, 10m or 1h30m")),
        ('[run]\nmargin = "5"\n', ("'5'", "5%")),
        ('[run]\ntarget_precision = "x"\n', ("'x'", "5%")),
        ("[run]\nseed = -4\n", ("seed",)),
        ('[targets.fast]\nkind = "hyperkit"\n', ("hyperkit", "docker")),
        ('[targets.native]\nspeed = "high"\n', ("speed", "none")),
    ],
)
def test_a_mistake_in_the_configuration_is_refused_with_a_hint(
    text: str, words: tuple[str, ...], isobench: Run
) -> None:
    Path("isobench.toml").write_text(text)
    refused(isobench("run", "-t", "native", "-q", "--dry-run"), *words)


def test_a_mistake_is_reported_with_the_file_that_was_named(isobench: Run) -> None:
    Path("other.toml").write_text('[run]\nbudget = "soon"\n')
    done = isobench("run", "--config", "other.toml", "-q", "-n")
    refused(done, "other.toml:2: [run] budget: 'soon'", "fix it in other.toml")
    assert "Usage:" not in done.err
    Path("other.toml").write_text("[targets.qemu]\nmemory = 1\n")
    refused(isobench("run", "--config", "other.toml", "-q", "-n"), "fix it in other.toml")


def test_a_dry_run_refuses_exports(isobench: Run) -> None:
    refused(isobench("run", "-n", "--export-json", "-"), "nothing to export", "leave out")


def test_the_help_of_the_doctor_names_every_package(isobench: Run) -> None:
    done = isobench("doctor", "--help")
    assert all(name in done.words for name in packages.NAMES)


def test_a_target_that_cannot_run_is_refused_with_exit_code_3(
    isobench: Run, two_targets: None
) -> None:
    done = isobench("run", "-q", "-t", "jar")
    refused(done, "jar cannot run here: jar is not installed", "→ apt install jar", code=3)


def test_a_long_path_in_an_error_can_be_copied(somewhere: Path, isobench: Run) -> None:
    path = somewhere / ("long-" * 20) / ("longer-" * 20) / "run"
    refused(isobench("report", path))
    assert str(path) in isobench("report", path).err


def test_brackets_in_a_name_are_shown_as_they_are(isobench: Run, two_targets: None) -> None:
    refused(isobench("run", "-q", "-t", "[bold]x[/]"), "'[bold]x[/]'")


# ---- run: options


@pytest.fixture
def run_options_of(
    monkeypatch: pytest.MonkeyPatch, isobench: Run, two_targets: None
) -> Callable[..., RunOptions]:
    """Return a function that returns the RunOptions of a command line and the configuration."""
    seen: list[RunOptions] = []

    def chosen(options: RunOptions, *_: object) -> Chosen:
        seen.append(options)
        raise UnavailableError("far enough")

    monkeypatch.setattr(selection, "choose", chosen)

    def get(*argv: str) -> RunOptions:
        refused(isobench("run", "-q", *argv), "far enough", code=3)
        return seen.pop()

    return get


RunOptionsOf = Callable[..., RunOptions]


def test_without_options_the_defaults_hold(run_options_of: RunOptionsOf) -> None:
    options = run_options_of()
    assert (options.budget, options.minimum_blocks, options.maximum_blocks) == (300.0, 10, 200)
    assert (options.margin, options.precision, options.quick) == (0.05, 0.0025, False)
    assert (options.schedule, options.warmups) == ("rounds", 1)
    assert (options.targets, options.workloads, options.seed) == ((), (), None)


@pytest.mark.parametrize("launch", ["auto", "fresh", "reuse"])
def test_launch_reaches_the_run_options(launch: str, run_options_of: RunOptionsOf) -> None:
    assert run_options_of("--launch", launch).launch == launch


def test_options_reach_the_run_options(run_options_of: RunOptionsOf) -> None:
    options = run_options_of(
        *("-t", "native,jar", "-w", "cpu", "-w", "io,startup", "--budget", "2m", "--margin", "10%"),
        *("--target-precision", "1%", "--seed", "7", "--schedule", "sequential"),
        *("--min-time", "0.05s", "--timeout", "1h", "--require", "native", "-o", "out"),
        *("--warmup", "4"),
    )
    assert options.warmups == 4
    assert options.targets == ("native", "jar")
    assert options.workloads == ("cpu", "io", "startup")
    assert (options.budget, options.margin, options.precision, options.seed) == (
        120.0,
        0.1,
        0.01,
        7,
    )
    assert (options.schedule, options.minimum_time, options.time_limit) == (
        "sequential",
        0.05,
        3600.0,
    )
    assert (options.require, options.output) == (("native",), Path("out"))
    assert options.argv[:2] == ("run", "-q")


@pytest.mark.parametrize(
    ("flag", "quick", "most"),
    [("--quick", True, 5), ("--fast", False, 10), ("--rigorous", False, 1000)],
)
def test_a_preset_is_a_set_of_values(
    flag: str, quick: bool, most: int, run_options_of: RunOptionsOf
) -> None:
    options = run_options_of(flag)
    assert (options.quick, options.maximum_blocks) == (quick, most)
    assert options.minimum_blocks <= options.maximum_blocks


def test_an_option_overrides_a_preset(run_options_of: RunOptionsOf) -> None:
    assert run_options_of("--quick", "--budget", "30s").budget == 30.0


def test_blocks_sets_the_number_of_blocks_without_a_time_limit(
    run_options_of: RunOptionsOf,
) -> None:
    options = run_options_of("--blocks", "25")
    assert (options.minimum_blocks, options.maximum_blocks) == (25, 25)
    assert options.budget >= 86400
    assert run_options_of("--blocks", "25", "--budget", "1m").budget == 60.0


@pytest.mark.parametrize("argv", [("--min-blocks", "80"), ("--max-blocks", "4"), ("--blocks", "3")])
def test_minimum_blocks_are_never_more_than_maximum_blocks(
    argv: tuple[str, str], run_options_of: RunOptionsOf
) -> None:
    options = run_options_of(*argv)
    assert options.minimum_blocks <= options.maximum_blocks
    assert int(argv[1]) in (options.minimum_blocks, options.maximum_blocks)


CONFIGURED = """
[run]
targets = ["jar"]
workloads = ["io"]
budget = "1m"
margin = "10%"
seed = 3
blocks = { min = 11, max = 12 }
"""


def test_the_configuration_sets_options_that_are_not_given(run_options_of: RunOptionsOf) -> None:
    Path("isobench.toml").write_text(CONFIGURED)
    options = run_options_of()
    assert (options.targets, options.workloads) == (("jar",), ("io",))
    assert (options.budget, options.margin, options.seed) == (60.0, 0.1, 3)
    assert (options.minimum_blocks, options.maximum_blocks) == (11, 12)


def test_the_environment_overrides_the_file_and_an_option_overrides_both(
    run_options_of: RunOptionsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("isobench.toml").write_text(CONFIGURED)
    monkeypatch.setenv("ISOBENCH_TARGETS", "native, jar")
    monkeypatch.setenv("ISOBENCH_SEED", "4")
    assert (run_options_of().targets, run_options_of().seed) == (("native", "jar"), 4)
    assert (run_options_of("-t", "native").targets, run_options_of("--seed", "5").seed) == (
        ("native",),
        5,
    )


def test_a_dry_run_prints_the_plan_and_measures_nothing(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it measured")

    monkeypatch.setattr(lifecycle.Lifecycle, "run", refuse)
    done = isobench("run", "--dry-run", "-w", "cpu")
    assert done.code == 0
    assert "targets:   native" in done.out
    assert "skipped: jar: jar is not installed" in done.out
    assert "cpu.sieve" in done.out
    assert "io.fsync" not in done.out
    assert "blocks:    10 to 200, native twice" in done.out
    assert "blocks:    5, native twice" in isobench("run", "--dry-run", "-w", "cpu", "-r", 5).out


def test_a_dry_run_refuses_the_folder_that_the_run_would_refuse(
    isobench: Run, two_targets: None, synthetic: Write
) -> None:
    path = synthetic()
    for flags in (("--dry-run",), ()):
        done = isobench("run", "-q", "-o", path, *flags)
        refused(done, f"{path} holds a run already", "choose another folder")
    assert isobench("run", "--dry-run", "-o", path.parent / "other").code == 0


# ---- run: resuming


@pytest.fixture
def cut_short(synthetic: Write) -> Callable[..., Path]:
    """A run that was interrupted after one minute of five."""

    def write(**more: Any) -> Path:
        path = synthetic({("jar", "cpu.sieve"): 1.0, ("jar", "io.fsync"): 1.0}, seed=77)
        about = json.loads((path / "run.json").read_text())
        about |= {"interrupted": True, "budget_seconds": 300.0, "elapsed_seconds": 60.0}
        (path / "run.json").write_text(json.dumps(about | {"blocks_wanted": 12} | more))
        plan = json.loads((path / "plan.json").read_text())
        last = plan["blocks"][-1]
        number = last["number"] + 1
        visits = [{**visit, "block": number} for visit in last["visits"]]
        plan["blocks"].append({**last, "number": number, "visits": visits})
        (path / "plan.json").write_text(json.dumps(plan))
        return path

    return write


def test_a_run_that_is_still_measured_is_not_resumed(
    isobench: Run, cut_short: Callable[..., Path], two_targets: None
) -> None:
    path = cut_short()
    with contextlib.closing(writer.RunFolder(path)):
        done = isobench("run", "--resume", path)
    words = (
        f"still being measured: process {os.getpid()} writes",
        f"kill -INT {os.getpid()}",
        "--resume",
    )
    refused(done, *words)


def test_a_report_of_a_run_that_is_still_measured_has_a_note(
    isobench: Run, cut_short: Callable[..., Path]
) -> None:
    path = cut_short()
    with contextlib.closing(writer.RunFolder(path)):
        done = isobench("report", path)
    assert (done.code, (path / "report.html").is_file()) == (0, True)
    assert f"{path} is still being measured (process {os.getpid()})" in done.err
    assert "still being measured" not in isobench("report", path).err


def test_repeated_samples_get_no_verdict(isobench: Run, cut_short: Callable[..., Path]) -> None:
    path = cut_short()
    records = path / "records.jsonl"
    records.write_bytes(records.read_bytes() * 2)
    done = isobench("report", path)
    for part in ("records.jsonl:", "repeats the sample of line 1 ", "measure again"):
        assert part in done.words
    assert json.loads((path / "summary.json").read_text())["cells"] == []


def test_resuming_wishes_for_what_the_earlier_run_was_and_had_not_result(
    run_options_of: RunOptionsOf, cut_short: Callable[..., Path]
) -> None:
    options = run_options_of("--resume", str(cut_short()))
    assert sorted(options.targets) == ["jar", "native"]
    assert sorted(options.workloads) == ["cpu.sieve", "io.fsync"]
    assert options.seed == 77
    assert (options.budget, options.maximum_blocks) == (240.0, 12)


def test_resuming_uses_the_cpus_of_the_earlier_run(
    run_options_of: RunOptionsOf, cut_short: Callable[..., Path]
) -> None:
    mine = min(os.sched_getaffinity(0))
    options = run_options_of("--resume", str(cut_short(affinity=[mine])))
    assert options.affinity == {mine}


def test_resuming_on_cpus_that_cannot_be_used_is_refused(
    isobench: Run, cut_short: Callable[..., Path], two_targets: None
) -> None:
    path = cut_short(affinity=[4000])
    refused(isobench("run", "-q", "--resume", path), "CPU 4000 cannot be used here")


def test_resuming_ends_as_the_earlier_run_would_have(
    run_options_of: RunOptionsOf, cut_short: Callable[..., Path]
) -> None:
    path = str(cut_short(precision=0.0, until="decided"))
    options = run_options_of("--resume", path)
    assert (options.precision, options.until) == (0.0, "decided")
    assert run_options_of("--resume", path, "--target-precision", "1%").precision == 0.01


def test_resuming_a_run_whose_time_is_over_has_time_for_a_block(
    run_options_of: RunOptionsOf, cut_short: Callable[..., Path]
) -> None:
    # Shares of the budget are divided by it.
    assert run_options_of("--resume", str(cut_short(elapsed_seconds=500.0))).budget > 0


@pytest.mark.parametrize("elapsed", [None, 60.0, 1e5])
def test_resuming_a_run_without_a_budget_sets_none(
    elapsed: float | None, run_options_of: RunOptionsOf, cut_short: Callable[..., Path]
) -> None:
    path = cut_short(budget_seconds=None, elapsed_seconds=elapsed, blocks_wanted=30)
    options = run_options_of("--resume", str(path))
    assert (options.budget, options.maximum_blocks) == (UNBOUNDED, 30)


def test_resuming_accepts_more_time(
    run_options_of: RunOptionsOf, cut_short: Callable[..., Path]
) -> None:
    path = str(cut_short())
    assert run_options_of("--resume", path, "--budget", "2h").budget == 7200.0
    assert run_options_of("--resume", path, "--blocks", "9").maximum_blocks == 9


@pytest.mark.parametrize(
    "flag",
    [
        ("-w", "startup"),
        ("-t", "native"),
        ("--vary", "namespaces.network=host"),
        ("--min-time", "50ms"),
        ("--warmup", "3"),
        ("--affinity", "0"),
        ("--margin", "10%"),
        ("--quick",),
        ("--schedule", "sequential"),
    ],
)
def test_resuming_refuses_options_that_would_change_the_experiment(
    flag: tuple[str, ...], isobench: Run, cut_short: Callable[..., Path], two_targets: None
) -> None:
    refused(isobench("run", "-q", "--resume", cut_short(), *flag), "earlier run", "leave out")


def test_a_complete_run_is_resumed_only_with_more_time(
    isobench: Run, run_options_of: RunOptionsOf, cut_short: Callable[..., Path], two_targets: None
) -> None:
    path = cut_short(interrupted=False, finished="2026-11-22T05:01:15Z")
    done = isobench("run", "-q", "--resume", path)
    assert done.code == 5
    assert "is complete" in done.err
    assert "--budget" in done.err
    assert run_options_of("--resume", str(path), "--budget", "1h").budget == 3600.0


def test_resuming_without_a_name_takes_the_latest_run(
    run_options_of: RunOptionsOf, cut_short: Callable[..., Path], somewhere: Path
) -> None:
    (somewhere / "isobench-results").mkdir()
    (somewhere / "isobench-results" / "latest").symlink_to(cut_short())
    assert run_options_of("--resume").seed == 77


def test_a_run_that_ended_before_its_plan_cannot_be_resumed(
    isobench: Run, synthetic: Write, two_targets: None
) -> None:
    path = synthetic()
    (path / "plan.json").unlink()
    refused(isobench("run", "-q", "--resume", path), "before it had a plan", "isobench run")


def test_a_zip_of_a_run_cannot_be_resumed(
    isobench: Run, synthetic: Write, somewhere: Path, two_targets: None
) -> None:
    path = synthetic({("native#2", "cpu.sieve"): 1.0})
    with zipfile.ZipFile(somewhere / "bundle.zip", "w") as archive:
        for file in path.rglob("*"):
            archive.write(file, str(file.relative_to(path)))
    refused(isobench("run", "-q", "-t", "native", "--resume", somewhere / "bundle.zip"), "zip")


def test_a_folder_that_is_not_a_run_cannot_be_resumed(isobench: Run, two_targets: None) -> None:
    refused(isobench("run", "-q", "--resume"), "nothing has been measured")
    refused(isobench("run", "-q", "--resume", "nowhere"), "nowhere", "run.json")


# ---- run: how it ends


@pytest.fixture
def measured(
    monkeypatch: pytest.MonkeyPatch, isobench: Run, two_targets: None
) -> Callable[..., Done]:
    """Return a function that runs `isobench run` with the results of a folder."""

    def run(folder: Path, *argv: str, interrupted: bool = False, timed_out: bool = False) -> Done:
        def result(*_: object) -> Outcome:
            outcome = write.answer(folder, folder)
            return replace(outcome, interrupted=interrupted, timed_out=timed_out)

        monkeypatch.setattr(lifecycle.Lifecycle, "run", result)
        return isobench("run", *argv)

    return run


Measured = Callable[..., Done]


def test_a_run_ends_with_its_report_and_exit_code_0(measured: Measured, synthetic: Write) -> None:
    path = synthetic({("box", "cpu.sieve"): 1.3})
    done = measured(path)
    assert done.code == 0
    assert "cpu.sieve" in done.out
    assert str(path / "report.html") in done.out


def test_a_quiet_run_prints_only_its_closing_sentence(measured: Measured, synthetic: Write) -> None:
    done = measured(synthetic(), "--quiet")
    assert (done.code, done.err) == (0, "")
    assert "near-native (within 5 %)" in done.words
    assert "report.html" not in done.out


def test_a_failed_cell_gives_exit_code_6(measured: Measured, synthetic: Write) -> None:
    path = synthetic()
    with (path / "records.jsonl").open("a") as file:
        line = {"kind": "gap", "block": 15, "target": "box", "workload": "cpu.sieve"}
        file.write(json.dumps(line | {"cause": "failed", "detail": "x", "hint": "y"}) + "\n")
    assert measured(path, "-q").code == 6


@pytest.mark.parametrize(
    ("fail_on", "options", "code"),
    [
        ((), {"interrupted": True}, 130),
        ((), {"timed_out": True}, 124),
        (("--fail-on", "skipped"), {}, 3),
        (("--fail-on", "noisy"), {}, 4),
        (("--fail-on", "documents"), {}, 1),
        (("--fail-on", "noisy,documents"), {}, 1),
        ((), {}, 0),
        (("--fail-on", "error"), {}, 0),
    ],
)
def test_the_exit_code_shows_how_a_run_ended(
    fail_on: tuple[str, ...],
    options: dict[str, bool],
    code: int,
    measured: Measured,
    synthetic: Write,
) -> None:
    path = synthetic(
        {("docker", "cpu.sieve"): 3.0, ("docker", "cpu.sha256"): 1.05},
        unmeasured=("jar",),
        states={"jar": {"status": "unavailable", "reason": "r", "hint": "h"}},
        missing={("docker", "cpu.sha256"): frozenset(range(8))},
    )
    assert measured(path, "-q", *fail_on, **options).code == code


OWN_CLAIM = '[[claims]]\nid = "mine"\nquote = "x"\nkind = "equivalent"\ntargets = ["box"]\n'


def test_the_documents_sentences_are_no_claims_of_the_users(
    measured: Measured, synthetic: Write
) -> None:
    path = synthetic({("docker", "cpu.sieve"): 3.0})
    done = measured(path, "-q", "--fail-on", "claim")
    assert done.code == 0
    assert "no claim of yours to judge" in done.words
    Path("isobench.toml").write_text(OWN_CLAIM)
    done = measured(path, "-q", "--fail-on", "claim")
    assert done.code == 0
    assert "no claim of yours" not in done.words


def test_no_claims_are_judged_beside_a_configuration_that_is_ignored(
    isobench: Run, two_targets: None
) -> None:
    planted = Path("isobench.toml").absolute()
    planted.write_text("")
    planted.chmod(0o666)
    Path("mine.toml").write_text(OWN_CLAIM)
    done = isobench("run", "-n", "--fail-on", "claim")
    refused(done, f"{planted} may have claims, and is ignored: everyone may write it", "--config")
    assert isobench("run", "-n", "--fail-on", "claim", "--claims", "mine.toml").code == 0
    assert isobench("run", "-n", "--fail-on", "error").code == 0


def test_a_store_that_is_not_there_is_named(isobench: Run, two_targets: None) -> None:
    words = ("-q", "-t", "jar", "--fail-on", "regression", "--store")
    assert "--store nosuch: no history is there" in isobench("run", *words, "nosuch").err
    Path("there").mkdir()
    assert "no history is there" not in isobench("run", *words, "there").err


def test_an_export_that_cannot_be_written_leaves_a_run_its_exit_code(
    measured: Measured, synthetic: Write, tmp_path: Path
) -> None:
    path = synthetic({("docker", "cpu.sieve"): 3.0})
    words = ("-q", "--export-json", "/dev/full", "--export-csv", str(tmp_path / "all.csv"))
    for fail_on, code in (((), 2), (("--fail-on", "documents"), 1)):
        done = measured(path, *words, *fail_on)
        assert done.code == code
        assert "/dev/full: No space left on device" in done.err
        assert (tmp_path / "all.csv").is_file()
    assert measured(path, *words, interrupted=True).code == 130


def test_an_interrupted_run_prints_that_it_was_interrupted(
    measured: Measured, synthetic: Write
) -> None:
    done = measured(synthetic(about={"interrupted": True}), interrupted=True)
    assert done.code == 130
    assert "Interrupted" in done.out


@pytest.mark.parametrize("name", ["run", "a run"])
def test_an_interrupted_run_names_the_folder_where_it_is_now(
    name: str, measured: Measured, cut_short: Callable[..., Path], somewhere: Path
) -> None:
    """The command that has begun it may have named another, or another folder's own."""
    path = cut_short(argv=["run", "-o", "mine", "--workload-folder", "my own"])
    path = path.rename(somewhere / name)
    printed = measured(path, interrupted=True).out.splitlines()[-1]
    assert printed.endswith(
        f"Continue it with isobench run --resume {shlex.quote(str(path))}"
        " --workload-folder 'my own'"
    )
    relative = measured(Path(name), interrupted=True).out.splitlines()[-1]
    assert f"isobench run --resume {shlex.quote(name)} --workload-folder" in relative


def test_an_interrupted_run_that_is_the_latest_is_continued_without_its_folder(
    measured: Measured, cut_short: Callable[..., Path], somewhere: Path
) -> None:
    path = cut_short()
    (somewhere / "isobench-results").mkdir()
    (somewhere / "isobench-results" / "latest").symlink_to(path)
    printed = measured(path, interrupted=True).out
    assert printed.endswith("Continue it with isobench run --resume\n")


def test_an_interrupted_run_of_native_alone_is_continued_and_one_without_a_plan_is_not(
    measured: Measured, synthetic: Write
) -> None:
    path = synthetic({("native", "cpu.sieve"): 1.0}, about={"interrupted": True})
    assert "Continue it with isobench run --resume" in measured(path, interrupted=True).out
    (path / "plan.json").unlink()
    (path / "records.jsonl").write_bytes(b"")
    (path / "state" / "blocks.jsonl").unlink()
    run = json.loads((path / "run.json").read_text())
    run["plan_sha256"] = None
    (path / "run.json").write_text(json.dumps(run))
    done = measured(path, interrupted=True)
    assert "Interrupted: the report shows" in done.out
    assert "Continue it" not in done.out


def test_a_folder_that_is_missing_is_made_by_what_the_hint_says(
    isobench: Run, synthetic: Write, somewhere: Path
) -> None:
    path = synthetic()
    done = isobench("report", path, "--export-csv", "-no dir/x.csv")
    refused(done, "does not exist", "mkdir -p './-no dir', or name another")
    (somewhere / "a file").write_bytes(b"")
    done = isobench("report", path, "--export-csv", "a file/x.csv")
    refused(done, "a file is not a folder", "name another")
    assert "mkdir" not in done.err  # it would refuse


def test_the_report_of_a_run_that_is_measured_is_advised_with_its_folder_quoted(
    isobench: Run, cut_short: Callable[..., Path], somewhere: Path
) -> None:
    path = cut_short().rename(somewhere / "my run")
    with contextlib.closing(writer.RunFolder(path)):
        assert f"isobench report '{path}', when it has ended" in isobench("report", path).err
        assert f"isobench run --resume '{path}'" in isobench("run", "--resume", path).err


def test_an_interruption_when_everything_was_measured_is_said_as_that(
    measured: Measured, synthetic: Write
) -> None:
    done = measured(synthetic(), interrupted=True)
    assert done.code == 130
    assert "Interrupted when everything had been measured: the run is complete." in done.words
    assert "--resume" not in done.out


def test_an_interruption_before_any_result_gives_exit_code_130(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(selection, "choose", interrupt)
    refused(isobench("run"), "interrupted", code=130)


def test_sigterm_is_an_interruption(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "choose", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    refused(isobench("run"), "interrupted", code=130)


# ---- report


def test_a_report_is_written_into_the_folder_of_its_run(synthetic: Write, isobench: Run) -> None:
    path = synthetic({("box", "cpu.sieve"): 1.3})
    done = isobench("report", path)
    assert (done.code, done.err) == (0, "")
    assert "cpu.sieve" in done.out
    assert {"summary.json", "summary.md", "report.html"} <= {p.name for p in path.iterdir()}


def test_a_run_that_crashed_in_the_middle_of_a_line_gets_a_report(
    synthetic: Write, isobench: Run
) -> None:
    path = synthetic(about={"finished": None})
    records = (path / "records.jsonl").read_bytes()
    (path / "records.jsonl").write_bytes(records[: len(records) * 2 // 3])
    done = isobench("report", path)
    assert done.code == 0
    assert "cut short" in done.words


def test_a_report_of_a_zip_is_written_next_to_it(
    synthetic: Write, somewhere: Path, isobench: Run
) -> None:
    path = synthetic()
    with zipfile.ZipFile(somewhere / "bundle.zip", "w") as archive:
        for file in path.rglob("*"):
            archive.write(file, f"20240102/{file.relative_to(path)}")
    before = (somewhere / "bundle.zip").read_bytes()
    done = isobench("report", somewhere / "bundle.zip", "-q")
    assert done.code == 0
    assert f"report: {somewhere / 'bundle' / 'report.html'}" in done.out
    names = {p.name for p in (somewhere / "bundle").iterdir()}
    assert names == {"summary.json", "summary.md", "report.html"}
    assert (somewhere / "bundle.zip").read_bytes() == before


def test_a_zip_of_a_run_can_be_exported_in_every_form(
    synthetic: Write, somewhere: Path, isobench: Run
) -> None:
    path = synthetic()
    with zipfile.ZipFile(somewhere / "bundle.zip", "w") as archive:
        for file in path.rglob("*"):
            archive.write(file, str(file.relative_to(path)))
    wanted = {kind: somewhere / f"out.{kind}" for kind in ("json", "csv", "markdown", "html")}
    flags = [f"--export-{kind}={target}" for kind, target in wanted.items()]
    done = isobench("report", somewhere / "bundle.zip", *flags)
    assert done.code == 0, done
    assert all(target.stat().st_size > 100 for target in wanted.values())


def test_output_sets_the_folder_of_a_report_and_the_run_is_unchanged(
    synthetic: Write, somewhere: Path, isobench: Run
) -> None:
    path = synthetic()
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert isobench("report", path, "-o", somewhere / "new" / "place").code == 0
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert (somewhere / "new" / "place" / "report.html").is_file()


def test_samples_of_a_report_written_elsewhere_can_be_exported(
    synthetic: Write, somewhere: Path, isobench: Run
) -> None:
    flags = ("-o", somewhere / "elsewhere", "--export-csv", somewhere / "out.csv")
    done = isobench("report", synthetic(), *flags)
    assert done.code == 0, done
    assert (somewhere / "out.csv").read_text().startswith("block,target,workload")


def test_without_a_name_the_last_run_is_reported(synthetic: Write, isobench: Run) -> None:
    path = synthetic()
    (path.parent / "isobench-results").mkdir()
    (path.parent / "isobench-results" / "latest").symlink_to(path)
    assert isobench("report").code == 0


def test_json_on_standard_output_is_json_and_nothing_else(synthetic: Write, isobench: Run) -> None:
    done = isobench("report", synthetic(), "--export-json", "-")
    assert done.code == 0
    assert json.loads(done.out)["schema_version"] == 1
    assert "cpu.sieve" in done.err


def test_csv_on_standard_output_is_csv_and_nothing_else(synthetic: Write, isobench: Run) -> None:
    done = isobench("report", synthetic(), "--export-csv", "-")
    lines = done.out.splitlines()
    assert lines[0].startswith("block,target,workload,metric")
    assert {line.count(",") for line in lines if line} == {10}


def no_run(folder: Path) -> Path:
    return folder


def missing(folder: Path) -> Path:
    return folder / "nowhere"


def a_file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("no run")
    return folder / "notes.txt"


def a_zip_of_nothing(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "empty.zip", "w"):
        return folder / "empty.zip"


def half_a_zip(folder: Path) -> Path:
    (folder / "half.zip").write_bytes(b"PK\x03\x04" + bytes(30))
    return folder / "half.zip"


@pytest.mark.parametrize("make", [no_run, missing, a_file, a_zip_of_nothing, half_a_zip])
def test_a_report_of_something_else_than_a_run_is_refused_with_a_hint(
    make: Callable[[Path], Path], somewhere: Path, isobench: Run
) -> None:
    done = isobench("report", make(somewhere))
    refused(done, "run.json")
    assert "→" in done.err


@pytest.mark.parametrize("name", ["run.json", "plan.json", "records.jsonl"])
@pytest.mark.parametrize("text", ["{]\n", "[]\n", "null\n"])
def test_a_damaged_file_is_refused_with_a_hint(
    name: str, text: str, synthetic: Write, isobench: Run
) -> None:
    path = synthetic()
    (path / name).write_text(text)
    done = isobench("report", path)
    refused(done)
    assert "→" in done.err


@pytest.mark.parametrize("kind", ["json", "csv", "markdown", "html"])
def test_an_export_that_cannot_be_written_is_reported(
    kind: str, synthetic: Write, isobench: Run
) -> None:
    done = isobench("report", synthetic(), f"--export-{kind}", "/proc/nowhere/x")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "/proc/nowhere/x" in done.words
    assert "→" in done.err


def test_an_output_folder_that_cannot_be_created_is_reported(
    synthetic: Write, isobench: Run
) -> None:
    done = isobench("report", synthetic(), "-o", "/proc/nowhere")
    refused(done, "/proc/nowhere", "--output")


# ---- lists


def test_targets_are_listed_for_scripts(isobench: Run, two_targets: None) -> None:
    done = isobench("targets", "--json")
    assert json.loads(done.out) == [
        {
            "name": "native",
            "class": "native",
            "available": True,
            "version": "fake 1",
            "lack": None,
            "what": None,
            "hint": None,
        },
        {
            "name": "jar",
            "class": "sandbox",
            "available": False,
            "version": None,
            "lack": "tool",
            "what": "jar",
            "hint": "apt install jar",
        },
    ]


def test_targets_are_listed_for_people_with_what_to_type(isobench: Run, two_targets: None) -> None:
    done = isobench("targets")
    assert done.code == 0
    for words in ("native", "fake 1", "jar (tool)", "→ apt install jar"):
        assert words in done.words


LONG = "KVM_EXIT_INTERNAL_ERROR_" * 6 + "end"


def test_in_a_pipe_lines_are_not_wrapped_and_have_no_trailing_spaces(
    isobench: Run, monkeypatch: pytest.MonkeyPatch, two_targets: None
) -> None:
    command = "isobench doctor --install " + "something " * 20 + "jar"
    missing = Unavailable(lack=Lack.TOOL, what=LONG, hint=command)
    monkeypatch.setattr(sys.modules[__name__], "MISSING", missing)
    monkeypatch.delenv("COLUMNS")
    for color, terminal in itertools.product(("auto", "always"), ("xterm", "dumb")):
        monkeypatch.setenv("TERM", terminal)
        done = isobench("targets", "--color", color)
        assert command in done.out
        assert [line for line in done.out.splitlines() if line.endswith(" ")] == []


def test_long_text_is_wrapped_and_not_cut(
    isobench: Run, monkeypatch: pytest.MonkeyPatch, two_targets: None
) -> None:
    missing = Unavailable(lack=Lack.TOOL, what=LONG, hint="apt")
    monkeypatch.setattr(sys.modules[__name__], "MISSING", missing)
    monkeypatch.setenv("COLUMNS", "60")
    done = isobench("targets")
    assert "\N{HORIZONTAL ELLIPSIS}" not in done.out
    assert LONG in done.out.replace("\n", "").replace(" ", "")
    assert max(map(len, done.out.splitlines())) <= 60


def test_spaces_are_written_when_text_follows_them(capsys: pytest.CaptureFixture[str]) -> None:
    console = _progress.console_for(color="never")
    console.print("a  ", end="")
    console.print("b  ")
    assert capsys.readouterr().out == "a  b\n"


def test_workloads_are_listed_for_scripts(isobench: Run) -> None:
    rows = json.loads(isobench("workloads", "--json").out)
    assert [row["name"] for row in rows] == list(loader.find())
    assert all(set(row) == {"name", "class", "metrics", "summary"} for row in rows)


def test_workloads_are_listed_for_people(isobench: Run) -> None:
    done = isobench("workloads")
    assert done.code == 0
    assert all(name in done.out for name in loader.find())


def test_a_closed_pipe_is_not_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "isobench", "workloads", "--json"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


# ---- doctor and clean


def test_doctor_prints_what_is_missing_and_what_to_type(isobench: Run, two_targets: None) -> None:
    done = isobench("doctor")
    assert done.code == 0
    assert "→ apt install jar" in done.words
    assert "CPUs" in done.words


def test_a_doctor_says_which_payloads_came_and_what_the_compiler_is_for(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert re.search(r"compiler: zig cc [\d.]+", isobench("doctor").out)
    monkeypatch.setattr(build, "to_compile", lambda _: {})
    monkeypatch.setattr(compiler, "_zig", without_compiler)
    words = isobench("doctor").words
    assert "to be compiled: none" in words
    assert "no compiler is installed; only your own C workloads need it" in words
    assert "isobench doctor --install build" in words
    monkeypatch.setattr(build, "to_compile", lambda _: {"cpu.sieve": "its sources have changed"})
    words = isobench("doctor").words
    assert "to be compiled: 1 cpu.sieve: its sources have changed" in words
    assert "no compiler is installed; no run can start without it" in words


def without_compiler() -> NoReturn:
    raise PayloadError("no compiler is installed", hint=compiler.INSTALL)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a C workload, where the extra `build` is not installed."""
    monkeypatch.setattr(compiler, "_zig", without_compiler)
    monkeypatch.setattr(shipped, "obstacle", came_whole)
    folder = tmp_path / "mine" / "hash"
    shutil.copytree(paths.shared("workloads") / "cpu_sieve", folder)
    toml = folder / "workload.toml"
    toml.write_text(toml.read_text().replace("cpu.sieve", "app.hash"))
    return folder.parent


def came_whole(_program: str, source: Path, *_: object, **__: object) -> str:
    return "" if source.is_relative_to(paths.shared("workloads")) else f"yours ({source})"


@pytest.mark.parametrize("command", ["run", "noise"])
def test_a_workload_of_ones_own_without_a_compiler_is_refused_before_a_target_is_looked_for(
    command: str, own: Path, isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "probe_targets", lambda *_: pytest.fail("it looked for targets"))
    done = isobench(command, "--workload-folder", str(own), "--workloads", "app.hash")
    assert done.code == PayloadError.exit_code
    assert "no compiler is installed, and these payloads must be compiled:" in done.err
    assert f"app.hash: yours ({own}/hash/payload.c)" in done.err
    assert "isobench doctor --install build (or: pip install 'isobench[build]')" in done.err


def test_workloads_are_listed_with_those_that_no_compiler_here_can_build(
    own: Path, isobench: Run
) -> None:
    done = isobench("workloads", "--workload-folder", str(own))
    assert done.code == 0
    assert "app.hash: yours" in done.out
    assert "isobench doctor --install build" in done.out
    assert "compiler" not in isobench("workloads").out


@pytest.mark.parametrize(
    ("names", "code"), [(("native",), 0), (("jar",), 3), (("native", "jar"), 3), ((), 3)]
)
def test_a_check_fails_unless_every_named_target_can_run(
    names: tuple[str, ...], code: int, isobench: Run, two_targets: None
) -> None:
    assert isobench("doctor", "--check", *names).code == code


def test_doctor_refuses_an_unknown_target(isobench: Run, two_targets: None) -> None:
    refused(isobench("doctor", "dockr"), "'dockr'")


def test_installing_needs_names(isobench: Run, two_targets: None) -> None:
    refused(isobench("doctor", "--install"), "--install needs names", "docker", "qemu-user")


def test_installing_an_unknown_name_runs_nothing(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "manager", lambda: "apt-get")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it ran something"))
    refused(isobench("doctor", "--install", "--yes", "dockr"), "'dockr'", "docker")


def test_installing_shows_each_command_and_stops_at_the_first_that_fails(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "commands", lambda _: [["false", "update"], ["touch", "ran"]])
    done = isobench("doctor", "--install", "--yes", "bubblewrap")
    assert done.code == 2
    assert not Path("ran").exists()
    assert "$ false update" in done.out
    assert "this command failed: false update" in done.err


def test_what_installs_prints_no_secrets_and_controls_no_terminal(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = (
        "printf 'from https://me:hunter22@index/?token=more22\\none\\r\\033[2Jtwo\\n::error::x\\n';"
        " echo hunter33 >&2; sleep 60 & printf last; echo $! >sleeping"
    )
    monkeypatch.setenv("MY_TOKEN", "hunter33")
    monkeypatch.setattr(packages, "commands", lambda _: [["sh", "-c", says]])
    done = isobench("doctor", "--install", "--yes", "native")
    os.kill(int(Path("sleeping").read_text()), signal.SIGKILL)
    printed = done.out.partition("\nfrom")[2].splitlines()
    assert printed[:6] == [
        " https://***@index/?token=***", "one", r"\x1b[2Jtwo", ": :error::x", "***", "last",
    ]  # fmt: skip
    assert done.code == 0


def test_nothing_is_installed_where_nobody_can_be_asked(
    isobench: Run, two_targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    monkeypatch.setattr(packages, "commands", lambda _: [["touch", "ran"]])
    refused(isobench("doctor", "--install", "native"), "no terminal", "--yes")
    assert not Path("ran").exists()


def test_clean_prints_what_it_removed(isobench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def sweep(_: object, *, everything: bool, observer: Callable[[Leftover], None]) -> None:
        asked.append(everything)
        if everything:
            observer(Leftover(what="folder x"))
            observer(Leftover(what="pod y", failure="no cluster"))

    monkeypatch.setattr(cleanup, "sweep", sweep)
    assert isobench("clean").out == "removed folder x\nnot removed: pod y: no cluster\n"
    assert isobench("clean", "--stale").out == "nothing to remove\n"
    assert asked == [True, False]


@pytest.mark.parametrize("flag", ["--targets", "--workloads", "--require", "--fail-on"])
@pytest.mark.parametrize("value", ["", ",", " , "])
def test_an_empty_list_is_refused_and_never_means_everything(
    isobench: Run, flag: str, value: str
) -> None:
    refused(isobench("run", flag, value), flag, "the list of names is empty")


@pytest.mark.parametrize("value", ["0%", "100%", "500%", "-1%"])
def test_a_share_out_of_range_is_refused_with_the_range(isobench: Run, value: str) -> None:
    refused(isobench("run", f"--margin={value}"), "between 0% and 100%")


def test_more_minimum_than_maximum_blocks_are_refused(isobench: Run) -> None:
    done = isobench("run", "--min-blocks", "20", "--max-blocks", "5")
    refused(done, "at least 20 and at most 5")


@pytest.mark.parametrize("argv", [("report",), ("run", "--resume")])
def test_without_any_run_the_hint_is_to_measure(isobench: Run, argv: tuple[str, ...]) -> None:
    refused(isobench(*argv), "nothing has been measured", "isobench run --quick")


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file" / "cache")}
    done = in_a_process("run", "-t", "native", "-w", "cpu.sieve", "-r", "1", env=environment)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr


def test_a_probe_that_calls_exit_is_a_fault_of_the_plug_in() -> None:
    class Rude(FakeTarget):
        def probe(self) -> Unavailable:
            raise SystemExit(9)

    answers = selection.probe_targets(
        {TargetName("rude"): Rude(name=TargetName("rude"))}, lambda *_: None
    )
    answer = answers[TargetName("rude")]
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.PLUGIN


def test_escape_sequences_of_a_plug_in_do_not_reach_the_terminal() -> None:
    bad = Unavailable(lack=Lack.PLUGIN, what="\x1b[31mred", hint="\x1b]0;title\x07")
    row = _progress.target_row("bad", "sandbox", bad)
    assert "\x1b" not in row["what"] + row["hint"]
    assert "\\x1b" in row["what"]


# ---- selftest


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Simulate one scenario, and biases, with few runs; return the arguments of the simulations."""
    asked: list[dict[str, Any]] = []
    right = simulate.run
    biases = functools.partial(planted.run, replications=500)

    def few(*, replications: int, seed: int, **options: Any) -> simulate.Simulation:
        asked.append({"replications": replications, "seed": seed})
        scenarios = SCENARIOS[:1]
        return right(replications=200, seed=seed, scenarios=scenarios, **options)

    monkeypatch.setattr(simulate, "run", few)
    monkeypatch.setattr(planted, "run", lambda *, replications, seed: biases(seed=seed))
    return asked


def test_a_self_test_ends_with_tables_and_a_sentence(
    simulated: list[dict[str, Any]], isobench: Run
) -> None:
    done = isobench("selftest")
    assert (done.code, done.err) == (0, "")
    assert simulated == [{"replications": 1000, "seed": 1}]
    for words in ("Native against itself", "near-native", "stopped, ", "quiet: log-normal"):
        assert words in done.words
    assert done.words.endswith("wrong than allowed.")


@pytest.mark.parametrize(
    ("argv", "replications", "seed"),
    [
        (("stats",), 1000, 1),
        (("--replications", "700", "--seed", "9"), 700, 9),
        (("--rigorous",), 5000, 1),
    ],
)
def test_options_reach_the_self_test(
    argv: tuple[str, ...],
    replications: int,
    seed: int,
    simulated: list[dict[str, Any]],
    isobench: Run,
) -> None:
    isobench("selftest", *argv, "--json")
    assert simulated == [{"replications": replications, "seed": seed}]


def test_a_self_test_for_scripts_is_json_and_nothing_else(
    simulated: list[dict[str, Any]], isobench: Run
) -> None:
    found = json.loads(isobench("selftest", "--json").out)
    assert found["held"] is True
    assert found["rows"][0]["scenario"] == "quiet"


def test_a_self_test_for_documents_is_markdown(
    simulated: list[dict[str, Any]], isobench: Run
) -> None:
    done = isobench("selftest", "--markdown")
    assert done.code == 0
    assert "| quiet | 1.05 |" in done.out


@pytest.mark.parametrize("form", [(), ("--json",), ("--markdown",)])
def test_a_broken_guarantee_gives_exit_code_1_and_is_named(
    form: tuple[str, ...],
    simulated: list[dict[str, Any]],
    isobench: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = stats.block_log_ratios
    monkeypatch.setattr(stats, "block_log_ratios", lambda *sides: right(*sides) + 0.03)
    done = isobench("selftest", *form)
    assert done.code == 1
    assert "guarantees are broken: quiet, true ratio 1.00, 10 blocks" in done.words


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--json", "--markdown"), ("exclude each other", "use one")),
        (("--rigorous", "--replications", "700"), ("exclude each other", "use one")),
        (("--replications", "10"), ("--replications", "10")),
        (("speed",), ("'speed'", "stats")),
    ],
)
def test_wrong_options_of_the_self_test_are_refused(
    argv: tuple[str, ...], words: tuple[str, ...], isobench: Run
) -> None:
    refused(isobench("selftest", *argv), *words)


INTERRUPTED_IN_A_FINALIZER = """
import signal, time
from isobench.cli import _errors

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

# It may be ignored: a shell without job control ignores it for its background jobs.
signal.signal(signal.SIGINT, signal.default_int_handler)
_errors.handle_termination()
try:
    Finalized()
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interruption_in_a_finalizer_is_not_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_A_FINALIZER],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


SIGNALLED = """
import os, signal, sys, time
from isobench.cli import _errors

_errors.handle_termination()
try:
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(0.2)
    print("ignored")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("ignored", "sent", "expected"),
    [
        ([], "SIGINT", "interrupted"),
        ([], "SIGHUP", "interrupted"),
        ([], "SIGTERM", "interrupted"),
        (["SIGINT"], "SIGINT", "ignored"),  # a background job of a shell without job control
        (["SIGHUP"], "SIGHUP", "ignored"),  # nohup
        (["SIGHUP"], "SIGINT", "interrupted"),
        (["SIGINT", "SIGHUP", "SIGTERM"], "SIGTERM", "interrupted"),
    ],
)
def test_signals_ignored_at_the_start_stay_ignored_except_sigterm(
    ignored: list[str], sent: str, expected: str
) -> None:
    def inherited() -> None:
        for name in ("SIGINT", "SIGHUP", "SIGTERM"):
            how = signal.SIG_IGN if name in ignored else signal.SIG_DFL
            signal.signal(getattr(signal, name), how)

    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, sent], preexec_fn=inherited,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"{expected}\n"


# ---- affinity


@pytest.mark.parametrize("value", ["", "a", "1-", "3-1", "0,,1", "-1", "1.5"])
def test_a_wrong_list_of_cpus_is_refused_with_examples(isobench: Run, value: str) -> None:
    refused(isobench("run", "--affinity", value), "is not a list of CPUs: write 2, 0,2 or 2-5")


def test_a_cpu_that_cannot_be_used_is_refused_with_the_usable_ones(isobench: Run) -> None:
    refused(
        isobench("run", "--affinity", "0,60000"), "CPU 60000 cannot be used here", "usable CPUs: 0"
    )


def test_cpus_are_read_as_linux_lists_them() -> None:
    assert parameters.Cpus().convert("0,2-4", None, None) == frozenset({0, 2, 3, 4})


# ---- compare


def test_the_help_of_compare_names_every_column() -> None:
    assert compare._COLUMNS == report_comparison.COLUMNS


@pytest.fixture
def three(synthetic: Write) -> tuple[Path, Path, Path]:
    """Write a run, a slower one, and another slower one."""
    paths = [
        synthetic({("box", "cpu.sieve"): ratio}, name=name, seed=seed, about={"id": name})
        for seed, (name, ratio) in enumerate((("old", 1.0), ("new", 1.3), ("newer", 1.3)))
    ]
    return (paths[0], paths[1], paths[2])


def test_compare_prints_cells_and_a_closing_sentence(
    isobench: Run, three: tuple[Path, Path, Path]
) -> None:
    done = isobench("compare", *three[:2])
    assert done.code == 0
    assert "suspected regression" in done.out
    assert "\x1b[" not in done.out
    assert done.words.endswith("shows it again confirms it (--confirm RUN).")
    quiet = isobench("compare", *three[:2], "-q")
    assert quiet.words in done.words


def test_compare_fails_only_on_confirmed_regressions_and_writes_exports_first(
    isobench: Run, three: tuple[Path, Path, Path], somewhere: Path
) -> None:
    old, new, newer = three
    assert isobench("compare", old, new, "--fail-on", "regression").code == 0
    target = somewhere / "comparison.json"
    done = isobench(
        "compare", old, new, "--confirm", newer, "--fail-on", "regression",
        "--export-json", target,
    )  # fmt: skip
    assert done.code == 1
    assert json.loads(target.read_text())["cells"][0]["confirmed"] is True
    assert "confirmed regression" in done.out
    assert isobench("compare", old, new, "--confirm", newer).code == 0
    assert isobench("compare", new, old, "--confirm", old.parent / "none").code == 2


def test_compare_accepts_patterns_of_runs(
    isobench: Run, three: tuple[Path, Path, Path], synthetic: Write
) -> None:
    old, new, _ = three
    again = synthetic({("box", "cpu.sieve"): 1.0}, name="old2", seed=9, about={"id": "old2"})
    (old.parent / "newest").symlink_to(new)  # as `latest` is: no run of its own
    done = isobench(
        "compare", "--base", old, "--base", again, "--head", f"{old.parent}/new*",
        "--export-json", "-", "--fail-on", "regression",
    )  # fmt: skip
    assert done.code == 1
    found = json.loads(done.out)
    assert (found["mode"], len(found["base"]["runs"]), len(found["head"]["runs"])) == (
        "histories",
        2,
        2,
    )


def test_compare_accepts_one_run_with_two_targets(isobench: Run, synthetic: Write) -> None:
    path = synthetic({("box", "cpu.sieve"): 1.0, ("jar", "cpu.sieve"): 1.0})
    done = isobench("compare", path, "--targets", "box,jar", "--export-markdown", "-")
    assert done.code == 0
    assert "| cpu.sieve | 1.00 | 1.00 |" in done.out
    assert "jar against box" in done.out
    assert "1 the same within 5 %" in done.err


def test_a_zip_without_an_ending_has_no_place_for_a_report(
    isobench: Run, synthetic: Write, somewhere: Path
) -> None:
    bundle = somewhere / "no ending"
    assert isobench("pack", synthetic(), "-o", bundle).code == 0
    done = isobench("report", bundle)
    refused(done, "without an ending", f"isobench report '{bundle}' -o DIR")
    assert isobench("report", bundle, "-o", somewhere / "its report", "-q").code == 0


def test_a_zip_through_a_pipe_is_called_that(
    isobench: Run, synthetic: Write, somewhere: Path
) -> None:
    pipe = somewhere / "pipe"
    os.mkfifo(pipe)
    for words in (("report", pipe), ("verify", pipe), ("compare", synthetic(), pipe)):
        refused(isobench(*words), "is a pipe or a device", "save the zip in a file first")


@pytest.mark.parametrize("name", ["summary.json", "summary.md", "report.html"])
def test_a_full_disk_at_the_report_says_that_what_was_measured_is_kept(
    name: str,
    isobench: Run,
    measured: "Measured",
    synthetic: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = synthetic(name="my run")
    real = held.Folder.replace

    def full(self: held.Folder, file: str, content: bytes) -> None:
        if file == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path / file))
        real(self, file, content)

    monkeypatch.setattr(held.Folder, "replace", full)
    kept = ("what was measured is kept", f"isobench report '{path}' --output ELSEWHERE")
    for done in (measured(path), isobench("report", path)):
        refused(done, f"{path / name}: No space left", *kept)
        assert "XDG_CACHE_HOME" not in done.err


def test_compare_reads_latest_and_zips(
    isobench: Run, three: tuple[Path, Path, Path], somewhere: Path
) -> None:
    old, new, _ = three
    (somewhere / "isobench-results").mkdir()
    (somewhere / "isobench-results" / "latest").symlink_to(new)
    bundle = somewhere / "old.zip"
    with zipfile.ZipFile(bundle, "w") as archive:
        for path in old.rglob("*"):
            archive.write(path, path.relative_to(old.parent))
    assert "1.30x" in isobench("compare", bundle, "latest").words


@pytest.mark.parametrize("command", [("report",), ("compare", "old"), ("run", "-t", "native")])
def test_two_exports_to_standard_output_are_refused(
    command: tuple[str, ...],
    isobench: Run,
    three: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(three[0].parent)
    last = () if command[0] == "run" else ("new",)
    done = isobench(*command, *last, "--export-json", "-", "--export-csv", "-")
    refused(done, "--export-json - and --export-csv -", "takes one export only", "→")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("old",), ("two runs", "--base")),
        (("old", "old"), ("given twice",)),
        (("old", "nothing"), ("not a run", "no such folder or zip")),
        (("--base", "old", "--head", "zzz*"), ("no run matches",)),
        (("old", "--base", "old"), ("two runs",)),
        (("old", "new", "--columns", "colour"), ("'colour'", "standing")),
        (("old", "new", "--fail-on", "rain"), ("'rain'", "regression")),
        (("old", "--targets", "box,jug"), ("'jug'", "native, box")),
        (("old", "--targets", "native,box"), ("native is no target", "report old compares each")),
    ],
)
def test_compare_refuses_wrong_arguments_with_a_hint(
    argv: tuple[str, ...],
    words: tuple[str, ...],
    isobench: Run,
    three: tuple[Path, Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(three[0].parent)
    refused(isobench("compare", *argv), *words, "→")


def test_runs_that_cannot_be_compared_have_an_exit_code_of_their_own(
    isobench: Run, three: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three[0].parent)
    done = isobench("compare", "old", "new", "--workloads", "io")
    refused(done, "in common", "selected", "→", code=7)


def test_compare_fails_on_unproven_or_lost_cells_with_fail_on(
    isobench: Run, three: tuple[Path, Path, Path], synthetic: Write
) -> None:
    few = synthetic(name="few", blocks=5, about={"id": "few", "quick": True})
    assert isobench("compare", three[0], few).code == 0
    assert isobench("compare", three[0], few, "--fail-on", "noisy").code == 4
    both = {("box", "cpu.sieve"): 1.0, ("box", "io.fsync"): 1.0}
    base = synthetic(both, name="both", about={"id": "both"})
    gap = Gap(
        block=1,
        target=TargetName("box"),
        workload=WorkloadName("io.fsync"),
        cause=Cause.FAILED,
        detail="the disk is full",
    )
    head = synthetic(name="lost", seed=5, about={"id": "lost"}, gaps=[gap])
    assert isobench("compare", base, head, "--fail-on", "regression,noisy").code == 0
    done = isobench("compare", base, head, "--fail-on", "error")
    assert done.code == 6
    assert "the disk is full" in done.words


# ---- noise


def test_noise_of_a_run_ends_with_the_resolved_effects(
    isobench: Run, synthetic: Write, somewhere: Path
) -> None:
    target = somewhere / "noise.json"
    done = isobench("noise", synthetic(), "--export-json", target, "--fail-on", "noisy")
    assert done.code == 0
    assert "resolves about" in done.words
    assert json.loads(target.read_text())["workloads"][0]["workload"] == "cpu.sieve"


def test_noise_above_the_margin_gives_an_exit_code_with_fail_on(
    isobench: Run, synthetic: Write
) -> None:
    path = synthetic(noise=0.1)
    assert isobench("noise", path).code == 0
    assert isobench("noise", path, "--fail-on", "noisy").code == 4
    assert isobench("noise", path, "--fail-on", "noisy", "--margin", "50%").code == 0


def test_noise_refuses_a_folder_that_is_not_a_run(isobench: Run) -> None:
    refused(isobench("noise", "nowhere"), "nowhere is not a run")
    refused(isobench("noise", "latest"), "nothing has been measured")
    refused(isobench("noise", "--fail-on", "claim"), "'claim'", "noisy")


# ---- run: what resuming keeps


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("-o", "other"), "the folder"),
        (("--seed", "7"), "the seed of the earlier run, 77"),
        (("--launch", "reuse"), "the launch of the earlier run, auto"),
    ],
)
def test_resuming_refuses_what_contradicts_the_run(
    words: tuple[str, ...],
    kept: str,
    isobench: Run,
    cut_short: Callable[..., Path],
    two_targets: None,
) -> None:
    done = isobench("run", "--resume", cut_short(launch="auto"), *words)
    assert done.code == 2
    assert f"--resume keeps {kept}" in done.words


def test_a_seed_of_the_environment_contradicts_no_run(
    isobench: Run,
    cut_short: Callable[..., Path],
    two_targets: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ISOBENCH_SEED", "7")
    monkeypatch.setattr(run_module, "_measured", lambda *_: None)
    assert isobench("run", "--resume", cut_short()).code == 0


def test_a_run_with_all_blocks_of_its_plan_is_not_resumed(
    isobench: Run, synthetic: Write, two_targets: None
) -> None:
    path = synthetic({("jar", "cpu.sieve"): 1.0}, blocks=4)
    done = isobench("run", "--resume", path, "--budget", "20s")
    assert done.code == 5
    assert "is complete: its plan has 4 blocks" in done.words
    assert "--budget" not in done.words
