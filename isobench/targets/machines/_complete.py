"""The complete guest: the distribution itself, with systemd, udev and OpenSSH, on a disk.

It stands beside the minimal guest for sentences about "a complete operating system". mmdebstrap
puts it together from packages, in a user namespace where isobench is not root; what comes out is
an ext4 file system in a qcow2 image, kept in the cache. Every instance writes to an overlay of its
own.
"""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isobench.model import host_abi
from isobench.model.errors import SessionError
from isobench.targets.machines import _cache

FORMAT: Final = 1
"""Of what is kept in the cache; another number makes the image anew."""
PACKAGES: Final = ("systemd-sysv", "udev", "dbus", "openssh-server", "iproute2", "kmod")
COMMAND_LINE: Final = "net.ifnames=0 systemd.show_status=0 systemd.log_target=kmsg"
_NAME: Final = f"complete-{FORMAT}"
_TOOLS: Final = ("mmdebstrap", "qemu-img", "mke2fs")
_SIZE: Final = "2G"
_TIMEOUT: Final = 1800.0
# For mmdebstrap's own shell, which gives it the folder of the root.
_LIST: Final = """chroot "$1" dpkg-query -W -f '${Package} ${Version}\\n' > packages"""

# What makes the distribution isobench's guest, as files in its root.
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
    # A key of the distribution's own would be the same in every guest: it gets one each time.
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
    """Return the first program that is missing to make the image, or nothing."""
    if is_cached():
        return "" if shutil.which("qemu-img") else "qemu-img"
    return next((tool for tool in _TOOLS if _tool(tool) is None), "")


def is_cached() -> bool:
    """Say whether the image is in the cache."""
    return _cache.find(_NAME) is not None


def image(say: _cache.Say) -> tuple[Path, tuple[str, ...]]:
    """Return the qcow2 image and what it was made of, made at first use."""
    what = "putting a complete guest together from packages: about 80 MB and a minute, once"
    part, made = _cache.obtain(_NAME, _make, what, say)
    return part / "root.qcow2", (f"{_codename()} of {len(made.packages)} packages",)


def overlay(base: Path, path: Path) -> None:
    """Make an image that keeps what is written above `base`."""
    _run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(path)],
        "qemu-img",
    )


def _tool(name: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def _run(argv: Sequence[str], what: str, *, folder: Path | None = None) -> None:
    environment = {
        **{key: os.environ[key] for key in ("HOME", "TMPDIR", "http_proxy") if key in os.environ},
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, check=False, env=environment,
            timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise SessionError(f"{what}: {error}", hint="isobench doctor --install qemu") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-400:]
        raise SessionError(f"{what} failed: {said}", hint="df -h; does apt-get update work?")


def _make(work: Path, result: Path) -> list[str]:
    """Bootstrap the distribution, add isobench's files, pack all into an image."""
    home = host_abi()
    assert home is not None  # the target's probe has seen to that
    packages = work / "packages"
    _run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar"),
            f"--include={','.join(PACKAGES)}",
            f"--customize-hook={_LIST}",
            *(_codename(), str(work / "root.tar")),
        ],
        "mmdebstrap",
        folder=work,
    )
    _add_files(work / "root.tar")
    script = (
        "set -e; mkdir root; tar --extract --numeric-owner --file root.tar --directory root; "
        "rm -f root/etc/ssh/ssh_host_*_key* root/etc/machine-id; : > root/etc/machine-id; "
        f"mke2fs -q -F -t ext4 -d root root.raw {_SIZE}; rm -rf root"
    )
    # Files of other users than isobench's own can only be made, and removed, in a namespace.
    helper = [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]
    _run([*helper, "sh", "-c", script], "mke2fs", folder=work)
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
    """Append isobench's own files to the archive of the root."""
    with tarfile.open(archive, "a") as tar:
        for name in _FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, text in _FILES.items():
            for parent in reversed(Path(name).parents[:-1]):
                entry = tarfile.TarInfo(str(parent))
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name, target in _LINKS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)


def _codename() -> str:
    """Return the release that this system runs, "bookworm"."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise SessionError(
        "/etc/os-release names no release",
        hint="a complete guest is made on Debian or Ubuntu only",
    )
