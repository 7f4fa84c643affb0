"""Which packages bring what a target needs, by distribution."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from isobench.errors import UsageError

PACKAGES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "docker": {
        "apt-get": ("docker.io",),
        "dnf": ("moby-engine",),
        "pacman": ("docker",),
        "zypper": ("docker",),
    },
    # runc beside the default crun: crun refuses hybrid cgroups. The rest is what rootless
    # containers need.
    "podman": {
        "apt-get": ("podman", "runc", "uidmap", "slirp4netns", "fuse-overlayfs"),
        "dnf": ("podman", "runc"),
        "pacman": ("podman", "runc"),
        "zypper": ("podman", "runc"),
    },
    "bubblewrap": dict.fromkeys(("apt-get", "dnf", "pacman", "zypper"), ("bubblewrap",)),
    "gvisor": {"apt-get": ("runsc",), "dnf": (), "pacman": (), "zypper": ()},
    # What makes the guest is there on every Debian and Ubuntu: apt, dpkg, e2fsprogs.
    "qemu": {
        "apt-get": (
            *("qemu-system-x86", "qemu-system-arm", "qemu-utils"),
            *("e2fsprogs", "mmdebstrap", "uidmap"),
        ),
        "dnf": ("qemu-system-x86-core", "qemu-system-aarch64-core", "qemu-img", "e2fsprogs"),
        "pacman": ("qemu-system-x86", "qemu-system-aarch64", "qemu-img", "e2fsprogs"),
        "zypper": ("qemu-x86", "qemu-arm", "qemu-tools", "e2fsprogs"),
    },
    "qemu-user": {
        "apt-get": ("qemu-user",),
        "dnf": ("qemu-user-static",),
        "pacman": ("qemu-user-static",),
        "zypper": ("qemu-linux-user",),
    },
    # isobench brings its own; this is what keys are made with, and accepted.
    "ssh": {
        "apt-get": ("openssh-client",),
        "dnf": ("openssh-clients",),
        "pacman": ("openssh",),
        "zypper": ("openssh-clients",),
    },
}
NAMES: Final = tuple(PACKAGES)
_ALIASES: Final = {
    "kvm": "qemu",
    "qemu-aarch64": "qemu",
    "qemu-user-aarch64": "qemu-user",
    "qemu-user-riscv64": "qemu-user",
}
_ELSEWHERE: Final = {
    "gvisor": "runsc is a single file: https://gvisor.dev/docs/user_guide/install/ says whence",
}
"""How to come by what a package manager does not have: its PACKAGES are none."""
_INSTALL: Final = {
    "apt-get": (("apt-get", "update"), ("apt-get", "install", "--yes")),
    "dnf": (("dnf", "install", "--assumeyes"),),
    "pacman": (("pacman", "-S", "--needed", "--noconfirm"),),
    "zypper": (("zypper", "--non-interactive", "install"),),
}


def manager() -> str:
    """Return this system's package manager; UsageError when it is none that isobench knows."""
    for name in _INSTALL:
        if shutil.which(name):
            return name
    raise UsageError(
        "none of apt-get, dnf, pacman and zypper is here", hint="install the packages by hand"
    )


def commands(names: Sequence[str]) -> list[list[str]]:
    """Return the commands that install what the names need, with sudo for ordinary users."""
    known = [_ALIASES.get(name, name) for name in names]
    for name in known:
        if name not in PACKAGES:
            raise UsageError(f"nothing is known of {name!r}", hint=f"of: {', '.join(NAMES)}")
    tool = manager()
    for name in known:
        if not PACKAGES[name][tool]:
            raise UsageError(f"{tool} has no package for {name}", hint=_ELSEWHERE[name])
    wanted = dict.fromkeys(package for name in known for package in PACKAGES[name][tool])
    *before, install = _INSTALL[tool]
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    return [*([*prefix, *command] for command in before), [*prefix, *install, *wanted]]
