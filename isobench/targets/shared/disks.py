"""Disks of guests (their sizes, and empty file systems in sparse files) and disks of the host."""

import os
import re
import shutil
from pathlib import Path
from typing import Final

from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds
from isobench.targets.shared import processes

TOOL: Final = "mke2fs"
_SIZE: Final = re.compile(r"(\d+)\s*(MiB|GiB)")


def mebibytes(size: str, option: str) -> int:
    """Return the MiB in a size such as "512MiB" or "2GiB".

    ValueError, with the name of the option: the text is no such size, or is zero.
    """
    found = _SIZE.fullmatch(size.strip())
    if found is None or int(found.group(1)) == 0:
        raise ValueError(f'{option} = "{size}": write it as "512MiB" or "2GiB", in these units')
    return int(found.group(1)) * (1024 if found.group(2) == "GiB" else 1)


def disk_under(path: Path) -> tuple[str, str] | None:
    """Return the whole disk under a folder's file system: device path and numbers ("254:0").

    None where the file system has no block device of its own (tmpfs, btrfs, a network).
    """
    try:
        number = path.stat().st_dev
        block = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        # Cgroups limit a whole disk: the kernel refuses the numbers of a partition (ENODEV).
        if (block / "partition").exists():
            block = block.parent
        # sysfs writes "!" for the "/" in a device's name: cciss!c0d0 is /dev/cciss/c0d0.
        return f"/dev/{block.name.replace('!', '/')}", (block / "dev").read_text().strip()
    except OSError:
        return None


def tool() -> str | None:
    """Return the path of mke2fs, or None. An ordinary user's PATH lacks its directory."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(TOOL, path=path)


def make(path: Path, size: int) -> None:
    """Make an empty ext4 file system of `size` MiB in a sparse file. SessionError: mke2fs fails."""
    found = tool()
    if found is None:
        raise SessionError(f"{TOOL} was removed during the run", hint="install e2fsprogs again")
    done = processes.run(
        [found, "-q", "-F", "-t", "ext4", str(path), f"{size}m"],
        timeout=Nanoseconds(60 * SECOND),
        env=os.environ,
    )
    if done.exit_code != 0:
        reason = " ".join(processes.last_line(done.stderr).split())
        raise SessionError(
            f"a disk of {size} MiB could not be made: {TOOL}: {reason}",
            hint="df -h ~/.cache; or set another disk of this target in isobench.toml",
        )
