"""Technologies without their own target: how to measure each with another target, if possible.

They have no columns in the report, which has only columns of targets that ran.
"""

from collections.abc import Mapping
from typing import Final

_PRESET: Final = 'as one of your machines: kind = "ssh", preset = "{}", host = …, machine = …'
_GUEST: Final = 'as a guest that you provide: kind = "ssh", host = …, start = …, stop = …'
_RUNTIME: Final = 'as the runtime of an engine: kind = "docker" or "podman", runtime = "{}"'
_NOT_YET: Final = "not supported yet"

_INSTRUCTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("esxi", "hyper-v", "libvirt", "virtualbox", "vmware-workstation", "vsphere"),
            *("wsl", "wsl-1"),
        ),
        _PRESET,
    ),
    **dict.fromkeys(("cloud-hypervisor", "firecracker", "xen"), _GUEST),
    **dict.fromkeys(("crun", "kata", "youki"), _RUNTIME),
    "flatpak": "its sandbox is the target bubblewrap",
    "incus": f"{_NOT_YET}; it runs LXC containers, which the target lxc measures",
    "nerdctl": f"{_NOT_YET}; the target kubernetes can run on containerd",
    "sandboxie-plus": f"{_NOT_YET}, since it needs Windows; firejail and landlock are similar",
    "toolbox": f"{_NOT_YET}; the target distrobox is similar",
}
"""The instructions by name of the technology; {} is replaced by the name."""
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "vmware": "esxi",
    "vbox": "virtualbox",
    "hyperv": "hyper-v",
    "wsl2": "wsl",
    "wsl-2": "wsl",
    "wsl1": "wsl-1",
    "kata-containers": "kata",
    "lxd": "incus",
    "sandboxie": "sandboxie-plus",
    "toolbx": "toolbox",
    "containerd": "nerdctl",
}


def names() -> frozenset[str]:
    """Return all names of these technologies."""
    return frozenset({*_INSTRUCTIONS, *_OTHER_NAMES})


def instructions(name: str) -> str | None:
    """Return how to measure a technology that is not a target; None: the name is unknown."""
    known = _OTHER_NAMES.get(name.lower(), name.lower())
    found = _INSTRUCTIONS.get(known)
    return None if found is None else found.replace("{}", known)


def groups() -> list[tuple[str, str]]:
    """Return pairs of names, separated by commas, and their common instructions."""
    return [
        (
            ", ".join(name for name in _INSTRUCTIONS if _INSTRUCTIONS[name] == same),
            same.replace("{}", "NAME"),
        )
        for same in dict.fromkeys(_INSTRUCTIONS.values())
    ]
