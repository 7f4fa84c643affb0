"""One compiler and one set of flags for every program that isobench measures.

Zig (the PyPI package `ziglang`) is that compiler: clang with its linker and the headers of every
ISA in one wheel that pip installs, so that a machine without any compiler can build, and native and
emulated code come from the same one. Payloads use no C library: measured, that makes a first build
take 0.05 s a payload, where building Zig's musl first takes about a minute.
"""

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from isobench.config import paths
from isobench.model import Abi
from isobench.model.errors import PayloadError
from isobench.model.units import Sha256
from isobench.plugins import deadlines, folders
from isobench.plugins.signals import uninterrupted

FLAGS: Final = (
    "-std=c11",
    "-O2",
    "-s",
    "-static",
    # Scalar code everywhere: vector units differ between ISAs, and isolation is what is compared.
    "-fno-vectorize",
    "-fno-slp-vectorize",
    # Without fused multiply-add every ISA rounds at the same places: equal checksums.
    "-ffp-contract=off",
    # Where a loop begins within a cache line decides its speed by up to a quarter, and a change of
    # any code before it moves it: the sieve was 22 % faster for Windows than for Linux.
    "-falign-functions=64",
    "-falign-loops=64",
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-fno-pie",
)
TIME_LIMIT: Final = 900.0
"""Seconds that one compilation may take."""
FREESTANDING: Final = ("-nostdlib", "-ffreestanding", "-fno-builtin")
WITH_LIBC: Final = ("-DISOBENCH_LIBC",)
INSTALL: Final = "isobench doctor --install build (or: pip install 'isobench[build]')"
"""What to type to install the compiler, which is the extra `build`."""
NO_TOOLCHAIN: Final = "nothing says how payloads are built for"
ADD_TOOLCHAIN: Final = (
    "whoever names the ABI says so: isobench.payload.build.add_toolchain, in the target's module"
    " (docs/plugins.md)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """How the compiler makes programs of one ABI."""

    triple: str
    headers: tuple[str, ...] = ()
    """Of the system's calls, below the compiler's own folder of headers."""
    flags: tuple[str, ...] = ()
    entry: tuple[str, ...] = ()
    """The argument of the linker that names the entry point, where no C library has one."""
    machine: Path | None = None
    """The header of an ISA that isobench.h does not know."""


def _linux(headers: str, machine: str) -> Toolchain:
    return Toolchain(
        triple=f"{machine}-linux-musl", headers=(f"{headers}-linux-any", "any-linux-any")
    )


_TOOLCHAINS: Final[dict[Abi, Toolchain]] = {
    Abi.ELF_X86_64: _linux("x86", "x86_64"),
    Abi.ELF_AARCH64: _linux("aarch64", "aarch64"),
    Abi.ELF_RISCV64: _linux("riscv", "riscv64"),
    # Linux's headers are here for the names of its calls, which on_wasi.h answers. Scalar, as
    # above: the extension of vectors is not part of WebAssembly itself.
    Abi.WASM32: Toolchain(
        triple="wasm32-wasi",
        headers=("x86-linux-any", "any-linux-any"),
        flags=("-mno-simd128",),
    ),
    Abi.PE_X86_64: Toolchain(
        triple="x86_64-windows-gnu",
        # What on Linux is an instruction, is a library here.
        flags=("-lkernel32", "-lntdll"),
        entry=("-Wl,--subsystem,console", "-Wl,-e,ib_entry"),
    ),
}


def add(abi: Abi, chain: Toolchain) -> None:
    """Add a toolchain. ValueError: the ABI has another one already."""
    if _TOOLCHAINS.setdefault(abi, chain) != chain:
        raise ValueError(f"payloads for {abi} are built otherwise already")


def knows(abi: Abi) -> bool:
    """Say whether there is a toolchain for an ABI."""
    return abi in _TOOLCHAINS


def _toolchain(abi: Abi) -> Toolchain:
    if abi not in _TOOLCHAINS:
        raise PayloadError(f"{NO_TOOLCHAIN} {abi}", hint=ADD_TOOLCHAIN)
    return _TOOLCHAINS[abi]


def flags(abi: Abi, *, libc: bool) -> tuple[str, ...]:
    """Return the compiler's flags for an ABI: everything but its triple and its headers."""
    chain = _toolchain(abi)
    machine = () if chain.machine is None else (f'-DIB_MACHINE_HEADER="{chain.machine.name}"',)
    end = WITH_LIBC if libc else (*FREESTANDING, *chain.entry)
    return (*FLAGS, *chain.flags, *machine, *end)


@cache
def _zig() -> tuple[Path, str]:
    """Return the compiler and what it is called."""
    try:
        import ziglang  # noqa: PLC0415 - a wheel that holds a compiler: looked for only when one is needed
    except ImportError:
        raise PayloadError("no compiler is installed", hint=INSTALL) from None
    program = Path(str(ziglang.__file__)).parent / "zig"
    try:
        version = subprocess.run(
            [program, "version"], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise PayloadError(
            f"the compiler does not run: {error}",
            hint="python -m pip install --force-reinstall ziglang",
        ) from None
    return program, f"zig cc {version}"


def name() -> str:
    """Return what the compiler is called; PayloadError when it is not installed or cannot run."""
    return _zig()[1]


def inputs(source: Path, abi: Abi, *, libc: bool) -> Sha256:
    """Return the hash of all that makes a program what it is, but for the compiler: its source, the
    headers of isobench, the ABI and the compiler's arguments.
    """
    parts = [source.read_bytes(), abi.encode()]
    machine = _toolchain(abi).machine
    included = headers() if machine is None else [*headers(), machine]
    parts += [part for path in included for part in (path.name.encode(), path.read_bytes())]
    parts += [word.encode() for word in _arguments(abi, libc=libc)]
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big") + part)
    return Sha256(hashed.hexdigest())


def headers() -> list[Path]:
    """Return the headers that a payload may include."""
    return sorted(_include().glob("*.h"))


def _include() -> Path:
    return paths.shared("workloads") / "_include"


def _arguments(abi: Abi, *, libc: bool, system: Path = Path()) -> list[str]:
    """Return the compiler's arguments for an ABI; `system` is where its headers of systems lie."""
    chain = _toolchain(abi)
    words = ["-target", chain.triple, *flags(abi, libc=libc)]
    if not libc or abi.system != "linux":
        option = "-idirafter" if libc else "-isystem"
        words += [word for name in chain.headers for word in (option, str(system / name))]
    return words


def _command(zig: Path, source: Path, abi: Abi, *, libc: bool) -> list[str]:
    system = zig.parent / "lib" / "libc" / "include"
    words = _arguments(abi, libc=libc, system=system)
    machine = _toolchain(abi).machine
    folders = [_include()] if machine is None else [_include(), machine.parent]
    include = [word for folder in folders for word in ("-I", str(folder))]
    return [str(zig), "cc", *words, *include, str(source)]


def _executed(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the compiler to its end. It ends with the call around it (`deadlines`), and whenever this
    is interrupted. OSError: it cannot be executed. TimeoutExpired: it did not end in time.
    """
    with uninterrupted():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            # Of a group of its own: it ends with the programs that it starts.
            start_new_session=True,
        )
    try:
        with deadlines.cut_by(lambda: _kill(process)):
            out, errors = process.communicate(timeout=deadlines.left(TIME_LIMIT))
    finally:
        with uninterrupted():
            _kill(process)
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def _kill(process: subprocess.Popen[str]) -> None:
    # As long as it has not been waited for, its number belongs to nobody else. `poll` would wait
    # for it, and leave what it has started.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def compile_to(
    target: Path,
    program: str,
    source: Path,
    abi: Abi,
    *,
    libc: bool,
    store: Path,
    prefix: str = "isobench-build-",
) -> None:
    """Compile one program into a file; `store` is where the compiler keeps what it may use again.

    A folder beside the file, whose name begins with `prefix`, holds the program until it is
    complete. PayloadError: there is no compiler, or it refuses the source.
    """
    zig, _ = _zig()
    store.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with folders.removed_at_end(prefix, target.parent) as folder:
        output = folder / "payload"
        command = [*_command(zig, source, abi, libc=libc), "-o", str(output)]
        environment = {
            **{key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ},
            "ZIG_GLOBAL_CACHE_DIR": str(store),
            "ZIG_LOCAL_CACHE_DIR": str(store),
        }
        try:
            done = _executed(command, environment)
        except subprocess.TimeoutExpired:
            raise PayloadError(
                f"{program} could not be built for {abi}: the compiler did not end within"
                f" {TIME_LIMIT:g} s",
                hint="python -m pip install --force-reinstall ziglang",
            ) from None
        if done.returncode != 0 or not output.is_file():
            raise PayloadError(
                f"{program} could not be built for {abi}:\n{done.stderr.strip()[:4000]}",
                hint=f"fix {source}, or leave the workload out with --workloads",
            )
        output.chmod(0o755)
        output.replace(target)
