"""The complete guest: the host's distribution with systemd, udev and OpenSSH, on a disk.

It exists in addition to the minimal guest for claims about "a complete operating system".
mmdebstrap makes it from packages (mmdebstrap(1)), in a user namespace unless isobench is root. The
result is an ext4 file system in a qcow2 image, which is kept in the cache. Each instance writes to
an overlay of that image.
"""

import io
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isobench.model import host_abi
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.targets.machines import _cache, _packages
from isobench.targets.shared import processes

FORMAT: Final = 1
"""Version of the image in the cache: with another number it is made again."""
PACKAGES: Final = ("systemd-sysv", "udev", "dbus", "openssh-server", "iproute2", "kmod")
COMMAND_LINE: Final = "net.ifnames=0 systemd.show_status=0 systemd.log_target=kmsg"
_NAME: Final = f"complete-{FORMAT}"
_TOOLS: Final = ("mmdebstrap", "qemu-img", "mke2fs")
_SIZE: Final = "2G"
_TIMEOUT: Final = 1800.0
# A hook of mmdebstrap: its shell gets the root directory as $1.
_LIST: Final = """chroot "$1" dpkg-query -W -f '${Package} ${Version}\\n' > packages"""

# Files in the root that turn the distribution into isobench's guest. isobench.service starts after
# SSH and the network: "ready" then means that both work.
_FILES: Final = {
    "etc/systemd/system/isobench.service": """\
[Unit]
Description=isobench's requests
After=ssh.service systemd-networkd.service systemd-user-sessions.service

[Service]
ExecStart=/isobench/_init serve ttyS1
StandardOutput=null

[Install]
WantedBy=multi-user.target
""",
    "etc/systemd/network/10-isobench.network": """\
[Match]
Name=eth0

[Network]
Address=10.0.2.15/24
""",
    "etc/ssh/sshd_config.d/isobench.conf": """\
HostKey /guest/host_key.pem
AuthorizedKeysFile /guest/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding no
UseDNS no
UsePAM no
PrintMotd no
PrintLastLog no
""",
    "etc/hostname": "isobench\n",
    # Each instance gets a host key in /guest. The image has none: all guests would share it. The
    # empty ExecStartPre removes the check of the configuration (sshd -t) that Debian's unit makes.
    "etc/systemd/system/ssh.service.d/isobench.conf": "[Service]\nExecStartPre=\n",
}
_LINKS: Final = {
    "etc/systemd/system/multi-user.target.wants/isobench.service": (
        "/etc/systemd/system/isobench.service"
    ),
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": (
        "/lib/systemd/system/systemd-networkd.service"
    ),
}
_FOLDERS: Final = ("scratch", "isobench", "guest")


def missing_tool() -> str:
    """Return the first program that is missing to make the image, or an empty string."""
    if is_cached():
        return "" if shutil.which("qemu-img") else "qemu-img"
    return next((tool for tool in _TOOLS if _tool(tool) is None), "")


def is_cached() -> bool:
    """Return whether the image is in the cache."""
    return _cache.find(_NAME) is not None


def image(say: _cache.Say) -> tuple[Path, tuple[str, ...]]:
    """Return the qcow2 image and what it was made of; make the image at first use.

    Raises SessionError if that fails.
    """
    what = "making a complete guest from packages: about 80 MB to download and a minute, once"
    part, made = _cache.obtain(_NAME, _make, what, say)
    return part / "root.qcow2", (f"{_codename()} of {len(made.packages)} packages",)


def overlay(base: Path, path: Path) -> None:
    """Make an image that holds the differences to `base`, which stays as it is."""
    _run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(path)],
        "qemu-img",
    )


def _tool(name: str) -> str | None:
    # mke2fs is in /usr/sbin, which is not on the PATH of ordinary users.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def _run(argv: Sequence[str], what: str, *, folder: Path | None = None) -> None:
    environment = {
        **{key: os.environ[key] for key in ("HOME", "TMPDIR", "http_proxy") if key in os.environ},
        **_temporary(folder),
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
        "LC_ALL": "C",
    }
    try:
        done = processes.run(argv, folder=folder, env=environment, timeout=seconds(_TIMEOUT))
    except OSError as error:
        raise SessionError(f"{what}: {error}", hint="isobench doctor --install qemu") from None
    if done.exit_code != 0:
        errors = " ".join(done.stderr.decode(errors="replace").split())[-400:]
        raise SessionError(f"{what} failed: {errors}", hint="df -h; apt-get update")


def _temporary(folder: Path | None) -> dict[str, str]:
    """Return the variable that says where a program may put temporary files, if it is set."""
    # What a killed mmdebstrap leaves is then removed with the folder. An ordinary user's mmdebstrap
    # runs as a user of its own, who cannot enter it.
    return {"TMPDIR": str(folder)} if folder is not None and os.geteuid() == 0 else {}


def _make(work: Path, result: Path) -> list[str]:
    """Bootstrap the distribution, add isobench's files, and make an image of the result."""
    home = host_abi()
    assert home is not None  # checked by the target's probe
    packages = work / "packages"
    # For root of the user namespace, who is another user. Nobody else can enter the folder above.
    work.chmod(0o777)
    _run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar"),
            f"--include={','.join(PACKAGES)}",
            # mmdebstrap uses apt with the keys of the host's distribution.
            *(f'--aptopt={key} "{value}"' for key, value in _packages.SIGNED_ONLY.items()),
            f"--customize-hook={_LIST}",
            *(_codename(), str(work / "root.tar")),
        ],
        "mmdebstrap",
        folder=work,
    )
    _add_files(work / "root.tar")
    # An ordinary user can make no devices, and systemd mounts the kernel's: devtmpfs.
    # systemd fills an empty machine-id at each boot (machine-id(5)): no two guests share one.
    script = (
        f"set -e; root={_cache.ROOT}; mkdir $root; "
        "tar --extract --numeric-owner --exclude './dev/*' --file root.tar --directory $root; "
        "rm -f $root/etc/ssh/ssh_host_*_key* $root/etc/machine-id; : > $root/etc/machine-id; "
        f"mke2fs -q -F -t ext4 -d $root root.raw {_SIZE}; rm -rf $root"
    )
    _run([*_cache.in_user_namespace(), "sh", "-c", script], "mke2fs", folder=work)
    (work / "root.tar").unlink()
    _run(
        [
            *("qemu-img", "convert", "-q", "-O", "qcow2"),
            *(str(work / "root.raw"), str(result / "root.qcow2")),
        ],
        "qemu-img",
    )
    return packages.read_text().splitlines() if packages.is_file() else [_codename()]


def _add_files(archive: Path) -> None:
    """Append isobench's own files to the archive of the root directory."""
    with tarfile.open(archive, "a") as tar:
        for name in _FOLDERS:
            tar.addfile(_directory(name))
        for name, text in _FILES.items():
            for parent in reversed(Path(name).parents[:-1]):
                tar.addfile(_directory(str(parent)))
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name, target in _LINKS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)


def _directory(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _codename() -> str:
    """Return the release of the host's distribution, such as "bookworm" (os-release(5))."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise SessionError(
        "/etc/os-release has no VERSION_CODENAME",
        hint='a complete guest can be made on Debian and Ubuntu only: leave out guest = "complete"',
    )
