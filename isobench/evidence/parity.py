"""Finds what differs between native and a target besides the isolation. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isobench.evidence import cpu_share
from isobench.evidence.host import filesystem_name
from isobench.model import Environment, Fact, Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One property that differs between native and a target, as text."""

    label: str
    native: str
    target: str


# The values of "Seccomp" in /proc/PID/status: proc_pid_status(5).
_SECCOMP: Final = {"0": "off", "1": "strict", "2": "filter"}
_FACTS: Final = {
    "machine": "ISA",
    "cpu.usable": "usable CPUs",
    "memory.total_mib": "memory",
    "kernel.release": "kernel",
    "filesystem.scratch": "file system of the I/O workloads",
    "filesystem.root": "file system of the root",
    "security.seccomp": "seccomp",
    "security.no_new_privs": "no-new-privileges",
    "security.store_bypass": "speculative store bypass",
    "security.cap_effective": "capabilities",
    "clock.source": "clock source",
    "clock.cost_ns": "cost of reading the clock",
    "clock.time_offsets": "time namespace",
    "limit.open_files": "limit of open files",
    "memory.huge_pages": "transparent huge pages",
    "user.uid_map": "user map",
    "security.label": "security label",
    "host.disk_cache": "the host's cache of the guest's disk",
    "host.cpu_model": "CPU model",
    "host.command_line": "the guest kernel's command line",
    "host.arguments": "more arguments of the emulator",
    "host.compiled": "machine code",
    cpu_share.GROUP: "cgroup that gets the CPU",
    cpu_share.WEIGHTS: "CPU weights along its path",
    "host.extended_registers": "registers beyond x87 and SSE",
}


_FEWEST_JOINED: Final = 5
"""From so many facts that are not visible inside on, one row of the table lists them all."""


def _shown(key: str, value: Fact) -> str:
    # A fact that only the host can see is missing where the other side has no such thing.
    if key.startswith("host.") and value is None:
        return "does not apply"
    if value is None or value == "":
        return "not visible" if value is None else "none"
    if key.startswith("filesystem."):
        return str(filesystem_name(value))
    if key == "security.seccomp":
        return _SECCOMP.get(str(value), str(value))
    if key == "clock.cost_ns":
        return f"{value} ns"
    if key == "memory.total_mib":
        return f"{value} MiB"
    if key == "security.cap_effective":
        return "none" if set(str(value)) <= {"0"} else f"0x{str(value).lstrip('0')}"
    if key in ("user.uid_map", "clock.time_offsets"):
        return "; ".join(" ".join(line.split()) for line in str(value).splitlines())
    if key == cpu_share.GROUP:
        return cpu_share.shortened(str(value))
    return str(value)


def _is_alike(key: str, native: Fact, target: Fact) -> bool:
    if key == "clock.cost_ns" and isinstance(native, int) and isinstance(target, int):
        # The cost is a measurement with noise, so a factor of two counts as equal.
        return target < 2 * native and native < 2 * target
    return native == target


def differences(
    native: Environment,
    target: Environment,
    *,
    native_payloads: tuple[Payload, ...] = (),
    target_payloads: tuple[Payload, ...] = (),
) -> tuple[Difference, ...]:
    """Return what differs besides the isolation itself, in a fixed order.

    Payloads are compared by program and hash.
    """
    unlike = [
        key
        for key in _FACTS
        if key in target.facts and not _is_alike(key, native.value(key), target.value(key))
    ]
    hidden = [key for key in unlike if target.value(key) is None and not key.startswith("host.")]
    # wasmtime and Wine show almost nothing of the kernel: a row for each fact would hide the
    # others.
    if len(hidden) < _FEWEST_JOINED:
        hidden = []
    found = [
        Difference(
            label=_FACTS[key],
            native=_shown(key, native.value(key)),
            target=_shown(key, target.value(key)),
        )
        for key in unlike
        if key not in hidden
    ]
    if hidden:
        names = ", ".join(_FACTS[key] for key in hidden)
        found.append(Difference(label="not visible inside", native="nothing", target=names))
    return (*found, *_other_programs(native_payloads, target_payloads))


def _other_programs(
    native_payloads: tuple[Payload, ...], target_payloads: tuple[Payload, ...]
) -> Iterator[Difference]:
    """Yield the difference between the programs, where there is one."""
    hashes = {payload.program: payload.sha256 for payload in native_payloads}
    others = [p for p in target_payloads if hashes.get(p.program) not in (None, p.sha256)]
    if others:
        abi, home = others[0].abi, native_payloads[0].abi
        other = "instructions" if abi.machine != home.machine else "ABI and file format"
        yield Difference(
            label="programs",
            native=f"{home}, {native_payloads[0].compiler}",
            target=f"{abi}, {others[0].compiler}: same sources and flags, other {other}",
        )
