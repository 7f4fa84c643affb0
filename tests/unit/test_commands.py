"""Commands that isobench prints for the user to paste."""

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

import isobench
from isobench.cli.run import run
from isobench.model import commands

PACKAGE = Path(isobench.__file__).parent


def read(words: Sequence[str]) -> dict[str, Any]:
    """Return what click reads from a command line of `isobench run`."""
    return run.make_context("run", [*words]).params


def pasted(command: str) -> dict[str, Any]:
    """Return what click reads from a command when a shell has read it."""
    isobench, name, *words = shlex.split(command)
    assert (isobench, name) == ("isobench", "run")
    return read(words)


# ---- command lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("run -t docker", ""),
        ("run -o mine -t docker", "mine"),
        ("run -omine", "mine"),
        ("run --output mine", "mine"),
        ("run --output=mine/of|today", "mine/of|today"),
        ("run -q -- tar -o there", ""),
        ("run -qo mine", "mine"),
        ("run -o -o/r", "-o/r"),
        ("run -t -o -o mine", "mine"),
        ("run --config -omine -o there", "there"),
        ("run -o", ""),
    ],
)
def test_the_folder_is_that_which_click_reads(line: str, folder: str) -> None:
    words = line.split()
    assert commands.named_folder(words) == folder
    if words[-1] != "-o" and "--" not in words:
        assert read(words[1:])["output"] == (Path(folder) if folder else None)


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("run --resume", ""),
        ("run --resume -q", ""),
        ("run --resume mine --budget 1m", "mine"),
        ("run --resume=-o/r", "-o/r"),
        ("run -o mine", ""),
    ],
)
def test_a_resumed_folder_is_that_which_click_reads(line: str, folder: str) -> None:
    assert commands.resumed_folder(line.split()) == folder
    resumed = read(line.split()[1:])["resume"]
    assert (resumed or "") in (folder, "latest")


def test_the_options_of_the_command_are_known() -> None:
    options = [
        one
        for one in run.get_params(click.Context(run, info_name="run"))
        if isinstance(one, click.Option)
    ]
    for one in options:
        longs = [name for name in one.opts if name.startswith("--")]
        names = {name for name, _ in commands.given(["run", longs[0], "value"])}
        assert names == {longs[0]} or longs[0] in ("--blocks", "--affinity"), longs
        assert one.is_flag == (longs[0] in commands.FLAGS), longs
        for other in one.opts:
            ((name, _),) = commands.given([other, "value"])
            assert name == longs[0], other
    known = {name for one in options for name in one.opts}
    assert {*commands.SHAPING, *commands.LENGTH, *commands.FLAGS} <= known | {"--help"}


# ---- commands that are derived -------------------------------------------------------------------

MATRIX = [
    [],
    ["--config", "a b/isobench.toml"],
    ["--config=it's.toml", "--margin", "3%", "--min-time", "0.05s"],
    ["--launch", "fresh", "--schedule", "blocks", "--affinity", "0,1"],
    ["--cpu-affinity=0-1", "--warmup", "2", "--seed", "7", "--until", "decided"],
    ["--workload-folder", "a b", "--workload-folder", "-c", "--rigorous", "--redact"],
    ["--config", "-o/r.toml", "-o", "-o/r", "-q", "--color", "never"],
    ["--fast", "--store", "s", "--fail-on", "regression", "--confirm", "--timeout", "9m"],
    ["-r", "20", "--export-json", "-", "--export-csv", "x.csv", "--claims", "c.toml"],
    ["--vary", "docker.seccomp=unconfined", "--require", "docker", "--max-blocks", "9"],
]
KEPT = (
    *("config", "folders", "margin", "min_time", "launch", "schedule", "affinity"),
    *("warmup", "seed", "until", "rigorous"),
)
OF_THE_RUN = (
    *("output", "resume", "quiet", "store", "fail_on", "confirm", "timeout", "blocks", "claims"),
    *("require", "vary", "export_json", "export_csv", "max_blocks", "min_blocks", "fast", "quick"),
)


@pytest.mark.parametrize("given", MATRIX)
def test_a_derived_command_measures_in_the_same_way_and_elsewhere(given: list[str]) -> None:
    argv = ["run", "-t", "docker,podman", "-w", "cpu", "--budget", "9m", *given]
    options = {"--targets": "bw2", "--workloads": "cpu.sieve", "--budget": "1m"}
    command = commands.measure(argv, options)
    found, before, usual = pasted(command), read(argv[1:]), read([])
    assert {name: found[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert {name: found[name] for name in OF_THE_RUN} == {name: usual[name] for name in OF_THE_RUN}
    assert (found["targets"], found["workloads"]) == (("bw2",), ("cpu.sieve",))
    assert found["budget"] == 60.0
    assert ("--redact" in command) == ("--redact" in given)


@pytest.mark.parametrize("given", MATRIX)
@pytest.mark.parametrize("folder", ["", "a b", "it's", "-o/r", "/there"])
def test_a_command_that_resumes_is_accepted(given: list[str], folder: str) -> None:
    argv = ["run", "-t", "docker", *given]
    kept = commands.kept(argv, commands.FINDING)
    found = pasted(f"{commands.resume(folder, kept)} --budget 3m")
    before = read(argv[1:])
    assert found["resume"] == {"": "latest", "-o/r": "./-o/r"}.get(folder, folder)
    assert (found["config"], found["folders"]) == (before["config"], before["folders"])
    assert found["budget"] == 180.0
    fixed = ("targets", "workloads", "vary", "margin", "min_time", "affinity", "output")
    assert not any(found[name] for name in fixed)


@pytest.mark.parametrize(
    "argv", [None, [], ["noise", "--config", "x"], ["run", "--config", "a\nb"], ["run", "-t"]]
)
def test_a_line_of_which_nothing_can_be_taken_gives_a_plain_command(argv: list[str] | None) -> None:
    assert commands.measure(argv, {"--targets": "x"}) == "isobench run --targets x"


def test_a_long_line_of_somebody_else_s_is_not_repeated_in_every_command() -> None:
    argv = ["run", *(["--workload-folder", "x" * 1000] * 2), "--workload-folder", "y" * 1000]
    assert commands.measure(argv, {"--targets": "x"}) == "isobench run --targets x"


@pytest.mark.parametrize(
    ("command", "minutes"),
    [
        ("isobench run --resume --budget 3m", 3),
        ("isobench run --resume 'a --budget 9m b' --budget 2h --max-blocks 3", 120),
        ("isobench run --resume --budget x", None),
        ("isobench run --resume --budget 99999999999m", None),
        ("isobench run --resume 'it", None),
        ("", None),
    ],
)
def test_the_budget_of_a_command_is_read(command: str, minutes: float | None) -> None:
    assert commands.budget_of(command) == minutes


def test_a_folder_whose_name_is_an_option_does_not_resume() -> None:
    assert commands.resumes("isobench run --resume x")
    assert not commands.resumes("isobench run --config 'of --resume' --targets x")


# ---- quotation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [("run", "run"), ("a b", "'a b'"), ("-o/r", "./-o/r"), ("-a b", "'./-a b'"), ("$x", "'$x'")],
)
def test_a_path_is_one_word_and_no_option(name: str, word: str) -> None:
    assert commands.path(name) == commands.path(Path(name)) == word


_BEFORE_A_PATH = re.compile(
    r"(\bisobench (report|verify|pack|compare|noise)( -o)?"
    r"|--resume|--config|--store|-o"
    r"|\b(mkdir|mv|rm|chmod|chown|unzip|cat|ssh-add)( [^ ;]+)*"
    r"|\b(docker|podman) pull) $"
)
_QUOTES = frozenset({"path", "quote", "join"})


def calls(node: ast.expr, names: frozenset[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    return getattr(function, "attr", getattr(function, "id", "")) in names


def unquoted(source: str) -> Iterator[str]:
    """Yield what stands in a command of a text where a path does, and is not quoted."""
    tree = ast.parse(source)
    quoted = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and calls(node.value, _QUOTES)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            safe = calls(part.value, _QUOTES) or ast.unparse(part.value) in quoted
            if _BEFORE_A_PATH.search(text) and not safe:
                yield f"{text}{{{ast.unparse(part.value)}}}"
            text += "?"


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_paths_in_commands_for_the_user_are_quoted(file: Path) -> None:
    assert list(unquoted(file.read_text())) == []


def test_what_is_not_quoted_is_found() -> None:
    for wrong in ("isobench report {path}", "a; mkdir -p {path}", "--config {one.path}, if"):
        assert list(unquoted(f'hint = f"{wrong}"'))
    assert not list(unquoted('hint = f"isobench report {commands.path(path)}"'))
