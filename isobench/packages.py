"""Which packages bring what a target needs, by distribution."""

import importlib.util
import os
import shutil
import sys
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
        "apt-get": (
            *("podman", "runc", "uidmap", "slirp4netns", "fuse-overlayfs"),
            "catatonit",  # what holds the namespaces of a pod
        ),
        "dnf": ("podman", "runc", "catatonit"),
        "pacman": ("podman", "runc", "catatonit"),
        "zypper": ("podman", "runc", "catatonit"),
    },
    "bubblewrap": dict.fromkeys(("apt-get", "dnf", "pacman", "zypper"), ("bubblewrap",)),
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
PYTHON: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes": ("kubernetes>=29",),
}
"""What a target needs of PyPI, where isobench itself does not bring it."""
NAMES: Final = (*PACKAGES, *PYTHON)
_ALIASES: Final = {
    "podman-pod": "podman",
    "kvm": "qemu",
    "qemu-aarch64": "qemu",
    "qemu-user-aarch64": "qemu-user",
    "qemu-user-riscv64": "qemu-user",
}
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
        if name not in NAMES:
            raise UsageError(f"nothing is known of {name!r}", hint=f"of: {', '.join(NAMES)}")
    system = [name for name in known if name in PACKAGES]
    python = dict.fromkeys(package for name in known for package in PYTHON.get(name, ()))
    return [*(_system(system) if system else ()), *([[*_pip(), *python]] if python else ())]


def _pip() -> list[str]:
    """Return the command that installs beside isobench: its environment need not hold pip."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install"]
    return ["python3", "-m", "pip", "--python", sys.prefix, "install"]


def _system(known: Sequence[str]) -> list[list[str]]:
    tool = manager()
    wanted = dict.fromkeys(package for name in known for package in PACKAGES[name][tool])
    *before, install = _INSTALL[tool]
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    return [*([*prefix, *command] for command in before), [*prefix, *install, *wanted]]
