"""What serves a system call in each target, which is why its cost differs."""

from typing import Final

from isobench.model import Technology
from isobench.model.wording import listed
from isobench.report.sections.lookup import REFERENCE, Lookup, is_control
from isobench.report.sections.phrases import kernel_relation
from isobench.storage.schema import TargetSummary

_CLASS: Final = "syscall"
_AS_NATIVE: Final = "the host's kernel alone, as natively,"
_FILTERED: Final = "the host's kernel after a seccomp filter"
_TRANSLATED: Final = "the host's kernel, with each instruction and call translated,"
_WINDOWS: Final = "the host's kernel through an implementation of the Windows API"
_RUNTIME: Final = "the host's kernel through a runtime that executes the program"
_PROCESS: Final = "a kernel that is itself a process of the host"
_GUEST: Final = "the kernel of a virtual machine"
_TRANSLATED_GUEST: Final = "the kernel of a machine whose instructions are translated"
_OWN: Final = "a kernel of its own"
_OWN_KERNELS: Final = {
    Technology.EMULATION: _TRANSLATED_GUEST,
    Technology.VIRTUALIZATION: _GUEST,
    Technology.PARAVIRTUAL: _PROCESS,
    Technology.SANDBOX: _PROCESS,
}


def call_paths(lookup: Lookup) -> str:
    """Return a sentence about the targets with figures for system calls; empty for none.

    It rests on evidence: the identity of the kernel inside, its seccomp mode, the file format and
    the instructions of the programs.
    """
    measured = {cell.target for cell in lookup.summary.cells if cell.group == _CLASS}
    paths: dict[str, list[str]] = {}
    for target in lookup.targets:
        if target.name in measured and target.name != REFERENCE and not is_control(target.name):
            paths.setdefault(_path(target), []).append(_named(target))
    if not paths:
        return ""
    parts = [f"by {path} in {listed(names)}" for path, names in paths.items()]
    return f"System calls are served {'; '.join(parts)}."


def _named(target: TargetSummary) -> str:
    """Return the name of a target, of gVisor with what intercepts its calls."""
    facts = {fact.key: fact.value for fact in target.facts}
    platform = facts.get("host.sentry.platform")
    return f"{target.name} (which intercepts them by {platform})" if platform else target.name


def _path(target: TargetSummary) -> str:
    if kernel_relation(target) == "unlike":
        return _OWN_KERNELS.get(target.technology, _OWN)
    if target.technology is Technology.EMULATION:
        return _TRANSLATED
    if target.technology is Technology.TRANSLATION:
        return _WINDOWS
    if target.evidence.get("payload.format") == "unlike":
        return _RUNTIME
    is_filtered = any((one.label, one.target) == ("seccomp", "filter") for one in target.parity)
    return _FILTERED if is_filtered else _AS_NATIVE
