"""C sources -> programs: built once, cached by everything that goes in."""

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from isobench.config import paths
from isobench.model import Abi, Workload, host_abi
from isobench.model.errors import PayloadError
from isobench.payload import build, compiler, shipped, wire
from isobench.plugins import deadlines, ownership
from isobench.targets.machines import _facts
from isobench.workloads import loader
from tests import waiting

ECHO = """
#include "isobench.h"
static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    if (ib->iteration < 0) ib_fact("echo", ib->arguments[0], "argv");
    return loops * 3;
}
"""
HERE = host_abi()
LOONGARCH: Any = {
    "triple": "loongarch64-linux-musl",
    "headers": ("loongarch-linux-any", "any-linux-any"),
    "flags": ("-mcpu=generic_la64+f+d",),
    "machine": Path(__file__).parents[1] / "data" / "loongarch64.h",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "payload.c"
    path.write_text(ECHO)
    return path


@pytest.fixture
def loongarch(monkeypatch: pytest.MonkeyPatch) -> Abi:
    """An ABI of a plug-in's, of an ISA that isobench.h does not know."""
    monkeypatch.setattr(compiler, "_TOOLCHAINS", dict(compiler._TOOLCHAINS))
    abi = Abi("loongarch64-linux")
    build.add_toolchain(abi, **LOONGARCH)
    return abi


@pytest.fixture
def nothing_to_compile_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any compilation fail."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was compiled again")

    monkeypatch.setattr(compiler, "compile_to", refuse)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be where the extra `build` is not installed."""
    monkeypatch.setitem(sys.modules, "ziglang", None)
    monkeypatch.setattr(compiler, "_zig", compiler._zig.__wrapped__)


def test_a_payload_is_built_and_speaks_the_protocol(source: Path) -> None:
    assert HERE is not None
    payload = build.build("unit.echo", source, HERE)
    done = subprocess.run(
        [payload.path, "feed", "2", "5", "ünï\x01"],
        capture_output=True,
        check=True,
        env={"ISOBENCH": "1"},
        timeout=60,
    )
    reply = wire.read(done.stdout, nonce="feed", iterations=2)
    assert [each.operations for each in reply.iterations] == [5, 5]
    assert (reply.check, reply.steady) == (f"{15:016x}", True)
    assert [fact.key for fact in reply.facts] == ["echo"]
    assert done.stderr == b""


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder in which the start-up payload and the evidence lie side by side."""
    assert HERE is not None
    folder = paths.shared("workloads")
    for name in (build.STARTUP, build.EVIDENCE):
        built = build.build(name, folder / name / "payload.c", HERE).path
        shutil.copy(built, tmp_path / name)
    return tmp_path


def started(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [folder / build.STARTUP, *argv],
        capture_output=True, check=False, env={"ISOBENCH": "1"} | variables, timeout=60,
    )  # fmt: skip


def test_a_start_says_its_nonce_and_no_more(beside: Path) -> None:
    done = started(beside, "feed")
    assert done.returncode == 0
    assert done.stdout.startswith(wire.hello("feed"))
    assert done.stdout.count(b"\n") == 1


@pytest.mark.parametrize("interpreted", [False, True])
def test_a_start_becomes_the_program_beside_it(interpreted: bool, beside: Path) -> None:
    # `env` executes what it is given, as an interpreter of a foreign ISA would.
    variables = {"ISOBENCH_INTERPRETER": "/usr/bin/env"} if interpreted else {}
    done = started(beside, "feed", build.EVIDENCE, "beef", "/nowhere/canary", **variables)
    assert done.returncode == 0
    first, rest = done.stdout.split(b"\n", 1)
    assert first.startswith(wire.hello("feed"))
    facts = {fact.key: fact.value for fact in wire.read(rest, nonce="beef", iterations=0).facts}
    assert facts["host.canary_readable"] is False
    assert str(facts["process.executable"]).endswith(f"/{build.EVIDENCE}")


def test_every_fact_that_the_evidence_shows_is_a_known_one(beside: Path) -> None:
    done = started(beside, "feed", build.EVIDENCE, "beef", "/nowhere/canary")
    rest = done.stdout.split(b"\n", 1)[1]
    shown = {fact.key for fact in wire.read(rest, nonce="beef", iterations=0).facts}
    assert shown <= _facts.known()
    assert all(not key.endswith(".h") for key in _facts.known())


def test_a_start_that_cannot_become_another_program_fails(beside: Path) -> None:
    done = started(beside, "feed", "nowhere")
    assert done.returncode == 127
    assert done.stdout.startswith(wire.hello("feed"))


def test_there_is_a_toolchain_for_every_abi() -> None:
    assert set(compiler._TOOLCHAINS) == set(Abi)


@pytest.mark.parametrize("abi", Abi)
def test_a_payload_is_built_for_every_abi_without_a_c_library(abi: Abi, source: Path) -> None:
    payload = build.build("unit.echo", source, abi)
    program = payload.path.read_bytes()
    magic, at, machine = {
        Abi.ELF_X86_64: (b"\x7fELF", 18, 62),
        Abi.ELF_AARCH64: (b"\x7fELF", 18, 183),
        Abi.ELF_RISCV64: (b"\x7fELF", 18, 243),
        Abi.WASM32: (b"\0asm", 4, 1),  # of WebAssembly the version
        # After "PE" and two zeros, which lie where the 32-bit number at 60 says.
        Abi.PE_X86_64: (b"MZ", int.from_bytes(program[60:64], "little") + 4, 0x8664),
    }[abi]
    assert program.startswith(magic)
    assert int.from_bytes(program[at : at + 2], "little") == machine
    assert payload.abi is abi
    assert "-nostdlib" in payload.flags
    assert os.access(payload.path, os.X_OK)
    assert payload.compiler.startswith("zig cc ")


def test_the_same_source_is_taken_from_the_cache(
    source: Path, request: pytest.FixtureRequest
) -> None:
    first = build.build("unit.echo", source, Abi.ELF_X86_64)
    request.getfixturevalue("nothing_to_compile_with")
    assert build.build("unit.echo", source, Abi.ELF_X86_64) == first


def test_another_source_abi_or_flag_is_another_program(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inputs(abi: Abi = Abi.ELF_X86_64, *, libc: bool = False) -> str:
        return compiler.inputs(source, abi, libc=libc)

    seen = {inputs(), inputs(Abi.ELF_AARCH64), inputs(libc=True)}
    assert inputs() in seen
    source.write_text(ECHO + "/* changed */")
    seen.add(inputs())
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-g"))
    seen.add(inputs())
    chain = replace(compiler._TOOLCHAINS[Abi.ELF_X86_64], triple="x86_64-linux-none")
    monkeypatch.setattr(compiler, "_TOOLCHAINS", {Abi.ELF_X86_64: chain})
    seen.add(inputs())
    assert len(seen) == 6


def test_where_a_source_lies_is_no_part_of_the_program(source: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(source, tmp_path / "moved" / "other.c")
    first, second = (
        compiler.inputs(Path(path), Abi.WASM32, libc=False) for path in (source, moved)
    )
    assert first == second


def test_another_compiler_is_another_program(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.build("unit.echo", source, Abi.ELF_X86_64)
    monkeypatch.setattr(compiler, "name", lambda: "zig cc 99")
    second = build.build("unit.echo", source, Abi.ELF_X86_64)
    assert first.path != second.path
    assert (first.sha256, second.compiler) == (second.sha256, "zig cc 99")


def test_another_header_is_another_program(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compiler.inputs(source, Abi.ELF_X86_64, libc=False)
    (tmp_path / "_include").mkdir()
    (tmp_path / "_include" / "isobench.h").write_text("/* another */")
    monkeypatch.setattr(paths, "shared", lambda _: tmp_path)
    assert compiler.inputs(source, Abi.ELF_X86_64, libc=False) != before


def test_a_source_that_does_not_compile_is_told_with_what_the_compiler_says(
    source: Path, cache: Path
) -> None:
    source.write_text('#include "isobench.h"\nint nonsense = ;\n')
    with pytest.raises(PayloadError, match="expected expression") as caught:
        build.build("unit.broken", source, Abi.ELF_X86_64)
    assert str(source) in caught.value.hint
    assert not list((cache / "isobench" / "payloads").glob("*unit.broken"))


def test_a_failed_build_leaves_no_draft(source: Path, cache: Path) -> None:
    source.write_text("#error no\n")
    before = set((cache / "isobench" / "payloads").iterdir())
    with pytest.raises(PayloadError):
        build.build("unit.broken", source, Abi.ELF_X86_64)
    assert set((cache / "isobench" / "payloads").iterdir()) == before


def test_a_missing_compiler_is_told_with_what_to_type(no_compiler: None) -> None:
    with pytest.raises(PayloadError, match="no compiler is installed") as caught:
        compiler.name()
    assert "isobench doctor --install build" in caught.value.hint
    assert "pip install 'isobench[build]'" in caught.value.hint


def test_a_compiler_that_does_not_run_is_told_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ziglang = importlib.import_module("ziglang")
    monkeypatch.setattr(ziglang, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(PayloadError, match="does not run") as caught:
        compiler._zig.__wrapped__()
    assert "--force-reinstall ziglang" in caught.value.hint


def test_a_source_of_ones_own_without_a_compiler_is_refused_before_anything_is_built(
    source: Path, no_compiler: None
) -> None:
    wanted = {**build.programs([]), "app.mine": (source, False), "app.yours": (source, False)}
    with pytest.raises(PayloadError) as caught:
        build.build_all(wanted, [Abi.ELF_X86_64, Abi.WASM32], host=Abi.ELF_X86_64)
    title, *lines = str(caught.value).splitlines()
    assert title == "no compiler is installed, and these payloads must be compiled:"
    assert lines == [
        f"  {name}: it is C source of your own ({source})" for name in ("app.mine", "app.yours")
    ]
    assert caught.value.hint == compiler.INSTALL


def test_no_compiler_is_asked_for_where_none_is_needed(
    no_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "obstacle", lambda *_, **__: "")
    build.demand(build.for_run(loader.find().values(), Abi, Abi.ELF_X86_64))


def test_every_stage_holds_evidence_and_agent_beside_its_workloads() -> None:
    found = loader.find()
    wanted = build.programs(found.values())
    assert set(wanted) == {*build.INSIDE, *(w.program for w in found.values())}
    assert all(source.is_file() for source, _ in wanted.values())


def test_what_starts_programs_is_not_built_for_a_system_without_processes(source: Path) -> None:
    wanted = dict.fromkeys(("unit.echo", build.AGENT, build.INIT), (source, False))
    built = build.build_all(wanted, [Abi.WASM32], host=Abi.ELF_X86_64)
    assert [(p.program, p.abi) for p in built] == [
        ("unit.echo", Abi.WASM32),
        *((tool, Abi.ELF_X86_64) for tool in build.TOOLS),
    ]


@pytest.mark.parametrize("workload", loader.find().values(), ids=lambda one: one.name)
def test_a_webassembly_payload_asks_wasi_for_everything_and_has_no_vectors(
    workload: Workload,
) -> None:
    built = build.build(workload.program, workload.source, Abi.WASM32)
    content = built.path.read_bytes()
    assert b"wasi_snapshot_preview1" in content
    assert b"\x03env" not in content  # where what the linker has not found would come from
    assert "-mno-simd128" in built.flags


def test_all_programs_are_built_for_all_abis_and_the_tools_for_this_host_alone(
    source: Path,
) -> None:
    heard: list[tuple[int, int]] = []
    abis = [Abi.ELF_X86_64, Abi.ELF_RISCV64]
    built = build.build_all(
        {"unit.echo": (source, False)},
        abis,
        host=Abi.ELF_X86_64,
        progress=lambda done, of: heard.append((done, of)),
    )
    assert [(p.program, p.abi) for p in built] == [
        ("unit.echo", Abi.ELF_X86_64),
        ("unit.echo", Abi.ELF_RISCV64),
        (build.LAUNCH, Abi.ELF_X86_64),
        (build.CONFINE, Abi.ELF_X86_64),
        (build.SPAWN, Abi.ELF_X86_64),
    ]
    assert heard == [(done, 5) for done in (1, 2, 3, 4, 5)]


def test_programs_that_an_abi_cannot_have_are_not_built_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, Abi]] = []
    monkeypatch.setattr(
        build, "build", lambda name, _source, abi, *, libc: asked.append((name, abi))
    )
    wanted = build.programs(loader.find().values())
    build.build_all(wanted, [Abi.PE_X86_64], host=Abi.ELF_X86_64)
    names = {name for name, abi in asked if abi is Abi.PE_X86_64}
    assert set(wanted) - names == {"_agent", "_init", "_limits"}


@pytest.mark.parametrize(
    ("system", "machine", "abi"),
    [
        ("Linux", "x86_64", Abi.ELF_X86_64),
        ("Linux", "arm64", Abi.ELF_AARCH64),
        ("Linux", "s390x", None),
        # No payload of isobench's runs on Windows itself: what starts them is for Linux.
        ("Windows", "AMD64", None),
    ],
)
def test_a_host_is_linux_or_none_that_isobench_knows(
    system: str, machine: str, abi: Abi | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert host_abi() is abi


def test_a_plug_in_says_how_payloads_are_built_for_an_abi_of_its_own(
    source: Path, loongarch: Abi
) -> None:
    for program, path in (
        ("unit.echo", source),
        *((name, found) for name, (found, _) in build.programs(loader.find().values()).items()),
    ):
        payload = build.build(program, path, loongarch)
        content = payload.path.read_bytes()
        assert content[:4] == b"\x7fELF"
        assert int.from_bytes(content[18:20], "little") == 258  # EM_LOONGARCH
        assert '-DIB_MACHINE_HEADER="loongarch64.h"' in payload.flags
    wanted = build.jobs(build.programs([]), [loongarch])
    assert {job.program for job in wanted} == set(build.INSIDE)


def test_a_changed_header_of_a_machine_makes_another_payload(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_TOOLCHAINS", dict(compiler._TOOLCHAINS))
    header = tmp_path / "machine.h"
    header.write_text("/* one */")
    build.add_toolchain(Abi("one-linux"), **{**LOONGARCH, "machine": header})
    before = compiler.inputs(source, Abi("one-linux"), libc=False)
    header.write_text("/* two */")
    assert compiler.inputs(source, Abi("one-linux"), libc=False) != before


def test_an_abi_has_one_toolchain(loongarch: Abi) -> None:
    build.add_toolchain(loongarch, **LOONGARCH)  # its module may be loaded twice
    for abi in (loongarch, Abi.ELF_X86_64):
        with pytest.raises(ValueError, match=f"payloads for {abi} are built otherwise already"):
            build.add_toolchain(abi, triple="other-linux-musl")


def test_an_abi_without_a_toolchain_is_told_with_what_to_do(source: Path) -> None:
    with pytest.raises(PayloadError, match="how payloads are built for s390x-linux") as caught:
        build.build("unit.echo", source, Abi("s390x-linux"))
    assert "isobench.payload.build.add_toolchain" in caught.value.hint
    assert build.without_toolchain(Abi("s390x-linux"))
    assert build.without_toolchain(Abi.ELF_X86_64) == build.without_toolchain(None) == ""


def test_what_is_being_built_has_an_owner(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def compile_to(target: Path, *_: object, prefix: str, **__: object) -> None:
        seen.append(prefix)
        target.write_bytes(b"")

    monkeypatch.setattr(compiler, "compile_to", compile_to)
    source.write_text(f"/* {source} */")
    build.build("unit.owned", source, Abi.ELF_X86_64)
    assert [ownership.owner_of(f"{prefix}x") for prefix in seen] == [ownership.mine()]


SLOW = """#!/bin/sh
echo >> {folder}/started
exec sleep 600
"""


def test_an_interruption_ends_running_compilers_and_starts_no_other(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, started = tmp_path / "zig", tmp_path / "started"
    slow.write_text(SLOW.format(folder=tmp_path))
    slow.chmod(0o755)
    monkeypatch.setattr(compiler, "_zig", lambda: (slow, "slow"))
    monkeypatch.setattr(build.os, "cpu_count", lambda: 2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        while not started.exists() or len(started.read_text()) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    def make(job: build.Job) -> None:
        compiler.compile_to(
            tmp_path / "made", job.program, source, job.abi, libc=False, store=tmp_path / "store"
        )

    jobs = [
        build.Job(program=f"p{n}", source=source, abi=Abi.ELF_X86_64, libc=False) for n in range(9)
    ]
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            build.side_by_side(make, jobs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(started.read_text()) == 2
    assert [
        each for each in psutil.Process().children(recursive=True) if each.name() == "sleep"
    ] == []
    assert not [*tmp_path.glob("isobench-build-*")]


def test_what_a_compiler_leaves_behind_ends_at_its_time_limit(tmp_path: Path) -> None:
    note = tmp_path / "number"
    # It has ended long before, and its child holds its streams.
    leaves = ["sh", "-c", f"sleep 600 & echo $! > {note}"]
    with deadlines.watched(1), pytest.raises(subprocess.TimeoutExpired):
        compiler._executed(leaves, {"PATH": os.environ["PATH"]})
    end = time.monotonic() + waiting.PATIENCE
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(int(note.read_text())).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.01)
