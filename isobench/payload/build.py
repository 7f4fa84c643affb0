"""C source x ABI -> Payload: one compiler, one set of flags, cached by the content of everything
that goes in.

Zig (the PyPI package `ziglang`) is that compiler: clang with its linker and the headers of every
ISA in one wheel that pip installs, so that a machine without any compiler can build, and native and
emulated code come from the same one. Payloads use no C library: measured, that makes a first build
take 0.05 s a payload, where building Zig's musl first takes about a minute.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from isobench.config import paths
from isobench.model import Abi, Payload, Workload
from isobench.model.errors import PayloadError
from isobench.model.units import Sha256

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
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-fno-pie",
)
FREESTANDING: Final = ("-nostdlib", "-ffreestanding", "-fno-builtin")
WITH_LIBC: Final = ("-DISOBENCH_LIBC",)
AGENT: Final = "_agent"
EVIDENCE: Final = "_evidence"
INIT: Final = "_init"
LIMITS: Final = "_limits"
STARTUP: Final = "_startup"
LAUNCH: Final = "_launch"
CONFINE: Final = "_confine"
SPAWN: Final = "_spawn"
TOOLS: Final = (LAUNCH, CONFINE, SPAWN)
"""Programs of isobench's own for the host side; no stage's root holds them."""
INSIDE: Final = (EVIDENCE, AGENT, INIT, LIMITS)
"""Programs of isobench's own that a stage holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Toolchain:
    """How the compiler makes programs of one ABI."""

    triple: str
    headers: tuple[str, ...] = ()
    """Of the system's calls, below the compiler's own folder of headers."""
    flags: tuple[str, ...] = ()
    entry: tuple[str, ...] = ()
    """What the linker must be told where no C library says where a program begins."""
    inside: tuple[str, ...] = INSIDE
    """Which of isobench's own programs there are for it."""


def _linux(headers: str, machine: str) -> _Toolchain:
    return _Toolchain(
        triple=f"{machine}-linux-musl", headers=(f"{headers}-linux-any", "any-linux-any")
    )


_TOOLCHAINS: Final[Mapping[Abi, _Toolchain]] = {
    Abi.ELF_X86_64: _linux("x86", "x86_64"),
    Abi.ELF_AARCH64: _linux("aarch64", "aarch64"),
    Abi.ELF_RISCV64: _linux("riscv", "riscv64"),
    # Linux's headers are here for the names of its calls, which on_wasi.h answers. Scalar, as
    # above: the extension of vectors is not part of WebAssembly itself.
    Abi.WASM32: _Toolchain(
        triple="wasm32-wasi",
        headers=("x86-linux-any", "any-linux-any"),
        flags=("-mno-simd128",),
        inside=(EVIDENCE,),  # nothing starts a program there
    ),
    Abi.PE_X86_64: _Toolchain(
        triple="x86_64-windows-gnu",
        # What on Linux is an instruction, is a library here.
        flags=("-lkernel32", "-lntdll"),
        entry=("-Wl,--subsystem,console", "-Wl,-e,ib_entry"),
        # The agent forks and is passed descriptors: Windows has neither.
        inside=(EVIDENCE,),
    ),
}


def flags(abi: Abi, *, libc: bool) -> tuple[str, ...]:
    """Return the compiler's flags for an ABI: everything but its triple and its headers."""
    chain = _TOOLCHAINS[abi]
    return (*FLAGS, *chain.flags, *(WITH_LIBC if libc else (*FREESTANDING, *chain.entry)))


@cache
def _zig() -> tuple[Path, str]:
    """Return the compiler and what it is called."""
    try:
        import ziglang  # noqa: PLC0415 - a wheel that holds a compiler: looked for only when one is needed
    except ImportError:
        raise PayloadError(
            "the compiler for payloads is not installed", hint="python -m pip install ziglang"
        ) from None
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


def compiler() -> str:
    """Return what the compiler is called; PayloadError when it cannot run."""
    return _zig()[1]


def _command(zig: Path, source: Path, abi: Abi, *, libc: bool) -> list[str]:
    include = paths.shared("workloads") / "_include"
    headers = zig.parent / "lib" / "libc" / "include"
    system: list[str] = []
    chain = _TOOLCHAINS[abi]
    if not libc or abi.system != "linux":
        for folder in chain.headers:
            system += ["-isystem" if not libc else "-idirafter", str(headers / folder)]
    return [
        *(str(zig), "cc", "-target", chain.triple, *flags(abi, libc=libc)),
        *system,
        *("-I", str(include), str(source)),
    ]


def _key(source: Path, abi: Abi, name: str, *, libc: bool) -> str:
    headers = sorted((paths.shared("workloads") / "_include").glob("*.h"))
    hashed = hashlib.sha256()
    for part in (
        *(source.read_bytes(), name.encode(), abi.encode()),
        *(header.read_bytes() for header in headers),
        *(flag.encode() for flag in flags(abi, libc=libc)),
    ):
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.hexdigest()[:32]


def _compile(program: str, source: Path, abi: Abi, target: Path, *, libc: bool) -> None:
    zig, _ = _zig()
    store = paths.cache() / "zig"
    store.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        output = Path(folder) / "payload"
        command = [*_command(zig, source, abi, libc=libc), "-o", str(output)]
        environment = {
            **{key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ},
            "ZIG_GLOBAL_CACHE_DIR": str(store),
            "ZIG_LOCAL_CACHE_DIR": str(store),
        }
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=900
        )
        if done.returncode != 0 or not output.is_file():
            raise PayloadError(
                f"{program} could not be built for {abi}:\n{done.stderr.strip()[:4000]}",
                hint=f"mend {source}, or leave the workload out with --workloads",
            )
        output.chmod(0o755)
        output.replace(target)


def build(program: str, source: Path, abi: Abi, *, libc: bool = False) -> Payload:
    """Build one program, or take it from the cache."""
    name = compiler()
    path = paths.cache() / "payloads" / f"{_key(source, abi, name, libc=libc)}-{program}"
    if not path.is_file():
        _compile(program, source, abi, path, libc=libc)
    return Payload(
        program=program,
        abi=abi,
        path=path,
        sha256=Sha256(hashlib.sha256(path.read_bytes()).hexdigest()),
        compiler=name,
        flags=flags(abi, libc=libc),
    )


def programs(workloads: Iterable[Workload]) -> dict[str, tuple[Path, bool]]:
    """Return the programs that a stage for these workloads holds: name -> source, with libc or
    without.
    """
    root = paths.shared("workloads")
    own = {name: (root / name / "payload.c", False) for name in INSIDE}
    return own | {workload.program: (workload.source, workload.libc) for workload in workloads}


def build_all(
    wanted: dict[str, tuple[Path, bool]],
    abis: Sequence[Abi],
    *,
    host: Abi,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[Payload, ...]:
    """Build every program for every ABI that has it, and the host's own tools, side by side.

    `progress` hears how many of how many are done.
    """
    root = paths.shared("workloads")
    jobs = [
        (n, source, abi, libc)
        for abi in abis
        for n, (source, libc) in wanted.items()
        if n not in INSIDE or n in _TOOLCHAINS[abi].inside
    ]
    jobs += [(tool, root / tool / "payload.c", host, False) for tool in TOOLS]
    built: list[Payload] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        futures = [pool.submit(build, n, source, abi, libc=libc) for n, source, abi, libc in jobs]
        for future in futures:
            built.append(future.result())
            progress(len(built), len(jobs))
    return tuple(built)
