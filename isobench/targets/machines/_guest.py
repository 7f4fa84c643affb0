"""The guest of isobench's virtual machines: a distribution's own kernel and an SSH server, and
nothing else.

Its packages are downloaded and unpacked, never installed (`_packages`), and kept between runs
(`_cache`). A second run needs no network. A guest consists of

    kernel                  as the distribution ships it
    modules                 archive: /guest/modules and the drivers that this file lists
    server                  archive: /guest/server, dropbear, its libraries and its configuration

The kernel unpacks the archives one after the other, and the stage's own archive last. That one is
made for each instance (`stage_archive`). The first process is isobench's `_init`
(workloads/_init/payload.c).
"""

import gzip
import hashlib
import lzma
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isobench.model.errors import SessionError
from isobench.targets.machines import _cache, _cpio
from isobench.targets.machines._packages import PackageClient
from isobench.targets.shared import elf

FORMAT: Final = 3
"""Version of the parts in the cache: with another number every guest is made again."""
USER: Final = "root"
DRIVERS: Final = ("virtio_pci", "virtio_net", "virtio_blk")
"""Drivers that the kernel needs to see its devices. An absent module counts as built in."""
_KERNELS: Final = ("linux-image-cloud-{}", "linux-image-virtual", "linux-image-{}")
"""Metapackages of kernels, the smallest first: Debian's for clouds, Ubuntu's, Debian's general."""
_KERNEL_PACKAGE: Final = re.compile(r"linux-(image|modules)-\d\S*")
_SERVER: Final = "dropbear-bin"
# A signed module ends with its signature, a struct module_signature of 12 bytes whose last four are
# the signature's length (big-endian), and this text (Linux, include/linux/module_signature.h).
_SIGNATURE: Final = b"~Module signature appended~\n"
_SIGNATURE_HEAD: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A kernel, and the archives that precede a stage's own."""

    kernel: Path
    archives: tuple[Path, ...]
    packages: tuple[str, ...]
    """What it was made of: "linux-image-6.1.0-56-cloud-amd64 6.1.192-2"."""


# ---- the kernel and its modules ------------------------------------------------------------------


def _kernel_maker(machine: str) -> Callable[[Path, Path], list[str]]:
    """Return a function that makes the part with the distribution's kernel (`_cache.obtain`)."""

    def make(work: Path, result: Path) -> list[str]:
        apt = PackageClient(machine, work)
        apt.update()
        root, packages = apt.unpack(_kernel_packages(apt))
        kernels = sorted((root / "boot").glob("vmlinu[xz]-*"))
        if not kernels:
            raise SessionError(
                f"{', '.join(packages)}: there is no kernel in /boot", hint="isobench clean"
            )
        shutil.copyfile(kernels[-1], result / "kernel")
        (result / "modules").write_bytes(module_archive(_modules_of(root)))
        return packages

    return make


def _kernel_packages(apt: PackageClient) -> list[str]:
    """Return the packages with the smallest kernel that the sources of apt offer."""
    for name in _KERNELS:
        packages = apt.with_dependencies(name.format(apt.architecture))
        # A kernel also depends on tools that make an initial RAM disk: a guest needs none of them.
        wanted = [package for package in packages if _KERNEL_PACKAGE.fullmatch(package)]
        if wanted:
            return list(dict.fromkeys(wanted))
    names = ", ".join(name.format(apt.architecture) for name in _KERNELS)
    raise SessionError(
        f"apt has no kernel for {apt.architecture}: none of {names}",
        hint='set your own in isobench.toml: [targets.qemu] kernel = "/path/to/vmlinuz"',
    )


def _modules_of(root: Path) -> Mapping[str, Path]:
    """Return every kernel module under a root directory, by the name that others depend on."""
    return _by_name([*_all_modules(root / "lib/modules"), *_all_modules(root / "usr/lib/modules")])


def _all_modules(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*.ko*"))


def _by_name(modules: Sequence[Path]) -> dict[str, Path]:
    # File names have dashes or underscores; the kernel treats both as the same (modprobe(8)).
    return {path.name.partition(".ko")[0].replace("-", "_"): path for path in modules}


def _module(path: Path) -> bytes:
    """Return the content of a module, decompressed where Python can do so.

    Python 3.11 has no Zstandard, so that such a module is left to the guest's kernel.
    """
    try:
        data = path.read_bytes()
        match path.suffix:
            case ".xz":
                return lzma.decompress(data)
            case ".gz":
                return gzip.decompress(data)
            case _:
                return data
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise SessionError(
            f"the kernel module {path} cannot be read: {error}",
            hint="unpack the kernel's package again, or set modules to another folder",
        ) from None


def _dependencies(data: bytes) -> list[str]:
    """Return the modules that this one needs, from its .modinfo section.

    An unpacked package has no modules.dep: depmod makes that file when a kernel is installed.
    """
    at = data.find(b"\0depends=")
    if at < 0:
        return []
    names = data[at + 9 : data.index(b"\0", at + 9)].decode(errors="replace")
    return [name.replace("-", "_") for name in names.split(",") if name]


def without_signature(data: bytes) -> bytes:
    """Return a kernel module without its signature.

    Checking seven signatures adds a second to the start of an emulated guest. apt has already
    verified the package that the modules come from, and a guest must trust its host in any case.
    """
    if not data.endswith(_SIGNATURE):
        return data
    head = len(data) - len(_SIGNATURE) - _SIGNATURE_HEAD
    length = int.from_bytes(data[head + 8 : head + 12], "big")
    return data[: head - length] if 0 < length < head else data


def module_archive(modules: Mapping[str, Path], wanted: Sequence[str] = DRIVERS) -> bytes:
    """Return the archive of the wanted modules and their dependencies, in the order of loading."""
    order: list[str] = []
    content: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in content or name not in modules:
            return
        # Entered before its dependencies are, so that two modules that need each other do not loop.
        content[name] = _module(modules[name])
        for other in _dependencies(content[name]):
            add(other)
        order.append(name)

    for name in wanted:
        add(name)
    archive = _cpio.Archive()
    archive.directory("guest")
    archive.directory("guest/drivers")
    paths = []
    for name in order:
        # _init recognises by this suffix that the kernel must decompress the module.
        suffix = ".ko.zst" if modules[name].suffix == ".zst" else ".ko"
        archive.file(f"guest/drivers/{name}{suffix}", without_signature(content[name]))
        paths.append(f"/guest/drivers/{name}{suffix}\n")
    archive.file("guest/modules", "".join(paths).encode())
    return archive.finished()


def _user_modules(tree: Path) -> Path:
    """Return the archive of the drivers in a folder of the user.

    It is made each time: this takes little time, and the folder may have changed.
    """

    def make(result: Path) -> None:
        (result / "modules").write_bytes(module_archive(_by_name(_all_modules(tree))))

    name = hashlib.sha256(os.fsencode(tree)).hexdigest()[:12]
    part, _ = _cache.replace(f"modules-{name}", make)
    return part / "modules"


# ---- the SSH server ------------------------------------------------------------------------------


def _server_maker(machine: str) -> Callable[[Path, Path], list[str]]:
    """Return a function that makes the part with the SSH server (`_cache.obtain`)."""

    def make(work: Path, result: Path) -> list[str]:
        apt = PackageClient(machine, work)
        apt.update()
        wanted = apt.with_dependencies(_SERVER)
        if not wanted:
            raise SessionError(
                f"apt has no package {_SERVER} for {apt.architecture}",
                hint="add the section main (Ubuntu: universe) to the sources of apt",
            )
        root, packages = apt.unpack(wanted)
        programs = [*root.glob("usr/sbin/dropbear"), *root.glob("usr/bin/dropbear")]
        if not programs:
            raise SessionError(f"the package {_SERVER} contains no dropbear", hint="isobench clean")
        (result / "server").write_bytes(server_archive(programs[0], root))
        return packages

    return make


def _resolve_inside(root: Path, path: Path) -> Path:
    """Follow links as inside `root`: an absolute link must not lead to a file of the host."""
    for _ in range(8):
        if not path.is_symlink():
            break
        link = path.readlink()
        path = root / link.relative_to("/") if link.is_absolute() else path.parent / link
    return path


def server_archive(program: Path, root: Path) -> bytes:
    """Return the archive of an SSH server: the program, its libraries, its configuration.

    `root` is the directory with the unpacked packages.
    """
    archive = _cpio.Archive()
    for name in ("bin", "etc", "lib", "lib64", "guest", "root"):
        archive.directory(name, 0o700 if name == "root" else 0o755)
    # dropbear refuses authorized_keys in a directory that others may write to.
    archive.directory("root/.ssh", 0o700)
    archive.program("bin/dropbear", program)
    _add_libraries(archive, program, root)
    # The agent is the login shell, so that no shell interprets what SSH is to execute.
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/isobench/_agent\n")
    archive.file("etc/group", b"root:x:0:\n")
    archive.file("etc/shadow", b"root:*:19000:0:99999:7:::\n", 0o600)
    # dropbear rejects a user whose shell is not in this file (getusershell(3)).
    archive.file("etc/shells", b"/isobench/_agent\n")
    archive.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nshadow: files\n")
    # Keys only, no forwarding, one connection on standard input: `_init` listens (dropbear(8)).
    words = ("/bin/dropbear", "-i", "-s", "-g", "-j", "-k", "-r", "/guest/host_key")
    archive.file("guest/server", "".join(f"{word}\n" for word in words).encode())
    return archive.finished()


def _add_libraries(archive: _cpio.Archive, program: Path, root: Path) -> None:
    """Add every library that a program needs, directly or through another library."""
    libraries = {
        path.name: path
        for place in ("lib", "lib64", "usr/lib", "usr/lib64")
        for pattern in ("*.so*", "*/*.so*")
        for path in sorted(root.glob(f"{place}/{pattern}"))
    }
    # glibc before 2.34 loads libnss_files at run time, so that no program lists it as needed.
    # The interpreter comes first: libraries list it without its path, and it must lie at its path.
    wanted, done = [*elf.needed_libraries(program.read_bytes()), "libnss_files.so.2"], set[str]()
    while wanted:
        name = wanted.pop(0)
        base = name.rpartition("/")[2]
        if base in done or base not in libraries:
            continue
        done.add(base)
        data = _resolve_inside(root, libraries[base]).read_bytes()
        # The kernel opens the interpreter by its path; the interpreter searches /lib for the rest.
        archive.file(name.lstrip("/") if name.startswith("/") else f"lib/{base}", data, 0o755)
        wanted += elf.needed_libraries(data)


# ---- the guest -----------------------------------------------------------------------------------


def guest(
    machine: str,
    *,
    kernel: str = "",
    initrd: str = "",
    modules: str = "",
    server: bool = True,
    say: _cache.Say = lambda _: None,
) -> Guest:
    """Return a guest for an ISA, and make it at first use.

    `kernel` is the path of a kernel to boot in place of the distribution's. `modules` is then a
    folder such as /lib/modules/6.1.0-1-amd64, needed if the virtio drivers are not built in.
    `initrd` is an archive that is unpacked before all others. Without `server` nobody can log in:
    a complete guest has an SSH server of its own. `say` gets a line before each download.

    Raises SessionError if the guest cannot be made.
    """
    archives: list[Path] = []
    packages: list[str] = []
    if server:
        server_part, made = _cache.obtain(
            _server_part(machine),
            _server_maker(machine),
            "downloading an SSH server for guests: about 5 MB and the package lists, once",
            say,
        )
        archives, packages = [server_part / "server"], list(made.packages)
    if kernel:
        image = Path(kernel).expanduser()
        if modules:
            archives.insert(0, _user_modules(Path(modules).expanduser()))
    else:
        kernel_part, made = _cache.obtain(
            _kernel_part(machine),
            _kernel_maker(machine),
            "downloading a kernel for guests: about 30 MB and the package lists, once",
            say,
        )
        image = kernel_part / "kernel"
        archives.insert(0, kernel_part / "modules")
        packages = [*made.packages, *packages]
    # Files of later archives replace those of earlier ones: the user's archive comes first, so that
    # it cannot replace isobench's own files.
    if initrd:
        archives.insert(0, Path(initrd).expanduser())
    return Guest(kernel=image, archives=tuple(archives), packages=tuple(packages))


def _server_part(machine: str) -> str:
    return f"server-{FORMAT}-{machine}"


def _kernel_part(machine: str) -> str:
    return f"kernel-{FORMAT}-{machine}"


def is_cached(machine: str, *, own_kernel: bool) -> bool:
    """Return whether a guest for this ISA is in the cache.

    With `own_kernel` the user provides the kernel, so that only the server counts.
    """
    names = [_server_part(machine)] + ([] if own_kernel else [_kernel_part(machine)])
    return all(_cache.find(name) is not None for name in names)


def write_initrd(path: Path, guest_: Guest, stage_archive: bytes) -> None:
    """Write the initial RAM disk of one instance: the guest's archives, then the stage's own."""
    with path.open("wb") as target:
        for archive in guest_.archives:
            with archive.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
            # The kernel expects each archive at a multiple of four (buffer-format.rst, see _cpio).
            target.write(bytes(-target.tell() % 4))
        target.write(stage_archive)


def stage_archive(
    programs: Path,
    *,
    request: bytes | None = None,
    address: str = "",
    host_key: bytes = b"",
    host_key_pem: str = "",
    authorized: str = "",
    root: str = "",
) -> bytes:
    """Return the archive of one instance.

    `programs` is the folder of the stage's programs; it holds `_init`, the guest's first process.
    `request` is executed before anything else starts. `address` is "IPV4 NETMASK-BITS INTERFACE".
    `host_key` is for dropbear, `host_key_pem` for OpenSSH, `authorized` is the public key that may
    log in. `root` is the block device of a complete guest, whose own init takes over.
    """
    archive = _cpio.Archive()
    for name in ("dev", "proc", "sys", "tmp", "scratch", "guest", "isobench"):
        archive.directory(name)
    # The kernel opens /dev/console for its first process before that one can mount devtmpfs.
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3)
    archive.program("init", programs / "_init")
    for program in sorted(programs.iterdir()):
        archive.program(f"isobench/{program.name}", program)
    if request is not None:
        archive.file("guest/request", request)
    if root:
        archive.file("guest/root", f"{root}\n".encode())
    if address:
        archive.file("guest/address", f"{address}\n".encode())
        archive.file("guest/host_key", host_key, 0o600)
        archive.file("guest/host_key.pem", host_key_pem.encode(), 0o600)
        archive.file("guest/authorized_keys", f"{authorized}\n".encode())
        archive.directory("root", 0o700)
        archive.directory("root/.ssh", 0o700)
        archive.file("root/.ssh/authorized_keys", f"{authorized}\n".encode(), 0o600)
    return archive.finished()
