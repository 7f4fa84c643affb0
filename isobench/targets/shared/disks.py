"""Disks: of guests, how large, and an empty file system in a sparse file; of the host, which one a
folder lies on.
"""

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
    """Return a size as users write it, in MiB; ValueError that names the option: it is none."""
    found = _SIZE.fullmatch(size.strip())
    if found is None or int(found.group(1)) == 0:
        raise ValueError(f'{option} = "{size}": write it as "512MiB" or "2GiB", in these units')
    return int(found.group(1)) * (1024 if found.group(2) == "GiB" else 1)


def disk_under(path: Path) -> tuple[str, str] | None:
    """Return the whole disk that a folder's file system lies on: its device's path, and its numbers
    as in "254:0". None where there is none, or none of its own (memory, btrfs, a network).
    """
    try:
        number = path.stat().st_dev
        block = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        if (block / "partition").exists():  # limits are a whole disk's
            block = block.parent
        return f"/dev/{block.name.replace('!', '/')}", (block / "dev").read_text().strip()
    except OSError:
        return None


def tool() -> str | None:
    """Return the path of mke2fs; an ordinary user's PATH does not lead to it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(TOOL, path=path)


def make(path: Path, size: int) -> None:
    """Make an empty ext4 file system of `size` MiB in a sparse file."""
    found = tool()
    if found is None:
        raise SessionError(f"{TOOL} has vanished since it was looked for")
    done = processes.run(
        [found, "-q", "-F", "-t", "ext4", str(path), f"{size}m"],
        timeout=Nanoseconds(60 * SECOND),
        env=os.environ,
    )
    if done.exit_code != 0:
        said = " ".join(processes.last_line(done.stderr).split())
        raise SessionError(
            f"a disk of {size} MiB could not be made: {TOOL}: {said}",
            hint="df -h ~/.cache; or another disk = … of this target in isobench.toml",
        )
