"""The target wasm: the search for its engine, refusals, the time of compilation."""

import importlib.machinery
import importlib.util
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.evidence import prove
from isobench.model import (
    Abi,
    Available,
    Command,
    Environment,
    Evidence,
    Fact,
    Lack,
    Stage,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import Sha256, seconds
from isobench.plugins.api import BEGIN, Completed
from isobench.plugins.registry import Registry
from isobench.targets.sandboxes import wasm
from isobench.targets.shared import processes

HERE = host_abi()
SETTINGS = "Cranelift settings for target '{}-unknown-linux-gnu':\n"
SAYS: dict[str, str] = {
    "--version": "wasmtime 49.0.3 (f96eabaa1 2026-10-14)",
    "settings": SETTINGS.format(HERE.machine if HERE else ""),
}
Run = Callable[..., Completed]


def done(code: int | None = 0, out: bytes = b"", err: bytes = b"") -> Completed:
    return Completed(exit_code=code, stdout=out, stderr=err)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put only a program named wasmtime on PATH, and hide PyPI's package."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "wasmtime"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(processes, "output_of", lambda argv: SAYS[argv[1]])
    return program


@pytest.fixture
def package(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide only PyPI's package; return its program."""
    engine.unlink()
    folder = tmp_path / "site" / "wasmtime_cli"
    folder.mkdir(parents=True)
    (folder / "wasmtime").write_bytes(b"\x7fELF")
    spec = importlib.machinery.ModuleSpec("wasmtime_cli", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    return folder / "wasmtime"


class Wasmtime:
    """Replaces the engine: it compiles by copying, and returns a given result."""

    def __init__(self, runs: Completed | None = None) -> None:
        self.runs, self.commands = runs or done(out=wasm.ANSWER), list[list[str]]()

    def __call__(self, argv: list[str], **_: object) -> Completed:
        self.commands.append(argv)
        if argv[1] == "compile":
            Path(argv[argv.index("-o") + 1]).write_bytes(b"code of " + Path(argv[-1]).read_bytes())
            return done()
        return self.runs

    def count(self, word: str) -> int:
        return sum(command[1] == word for command in self.commands)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], Run]:
    def put(run: Run) -> Run:
        monkeypatch.setattr(processes, "run", run)
        return run

    return put


def staged(root: Path) -> Stage:
    (root / "isobench").mkdir(parents=True)
    (root / "isobench" / "cpu.sieve").write_bytes(b"\0asm")
    scratch = root / "scratch"
    scratch.mkdir()
    return Stage(root=root, digest=Sha256(""), scratch=scratch, owner="o")


# ---- the engine


def test_an_engine_on_path_comes_before_the_package(engine: Path) -> None:
    assert wasm.find("") == engine


def test_a_script_that_would_start_something_else_first_is_no_engine(engine: Path) -> None:
    engine.write_text("#!/usr/bin/python3\n")
    assert wasm.find("") is None


def test_the_program_in_the_package_is_found_without_its_launcher(package: Path) -> None:
    assert wasm.find("") == package


def test_a_configured_engine_is_used(engine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF")
    assert wasm.find(str(other)) == other
    assert wasm.find("wasmtime") == engine
    assert wasm.find(str(tmp_path)) is None


# ---- refusals


def refused(target: wasm.WasmTarget) -> Unavailable:
    answer = target.probe()
    assert isinstance(answer, Unavailable)
    return answer


def test_a_missing_engine_is_reported_with_a_hint(engine: Path) -> None:
    engine.unlink()
    answer = refused(wasm.WasmTarget())
    assert (answer.lack, answer.what, answer.hint) == (Lack.TOOL, "wasmtime", wasm.INSTALL)


def test_the_error_for_a_configured_engine_that_is_none_names_it(engine: Path) -> None:
    answer = refused(wasm.WasmTarget(engine="/nowhere/wasmtime"))
    assert "/nowhere/wasmtime" in answer.reason
    assert "leave it out" in answer.hint


def test_the_hint_for_a_package_without_execute_permission_is_chmod(
    package: Path,
) -> None:
    answer = refused(wasm.WasmTarget())
    assert answer.lack is Lack.PERMISSION
    assert answer.hint == f"chmod +x {package}"


def test_the_hint_for_an_ordinary_user_contains_sudo(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: package.stat().st_uid + 1)
    assert refused(wasm.WasmTarget()).hint == f"sudo chmod +x {package}"


def test_something_else_under_that_name_is_refused(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "output_of", lambda _: "wasmer 4.0")
    assert "is not wasmtime" in refused(wasm.WasmTarget()).what


@pytest.mark.parametrize("settings", [SETTINGS.format("pulley64"), ""])
def test_an_engine_that_would_interpret_is_refused(
    settings: str, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        processes, "output_of", lambda argv: {**SAYS, "settings": settings}[argv[1]]
    )
    assert "not for this processor" in refused(wasm.WasmTarget()).what


def test_a_module_that_does_not_answer_makes_the_target_unavailable(
    engine: Path, runs: Callable[[Run], Run]
) -> None:
    runs(Wasmtime(done(1, err=b"Error: failed\n\nCaused by:\n    unknown import\n")))
    answer = refused(wasm.WasmTarget())
    assert "unknown import" in answer.what
    assert answer.hint


def test_a_failed_compilation_makes_the_target_unavailable(
    engine: Path, runs: Callable[[Run], Run]
) -> None:
    runs(lambda *_, **__: done(2, err=b"error: unrecognized subcommand 'compile'\n"))
    assert "unrecognized subcommand" in refused(wasm.WasmTarget()).what


@pytest.mark.parametrize(
    ("option", "compilations", "text"),
    [("ahead", 1, "compiled ahead of time"), ("at-start", 0, "compiled at every start")],
)
def test_an_engine_that_answers_is_available(
    option: str, compilations: int, text: str, engine: Path, runs: Callable[[Run], Run]
) -> None:
    wasmtime = Wasmtime()
    runs(wasmtime)
    target = Registry({"wasm": {"compile": option}}).get("wasm")
    answer = target.probe()
    assert isinstance(answer, Available)
    assert answer.version == f"wasmtime 49.0.3, {text}"
    assert wasmtime.count("compile") == compilations


def test_an_unknown_time_of_compilation_is_a_configuration_error() -> None:
    with pytest.raises(UsageError, match="compile"):
        Registry({"wasm": {"compile": "never"}}).get("wasm")


def test_the_smallest_module_is_well_formed() -> None:
    content = wasm.probe_module()
    assert content.startswith(b"\0asm\1\0\0\0")
    at, sections = 8, []
    while at < len(content):
        sections.append(content[at])
        at += 2 + content[at + 1]
    assert at == len(content)
    assert sections == [1, 2, 3, 5, 7, 10, 11]


# ---- sessions


def test_a_module_is_compiled_once_and_copied_for_a_fresh_stage(
    engine: Path, tmp_path: Path, runs: Callable[[Run], Run]
) -> None:
    wasmtime = Wasmtime(done())
    runs(wasmtime)
    target = wasm.WasmTarget()
    used = []
    for name in ("first", "second"):
        stage = staged(tmp_path / name)
        for _ in range(2):
            target.launch(stage, Command(argv=("cpu.sieve",)), timeout=seconds(1))
            used.append(Path(wasmtime.commands[-1][-1]))
    assert wasmtime.count("compile") == 1
    assert len(set(used)) == 2
    assert [path.read_bytes() for path in used] == [b"code of \0asm"] * 4
    assert used[0].is_relative_to(tmp_path / "first")


def a_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def far_too_long(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(wasm._LARGEST_MODULE + 1)


@pytest.mark.parametrize("write", [a_link, far_too_long, Path.mkdir])
def test_what_an_engine_writes_in_place_of_a_module_is_not_read(
    write: Callable[[Path], None], engine: Path, tmp_path: Path, runs: Callable[[Run], Run]
) -> None:
    def run(argv: list[str], **_: object) -> Completed:
        write(Path(argv[argv.index("-o") + 1]))
        return done()

    runs(run)
    stage = staged(tmp_path / "stage")
    with pytest.raises(SessionError, match="wasmtime compile"):
        wasm.WasmTarget().launch(stage, Command(argv=("cpu.sieve",)), timeout=seconds(1))
    assert not [path for path in (tmp_path / "stage/compiled").iterdir() if path.is_file()
                and path.stat().st_size > wasm._LARGEST_MODULE]  # fmt: skip


def test_another_engine_or_content_is_compiled_again(
    engine: Path, tmp_path: Path, runs: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    wasmtime = Wasmtime(done())
    runs(wasmtime)
    stage = staged(tmp_path / "stage")
    wasm.WasmTarget().launch(stage, Command(argv=("cpu.sieve",)), timeout=seconds(1))
    monkeypatch.setattr(
        processes, "output_of", lambda argv: {**SAYS, "--version": "wasmtime 50"}[argv[1]]
    )
    wasm.WasmTarget().launch(stage, Command(argv=("cpu.sieve",)), timeout=seconds(1))
    (stage.root / "isobench" / "cpu.sieve").write_bytes(b"\0asm2")
    wasm.WasmTarget().launch(stage, Command(argv=("cpu.sieve",)), timeout=seconds(1))
    assert wasmtime.count("compile") == 3


def test_at_start_the_module_itself_is_run_and_no_precompiled_code(
    engine: Path, tmp_path: Path, runs: Callable[[Run], Run]
) -> None:
    wasmtime = Wasmtime(done())
    runs(wasmtime)
    stage = staged(tmp_path / "stage")
    wasm.WasmTarget(compile_="at-start").launch(
        stage, Command(argv=("cpu.sieve",)), timeout=seconds(1)
    )
    assert wasmtime.count("compile") == 0
    assert wasmtime.commands[-1][-1] == str(stage.root / "isobench" / "cpu.sieve")
    assert "--allow-precompiled" not in wasmtime.commands[-1]


def test_the_command_line_grants_two_directories_and_the_commands_variables_alone(
    engine: Path, tmp_path: Path, runs: Callable[[Run], Run]
) -> None:
    wasmtime = Wasmtime(done())
    runs(wasmtime)
    marks: list[str] = []
    command = Command(
        argv=("cpu.sieve", "-x", ""),
        environment={"ISOBENCH": "1", "EMPTY": ""},
        on_phase=marks.append,
    )
    with wasm.WasmTarget().open(staged(tmp_path / "stage")) as session:
        session.run(command, timeout=seconds(1))
    words = wasmtime.commands[-1]
    pairs = list(itertools.pairwise(words))
    granted = [value for word, value in pairs if word == "--dir"]
    assert [value.partition("::")[2] for value in granted] == ["/isobench", "/scratch"]
    given = {value for word, value in pairs if word == "--env"}
    assert given == {"ISOBENCH=1", "EMPTY=", "ISOBENCH_SCRATCH=/scratch"}
    assert words[-2:] == ["-x", ""]
    assert marks == [BEGIN]


@pytest.mark.parametrize(
    ("result", "is_error"),
    [
        (done(1, err=b"Error: failed to convert\n"), True),
        (done(2, err=b"error: unexpected argument\n"), True),
        (done(1, out=b"something", err=b"Error: of a payload's own\n"), False),
        (done(134, err=b"Error: failed to run\n  wasm trap: unreachable\n"), False),
        (done(1, err=b"a payload's own\n"), False),
        (done(None, err=b"Error: late\n"), False),
    ],
)
def test_an_error_of_the_engine_is_distinguished_from_a_trap(
    result: Completed, is_error: bool, engine: Path, tmp_path: Path, runs: Callable[[Run], Run]
) -> None:
    runs(Wasmtime(result))
    target, stage = wasm.WasmTarget(), staged(tmp_path / "stage")
    if is_error:
        with pytest.raises(SessionError, match="wasmtime: "):
            target.launch(stage, Command(argv=("cpu.sieve",)), timeout=seconds(1))
    else:
        assert target.launch(stage, Command(argv=("cpu.sieve",)), timeout=seconds(1)) == result


def test_a_program_that_was_not_built_is_an_error(engine: Path, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"app\.mine"):
        wasm.WasmTarget().launch(
            staged(tmp_path / "stage"), Command(argv=("app.mine",)), timeout=seconds(1)
        )


def test_an_engine_that_was_removed_is_an_error(engine: Path, tmp_path: Path) -> None:
    engine.unlink()
    target = wasm.WasmTarget()
    with pytest.raises(SessionError, match="was removed"), target.open(staged(tmp_path / "stage")):
        pass


@pytest.mark.parametrize(
    ("option", "words"), [("ahead", "ahead of time"), ("at-start", "at every start")]
)
def test_the_session_reports_the_engine_and_the_time_of_compilation(
    option: str, words: str, engine: Path, tmp_path: Path
) -> None:
    target = Registry({"wasm": {"compile": option}}).get("wasm")
    with target.open(staged(tmp_path / "stage")) as session:
        seen = {one.key: one.value for one in session.witness()}  # type: ignore[attr-defined]
    assert seen["host.engine"] == SAYS["--version"]
    assert seen["host.compiled"] == f"by Cranelift from WebAssembly, {words}"
    assert str(seen["host.code"]).startswith(HERE.machine if HERE else "")


# ---- expectations


KEPT: dict[str, Fact] = {
    "payload.machine": "wasm32",
    "wasi.directories": "/isobench /scratch",
    "host.canary_readable": False,
}


def inside(facts: dict[str, Fact]) -> Environment:
    return prove.gather(Evidence(key=key, value=value, source="") for key, value in facts.items())


def broken(facts: dict[str, Fact]) -> str:
    return prove.unmet(
        prove.check(wasm.WasmTarget.expectations, host=inside({}), inside=inside(facts))
    )


def test_evidence_from_webassembly_meets_its_expectations() -> None:
    assert broken(KEPT) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("payload.machine", "x86_64"),
        ("wasi.directories", "/isobench /scratch /"),
        ("wasi.directories", None),
        ("host.canary_readable", True),
    ],
)
def test_a_broken_expectation_is_caught(key: str, value: Fact) -> None:
    assert key in broken({**KEPT, key: value})


def test_no_host_executes_webassembly_itself() -> None:
    assert host_abi() is not Abi.WASM32
