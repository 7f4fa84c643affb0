"""Find out why the kernel refuses a user namespace on this machine, and what to type."""

import os
from pathlib import Path
from typing import Final

from isobench.model import Lack, Unavailable

_PROC: Final = Path("/proc")
_SYSCTLS: Final = {
    # name: (the value that forbids, the value that allows)
    "user.max_user_namespaces": ("0", "15000"),
    "kernel.unprivileged_userns_clone": ("0", "1"),  # a patch of Debian's kernels
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),  # set by Ubuntu
}
# Only the limit of namespaces applies to root as well: namespaces(7).
_NOT_FOR_ROOT: Final = frozenset(_SYSCTLS) - {"user.max_user_namespaces"}


def refusal(reason: str, *, proc: Path = _PROC) -> Unavailable:
    """Return why there is no user namespace, as far as this machine shows.

    `reason` is the error of the attempt to make one.
    """
    if _in_chroot(proc):
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"the kernel forbids user namespaces in a chroot ({reason})",
            hint="run isobench outside of the chroot, or enter the folder with systemd-nspawn -D",
        )
    wrong = forbidding_settings(proc)
    if wrong:
        settings = " ".join(f"{name}={_SYSCTLS[name][1]}" for name in wrong)
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"settings of this machine forbid user namespaces: {', '.join(wrong)} ({reason})",
            hint=f"sudo sysctl {settings}",
        )
    return Unavailable(
        lack=Lack.PERMISSION,
        what=f"the kernel refuses a user namespace, though its settings allow them ({reason})",
        hint="unshare --user --map-root-user true; in a container: --security-opt"
        " seccomp=unconfined; a security module may forbid it",
    )


def forbidding_settings(proc: Path = _PROC) -> list[str]:
    """Return the names of the kernel's settings that forbid user namespaces to this user."""
    found = []
    for name, (forbids, _) in _SYSCTLS.items():
        if os.geteuid() == 0 and name in _NOT_FOR_ROOT:
            continue
        try:
            value = (proc / "sys" / name.replace(".", "/")).read_text().strip()
        except OSError:
            continue  # this kernel has no such setting
        if value == forbids:
            found.append(name)
    return found


def _in_chroot(proc: Path) -> bool:
    """Return whether the root directory of this process differs from its mount namespace's.

    The kernel then refuses user namespaces to all users: EPERM of user_namespaces(7),
    current_chrooted() in kernel/user_namespace.c.
    """
    try:
        # Only root may follow this link. For others the mount table shows a chroot, unless the
        # folder is itself a mount point.
        return not (proc / "1" / "root").samefile("/")
    except OSError:
        pass
    try:
        lines = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return False
    return bool(lines) and not any(line.split()[4] == "/" for line in lines)
