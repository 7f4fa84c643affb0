"""The guest of isobench's virtual machines: a distribution's own kernel and SSH server, and nothing
else, put together without touching the host.

Packages are downloaded by apt into a folder of their own and unpacked, never installed: apt checks
their signatures, and needs no privilege for it. What comes out is kept in the cache under the hash
of its content; a second run needs no network.

    kernel                  as the distribution ships it
    modules                 archive: /guest/modules and the drivers it lists
    server                  archive: /guest/server, dropbear, its libraries, the files it wants

The kernel unpacks the archives one after the other, and after them the stage's own, made for each
instance (`stage_archive`). isobench's `_init` (workloads/_init/payload.c) is its first process.
"""

import contextlib
import fcntl
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from isobench.config import paths
from isobench.model import Leftover
from isobench.model.errors import SessionError
from isobench.targets.machines import _cpio
from isobench.targets.shared import elf, processes

FORMAT: Final = 3
"""Of what is kept in the cache; another number makes every guest anew."""
USER: Final = "root"
DRIVERS: Final = ("virtio_pci", "virtio_net", "virtio_blk")
"""What the kernel must load before it sees its devices. Absent ones are taken for built in."""
_DEBIAN_NAMES: Final = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}
_KERNELS: Final = ("linux-image-cloud-{}", "linux-image-virtual", "linux-image-{}")
"""Metapackages of kernels, the smallest first: Debian's for clouds, Ubuntu's, Debian's general."""
_KERNEL_PACKAGE: Final = re.compile(r"linux-(image|modules)-\d\S*")
_SERVER: Final = "dropbear-bin"
_TIMEOUT: Final = 900.0
_SPACE: Final = "df -h ~/.cache; another place: XDG_CACHE_HOME=/folder/on/a/disk"
_NETWORK: Final = "is there a network, and do the sources of apt answer? apt-get update"
_HOOKS: Final = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
"""What systems have apt do around an update, to their own caches: not ours to set off."""
_SIGNATURE: Final = b"~Module signature appended~\n"
_SIGNATURE_HEAD: Final = 12

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A kernel and the archives that go before a stage's own."""

    kernel: Path
    archives: tuple[Path, ...]
    packages: tuple[str, ...]
    """What it was made of: "linux-image-6.1.0-56-cloud-amd64 6.1.192-2"."""


class _Manifest(msgspec.Struct, frozen=True):
    """What is written beside a part in the cache."""

    files: dict[str, str]
    """Name -> SHA-256."""
    packages: list[str]


def folder() -> Path:
    """Return where guests are kept."""
    return paths.cache() / "guests"


# ---- apt -----------------------------------------------------------------------------------------


class _Apt:
    """apt and dpkg-deb with lists, status and cache of their own: any ISA, no privilege."""

    def __init__(self, machine: str, work: Path) -> None:
        self.architecture = _DEBIAN_NAMES[machine]
        self._work = work
        for name in ("lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        (work / "status").touch()
        settings = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Dir::State": str(work),
            "Dir::State::lists": str(work / "lists"),
            "Dir::State::status": str(work / "status"),
            "Dir::Cache": str(work / "cache"),
        }
        hooks = work / "no-hooks.conf"
        hooks.write_text("".join(f"#clear APT::Update::{hook};\n" for hook in _HOOKS))
        self._options = [f"-c={hooks}", *(f"-o{key}={value}" for key, value in settings.items())]
        self._missed = ""

    def _run(self, tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                [tool, *self._options, *words],
                cwd=self._work, capture_output=True, text=True, check=False,
                timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
                env=os.environ | processes.tied() | {"LC_ALL": "C"},
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise SessionError(f"{tool}: {error}", hint="isobench doctor --install qemu") from None
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            what = f"{tool} {next(word for word in words if word[0] != '-')}"
            why = " ".join(said)[:500] or done.stderr[-300:]
            hint = _SPACE if "No space left" in done.stderr else _NETWORK
            raise SessionError(f"{what} failed: {why}", hint=hint)
        return done

    def update(self) -> None:
        """Fetch the lists of all sources; one of a stranger's that does not answer is no harm."""
        said = self._run("apt-get", "-q", "update").stderr.splitlines()
        missed = [line.removeprefix("W: ") for line in said if "Failed to fetch" in line]
        self._missed = missed[0][:300] if missed else ""

    def closure(self, package: str) -> list[str]:
        """Return a package and all that it depends on; nothing where there is no such package.
        SessionError: there may be one, and its list could not be had.
        """
        kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        try:
            said = self._run(
                "apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), package
            ).stdout
        except SessionError:
            if self._missed:
                raise SessionError(f"apt-get update: {self._missed}", hint=_NETWORK) from None
            return []
        return [line for line in said.splitlines() if line and line[0] not in " <|"]

    def fetched(self, packages: Sequence[str]) -> tuple[Path, list[str]]:
        """Download and unpack packages: the root they make, and each with its version."""
        root = self._work / "root"
        self._run("apt-get", "-q", "download", *packages)
        found = []
        for archive in sorted(self._work.glob("*.deb")):
            name, version = archive.name.split("_")[:2]
            found.append(f"{name} {version.replace('%3a', ':')}")
            try:
                subprocess.run(
                    ["dpkg-deb", "-x", archive, root],
                    capture_output=True, check=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
                )  # fmt: skip
            except subprocess.CalledProcessError as error:
                said = processes.last_line(error.stderr)
                raise SessionError(
                    f"{archive.name} could not be unpacked: {said}", hint="df -h; isobench clean"
                ) from None
            except (OSError, subprocess.TimeoutExpired) as error:
                raise SessionError(f"dpkg-deb: {error}", hint="df -h; isobench clean") from None
            archive.unlink()
        return root, found


def lacking() -> str:
    """Return the first program that is missing to make a guest, or nothing."""
    return next((tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None), "")


# ---- parts ---------------------------------------------------------------------------------------


def kept(name: str) -> tuple[Path, _Manifest] | None:
    """Return a part of the cache that is whole, by the name under which it was made last."""
    found = (folder() / name).resolve()
    made = _whole(found)
    return None if made is None else (found, made)


def _whole(part_: Path) -> _Manifest | None:
    """Return what a folder of the cache holds; None unless it has just the content that its name
    is the hash of.
    """
    try:
        encoded = (part_ / "manifest.json").read_bytes()
        made = msgspec.json.decode(encoded, type=_Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    if _named(encoded) != part_.name:
        return None
    for file, digest in made.files.items():
        if not _is_whole(part_ / file, digest):
            return None
    return made


def _named(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:32]


_seen_whole: Final[set[tuple[str, int, int, str]]] = set()


def _is_whole(path: Path, digest: str) -> bool:
    """Say whether a file has this content; read once by each process, as long as it looks the
    same.
    """
    try:
        status = path.stat()
        looks = (str(path.resolve()), status.st_size, status.st_mtime_ns, digest)
        if looks not in _seen_whole and _digest(path) == digest:
            _seen_whole.add(looks)
    except OSError:
        return False
    return looks in _seen_whole


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep(name: str, work: Path, packages: list[str]) -> tuple[Path, _Manifest]:
    """Put the files of `work` into the cache under the hash of their content."""
    files = {path.name: _digest(path) for path in sorted(work.iterdir())}
    manifest = _Manifest(files=files, packages=packages)
    encoded = msgspec.json.encode(manifest)
    (work / "manifest.json").write_bytes(encoded)
    target = folder() / _named(encoded)
    if _whole(target) is None:
        if target.exists():  # damaged: it goes where `work` came from, and with that
            target.rename(work.with_name("damaged"))
        work.chmod(0o755)
        work.rename(target)
    fresh = folder() / f".{name}-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(folder() / name)
    return target, manifest


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other isobench is making a guest."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Make a SessionError of what keeps a guest's files from being written."""
    try:
        yield
    except OSError as error:
        raise SessionError(f"a guest's files cannot be written: {error}", hint=_SPACE) from None


def part(
    name: str, make: Callable[[Path, Path], list[str]], what: str, say: Say
) -> tuple[Path, _Manifest]:
    """Return a part, made if it is not there: `make` gets a folder to work in and one to fill."""
    found = kept(name)
    if found is not None:
        return found
    with writing(), _alone():
        found = kept(name)
        if found is not None:
            return found
        say(what)
        with tempfile.TemporaryDirectory(dir=folder(), prefix=".making-") as made:
            work, result = Path(made) / "work", Path(made) / "result"
            work.mkdir()
            result.mkdir()
            return _keep(name, result, make(work, result))


def _distribution_kernel(machine: str) -> Callable[[Path, Path], list[str]]:
    def make(work: Path, result: Path) -> list[str]:
        apt = _Apt(machine, work)
        apt.update()
        for name in _KERNELS:
            wanted = [p for p in apt.closure(name.format(apt.architecture)) if _is_kernel(p)]
            if wanted:
                break
        else:
            raise SessionError(
                f"apt knows no kernel for {apt.architecture} of a name that isobench knows",
                hint='name one of your own: [targets.qemu] kernel = "/path/to/vmlinuz"',
            )
        root, packages = apt.fetched(list(dict.fromkeys(wanted)))
        kernels = sorted((root / "boot").glob("vmlinu[xz]-*"))
        if not kernels:
            raise SessionError(f"{', '.join(packages)}: no kernel in it", hint="isobench clean")
        shutil.copyfile(kernels[-1], result / "kernel")
        (result / "modules").write_bytes(module_archive(_modules_of(root)))
        return packages

    return make


def _is_kernel(package: str) -> bool:
    return _KERNEL_PACKAGE.fullmatch(package) is not None


def _modules_of(root: Path) -> Mapping[str, Path]:
    """Return every kernel module under a root directory, by the name that others depend on."""
    found = [*_all_modules(root / "lib/modules"), *_all_modules(root / "usr/lib/modules")]
    return {path.name.partition(".ko")[0].replace("-", "_"): path for path in found}


def _all_modules(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*.ko*"))


def _module(path: Path) -> bytes:
    """Return a module's content, unpacked where Python can: a kernel may be unable to."""
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
        raise SessionError(f"the kernel module {path} cannot be read: {error}") from None


def _dependencies(data: bytes) -> list[str]:
    at = data.find(b"\0depends=")
    if at < 0:
        return []
    names = data[at + 9 : data.index(b"\0", at + 9)].decode(errors="replace")
    return [name.replace("-", "_") for name in names.split(",") if name]


def unsigned(data: bytes) -> bytes:
    """Return a kernel module without its signature.

    Checking seven signatures costs an emulated guest a second of its start; the archive they come
    in was checked by apt, and the guest trusts the host in any case.
    """
    if not data.endswith(_SIGNATURE):
        return data
    head = len(data) - len(_SIGNATURE) - _SIGNATURE_HEAD
    length = int.from_bytes(data[head + 8 : head + 12], "big")
    return data[: head - length] if 0 < length < head else data


def module_archive(modules: Mapping[str, Path], wanted: Sequence[str] = DRIVERS) -> bytes:
    """Return the archive of the wanted modules and what they depend on, in the order of loading."""
    order: list[str] = []
    content: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in content or name not in modules:
            return
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
        suffix = ".ko.zst" if modules[name].suffix == ".zst" else ".ko"
        archive.file(f"guest/drivers/{name}{suffix}", unsigned(content[name]))
        paths.append(f"/guest/drivers/{name}{suffix}\n")
    archive.file("guest/modules", "".join(paths).encode())
    return archive.finished()


def _distribution_server(machine: str) -> Callable[[Path, Path], list[str]]:
    def make(work: Path, result: Path) -> list[str]:
        apt = _Apt(machine, work)
        apt.update()
        wanted = apt.closure(_SERVER)
        if not wanted:
            raise SessionError(
                f"apt knows no package {_SERVER} for {apt.architecture}",
                hint="add the distribution's main (Ubuntu: universe) section to the sources of apt",
            )
        root, packages = apt.fetched(wanted)
        programs = [*root.glob("usr/sbin/dropbear"), *root.glob("usr/bin/dropbear")]
        if not programs:
            raise SessionError(f"{_SERVER} holds no dropbear", hint="isobench clean")
        (result / "server").write_bytes(server_archive(programs[0], root))
        return packages

    return make


def _inside(root: Path, path: Path) -> Path:
    """Follow links as they would lead inside `root`: an absolute one must not lead to the host."""
    for _ in range(8):
        if not path.is_symlink():
            break
        link = path.readlink()
        path = root / link.relative_to("/") if link.is_absolute() else path.parent / link
    return path


def server_archive(program: Path, root: Path) -> bytes:
    """Return the archive of an SSH server: the program, the libraries it needs, its files."""
    archive = _cpio.Archive()
    for name in ("bin", "etc", "lib", "lib64", "guest", "root"):
        archive.directory(name, 0o700 if name == "root" else 0o755)
    archive.directory("root/.ssh", 0o700)
    archive.program("bin/dropbear", program)
    libraries = {
        path.name: path
        for place in ("lib", "lib64", "usr/lib", "usr/lib64")
        for pattern in ("*.so*", "*/*.so*")
        for path in sorted(root.glob(f"{place}/{pattern}"))
    }
    # The interpreter comes first: others name it as a library, and it must lie at its path.
    wanted, done = [*elf.needed_libraries(program.read_bytes()), "libnss_files.so.2"], set[str]()
    while wanted:
        name = wanted.pop(0)
        base = name.rpartition("/")[2]
        if base in done or base not in libraries:
            continue
        done.add(base)
        data = _inside(root, libraries[base]).read_bytes()
        # The interpreter is named by its path, the others are looked for in /lib.
        archive.file(name.lstrip("/") if name.startswith("/") else f"lib/{base}", data, 0o755)
        wanted += elf.needed_libraries(data)
    # The agent is the login shell: what SSH asks to be executed never meets another one.
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/isobench/_agent\n")
    archive.file("etc/group", b"root:x:0:\n")
    archive.file("etc/shadow", b"root:*:19000:0:99999:7:::\n", 0o600)
    archive.file("etc/shells", b"/isobench/_agent\n")
    archive.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nshadow: files\n")
    # Keys only, no forwarding, one connection on standard input (`_init` listens).
    words = ("/bin/dropbear", "-i", "-s", "-g", "-j", "-k", "-r", "/guest/host_key")
    archive.file("guest/server", "".join(f"{word}\n" for word in words).encode())
    return archive.finished()


def _own_modules(tree: Path) -> Path:
    """Return the archive of the drivers in a folder of the user's own; made each time: it is quick,
    and the folder may have changed.
    """
    with (
        writing(),
        _alone(),
        tempfile.TemporaryDirectory(dir=folder(), prefix=".making-") as work,
    ):
        found = {
            path.name.partition(".ko")[0].replace("-", "_"): path for path in _all_modules(tree)
        }
        result = Path(work) / "result"
        result.mkdir()
        (result / "modules").write_bytes(module_archive(found))
        name = hashlib.sha256(os.fsencode(tree)).hexdigest()[:12]
        return _keep(f"modules-{name}", result, [])[0] / "modules"


# ---- the guest -----------------------------------------------------------------------------------


def guest(
    machine: str,
    *,
    kernel: str = "",
    initrd: str = "",
    modules: str = "",
    server: bool = True,
    say: Say = lambda _: None,
) -> Guest:
    """Return a guest for an ISA, made at first use; SessionError where that cannot be done.

    With `kernel` (a path) that one boots; `modules` is then a folder like
    /lib/modules/6.1.0-1-amd64, wanted where its virtio drivers are not built in. `initrd` is an
    archive that is unpacked before all others. Without `server` nobody can log in: a complete guest
    has an SSH server of its own.
    """
    archives: list[Path] = []
    packages: list[str] = []
    if server:
        server_part, made = part(
            f"server-{FORMAT}-{machine}",
            _distribution_server(machine),
            "downloading an SSH server for guests: about 5 MB and apt's lists, once",
            say,
        )
        archives, packages = [server_part / "server"], list(made.packages)
    if kernel:
        image = Path(kernel).expanduser()
        if modules:
            archives.insert(0, _own_modules(Path(modules).expanduser()))
    else:
        kernel_part, made = part(
            f"kernel-{FORMAT}-{machine}",
            _distribution_kernel(machine),
            "downloading the distribution's kernel for guests: about 30 MB and apt's lists, once",
            say,
        )
        image = kernel_part / "kernel"
        archives.insert(0, kernel_part / "modules")
        packages = [*made.packages, *packages]
    if initrd:
        archives.insert(0, Path(initrd).expanduser())
    return Guest(kernel=image, archives=tuple(archives), packages=tuple(packages))


def write_initrd(path: Path, guest_: Guest, stage_archive: bytes) -> None:
    """Write the initial RAM disk of one instance: the guest's archives and the stage's own."""
    with path.open("wb") as target:
        for archive in guest_.archives:
            with archive.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
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
    """Return the archive of one instance: isobench's first process, the stage's programs, a request
    to be executed at once, and who may log in.

    `root` is the device of a complete guest, whose own init takes over. `host_key` is for dropbear,
    `host_key_pem` for OpenSSH.
    """
    archive = _cpio.Archive()
    for name in ("dev", "proc", "sys", "tmp", "scratch", "guest", "isobench"):
        archive.directory(name)
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


def ready(machine: str, *, own_kernel: bool) -> bool:
    """Say whether a guest for this ISA is in the cache, its kernel included unless it is the
    user's own.
    """
    names = [f"server-{FORMAT}-{machine}"]
    names += [] if own_kernel else [f"kernel-{FORMAT}-{machine}"]
    return all(kept(name) is not None for name in names)


def sweep() -> list[Leftover]:
    """Remove and return what a killed isobench was making."""
    removed: list[Leftover] = []
    if not folder().is_dir():
        return removed
    # Whoever holds the lock is making something, and lives.
    with contextlib.suppress(OSError), (folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in folder().glob(".making-*"):
            shutil.rmtree(left, ignore_errors=True)
            removed.append(Leftover(what=f"folder {left}"))
    return removed
