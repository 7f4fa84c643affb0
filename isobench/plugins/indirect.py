"""Technologies without a target of their own: how each is measured all the same, or that it is not
yet.

None of them gets a column by itself: a heading stands only over what ran.
"""

from collections.abc import Mapping
from typing import Final

_PRESET: Final = 'a machine of yours: kind = "ssh", preset = "{}", host = …, machine = …'
_GUEST: Final = 'a guest that you name or start: kind = "ssh", host = …, start = …, stop = …'
_RUNTIME: Final = 'an engine\'s runtime: kind = "docker" or "podman", runtime = "{}"'
_NOT_YET: Final = "not supported yet"

_WAYS: Final[Mapping[str, str]] = {
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
    "incus": f"{_NOT_YET}; what it runs are LXC's containers, the target lxc",
    "nerdctl": f"{_NOT_YET}; containerd runs under the target kubernetes",
    "sandboxie-plus": f"{_NOT_YET}, being Windows' alone; firejail and landlock are of its kind",
    "toolbox": f"{_NOT_YET}; the target distrobox is of its kind",
}
"""By the name that people would type; {} stands for it."""
_ALSO: Final[Mapping[str, str]] = {
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
    """Return every name by which such a technology is known here."""
    return frozenset({*_WAYS, *_ALSO})


def way(name: str) -> str | None:
    """Return how a technology is reached that is no target; None: nothing is known of it."""
    known = _ALSO.get(name.lower(), name.lower())
    found = _WAYS.get(known)
    return None if found is None else found.replace("{}", known)


def groups() -> list[tuple[str, str]]:
    """Return the names that are reached the same way, with commas, and the way."""
    return [
        (", ".join(name for name in _WAYS if _WAYS[name] == same), same.replace("{}", "NAME"))
        for same in dict.fromkeys(_WAYS.values())
    ]
