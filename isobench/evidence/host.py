"""Facts about this host, and its state while a run measures."""

import contextlib
import hashlib
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from isobench.model import BlockHealth, Fact, Need

FILESYSTEMS: Final = {
    0xEF53: "ext4",
    0x9123683E: "btrfs",
    0x58465342: "xfs",
    0x794C7630: "overlayfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x2FC12FC1: "zfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x01021997: "9p",
    0x6A656A63: "virtiofs",
    0xF2F52010: "f2fs",
    0xFF534D42: "cifs",
    0x73717368: "squashfs",
    0x61756673: "aufs",
    0xCA451A4E: "bcachefs",
    0x62656572: "sysfs",
    0x9FA0: "proc",
}
"""Names of file systems by their statfs(2) magic numbers (linux/magic.h). ext2, ext3 and ext4 share
one number.
"""
_KVM: Final = Path("/dev/kvm")
MEMORY_FILESYSTEMS: Final = frozenset({"tmpfs", "ramfs"})


def filesystem_name(magic: Fact) -> Fact:
    """Return the name of a file system from its magic number as payloads write it ("0x0000ef53");
    anything else, and an unknown number, unchanged.
    """
    if not isinstance(magic, str) or not magic.startswith("0x"):
        return magic
    with contextlib.suppress(ValueError):
        return FILESYSTEMS.get(int(magic, 16), magic)
    return magic


def lacks(cpus: frozenset[int] = frozenset()) -> Mapping[Need, str]:
    """Return the needs that this host does not meet for programs on these CPUs, with the reasons.

    `cpus` defaults to those of the calling thread.
    """
    # `--affinity` reduces the CPUs of a whole run, and a duet those of each of its sides.
    usable = cpus or os.sched_getaffinity(0)
    if len(usable) > 1:
        return {}
    return {Need.TWO_CPUS: f"it needs two CPUs, and only CPU {min(usable)} may be used here"}


def _read(path: str) -> str | None:
    # Containers and other architectures lack many of these files, and reading some of them needs
    # root: a missing fact is None and never an error.
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def _processor() -> str:
    # x86 says "model name", boards with ARM "Model", RISC-V "uarch".
    model = _from_cpuinfo("model name", "Model", "uarch")
    return model or platform.processor() or platform.machine()


def _from_cpuinfo(*names: str) -> str | None:
    """Return the first value of one of these keys in /proc/cpuinfo."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith(names):
            return line.partition(":")[2].strip()
    return None


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _virtualization() -> str:
    """Return what this host itself runs under, as far as that is visible.

    It is a hint and not evidence: hypervisors can set vendor and product to any text.
    """
    vendor = _read("/sys/class/dmi/id/sys_vendor")
    product = _read("/sys/class/dmi/id/product_name")
    named = " ".join(part for part in (vendor, product) if part)
    # The flag is CPUID leaf 1, ECX bit 31, which hypervisors set for their guests.
    guest = " hypervisor " in f" {_read('/proc/cpuinfo') or ''} ".replace("\n", " ")
    if guest:
        return f"guest of a hypervisor ({named})" if named else "guest of a hypervisor"
    return named or "none seen"


def _kvm() -> str:
    """Return whether this user could start guests on /dev/kvm; starting one is not tried."""
    if not _KVM.exists():
        return "no /dev/kvm"
    usable = os.access(_KVM, os.R_OK | os.W_OK)
    return "/dev/kvm exists" if usable else "/dev/kvm exists, and this user may not open it"


def filesystem_of(path: Path) -> str:
    """Return the type of the file system that holds `path`, from the mount table."""
    # The longest mount point that is a prefix holds the path; of two on the same, the later mount
    # covers the earlier.
    best = ("", "unknown")
    real = str(path.resolve())
    for part in psutil.disk_partitions(all=True):
        inside = real == part.mountpoint or real.startswith(part.mountpoint.rstrip("/") + "/")
        if inside and len(part.mountpoint) >= len(best[0]):
            best = (part.mountpoint, part.fstype)
    return best[1]


def _turbo() -> str | None:
    """Return whether the processor may run above its nominal frequency; None: not visible."""
    # The intel_pstate driver has its own switch, with the opposite meaning; the others have boost:
    # https://docs.kernel.org/admin-guide/pm/cpufreq.html#frequency-boost-support
    off = _read("/sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = _read("/sys/devices/system/cpu/cpufreq/boost")
    if off is None and boost is None:
        return None
    return "on" if off == "0" or boost == "1" else "off"


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and of those above it, for either version of
    cgroups.
    """
    # cgroups(7): version 2 has the line "0::PATH", version 1 "ID:CONTROLLERS:PATH". Limits of the
    # cgroups above count too, so all are read.
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup", controllers)
        own = root / place.lstrip("/")
        yield from (path for path in (own, *own.parents) if path.is_relative_to(root))


def _cpu_limit() -> float | None:
    """Return how many CPUs cgroups allow this process; None: no limit."""
    limits = []
    for folder in _cgroup_folders("cpu"):
        # Without a limit version 2 writes "max", version 1 -1: neither is digits.
        quota, _, period = (_read(f"{folder}/cpu.max") or "").partition(" ")
        if not period:
            quota = _read(f"{folder}/cpu.cfs_quota_us") or ""
            period = _read(f"{folder}/cpu.cfs_period_us") or ""
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _memory_limit() -> int | None:
    """Return how many bytes of memory cgroups allow this process; None: no limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [
        _read(f"{folder}/{name}") or "" for folder in _cgroup_folders("memory") for name in names
    ]
    limits = [int(text) for text in texts if text.isdigit()]
    # Without a limit version 1 writes the largest number of pages in bytes: more than there is.
    return min((n for n in limits if n < psutil.virtual_memory().total), default=None)


def describe(scratch: Path) -> dict[str, Fact | float]:
    """Return the facts about this host for run.json and the report. `scratch` is the folder of the
    files of I/O workloads.
    """
    vulnerabilities = Path("/sys/devices/system/cpu/vulnerabilities")
    mitigations = {
        f"mitigation.{path.name}": _read(str(path))
        for path in (sorted(vulnerabilities.iterdir()) if vulnerabilities.is_dir() else ())
    }
    return {
        "cpu": _processor(),
        "machine": platform.machine(),
        "microcode": _from_cpuinfo("microcode"),
        # The CPUs that isobench may use, which can be fewer than the machine has.
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "os": _system(),
        "python": platform.python_version(),
        "virtualization": _virtualization(),
        "kvm": _kvm(),
        "clock_source": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "frequency_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo": _turbo(),
        "smt": _read("/sys/devices/system/cpu/smt/control"),
        "cpu_limit": _cpu_limit(),
        "memory_limit": _memory_limit(),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        # The file exists only where version 2 is mounted at the root: cgroups(7).
        "cgroups": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").is_file() else "v1 or hybrid",
        "filesystem": filesystem_of(scratch),
        # Of the last minute, so that the first value is from before isobench has added to it.
        "load": round(os.getloadavg()[0], 2),
        "root": os.geteuid() == 0,
        **mitigations,
    }


def summary(facts: Mapping[str, Fact | float]) -> str:
    """Return one line that describes this machine."""
    memory = facts.get("memory_bytes")
    gib = f"{memory / 2**30:.0f} GiB" if isinstance(memory, int) else "unknown memory"
    return f"{facts.get('os')}, {facts.get('cpu')}, {facts.get('cpus')} CPUs, {gib}"


STEAL_PERCENT: Final = 1.0
SPEED_PERCENT: Final = 95.0
RULES: Final = (
    f"another guest took more than {STEAL_PERCENT:g} % of the CPU time (steal)",
    "the processor was throttled for heat",
    "pages were swapped in",
    "the kernel changed its clock source",
    f"the processor ran at less than {SPEED_PERCENT:g} % of its usual speed",
)
"""The rules for a quiet host. A block that breaks one is measured again: at most a fifth of the
blocks, and only within the budget. They are fixed before measuring, so that no result chooses them.
"""
# Waiting for a CPU (PSI, /proc/pressure/cpu) is recorded and is no rule: most of it comes from the
# measured programs themselves, and only cgroup version 2 could show how much.

# Hashing this takes some hundred microseconds: long against the timer, short against a time slice.
_SPIN: Final = bytes(1 << 18)
_SPIN_SECONDS: Final = 0.003
# Each CPU adds _SPIN_SECONDS to every block.
_MOST_CPUS_TIMED: Final = 4
_BLOCKS_FOR_USUAL_SPEED: Final = 5
"""After so many blocks the usual speed of the processor is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    at: float
    total: float
    steal: float
    pressure_us: int | None
    swapped_in: int | None
    throttled: int | None
    clock_source: str | None
    run_queue: int | None = None
    """How many other tasks were ready to run."""
    speeds: tuple[float, ...] = ()
    """How often per second each CPU can do a fixed amount of work."""


def _speeds() -> tuple[float, ...]:
    """Return how often per second each CPU can do a fixed amount of work.

    Frequency, throttling and a busy sibling thread of the core all show in it.
    """
    usable = os.sched_getaffinity(0)
    try:
        return tuple(_speed_of(cpu) for cpu in sorted(usable)[:_MOST_CPUS_TIMED])
    except OSError:
        return ()  # a CPU went offline, or a cpuset changed
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, usable)


def _speed_of(cpu: int) -> float:
    os.sched_setaffinity(0, {cpu})
    # The best of many: an interruption by another process must not count as a slow processor.
    best, end = math.inf, time.perf_counter() + _SPIN_SECONDS
    while (began := time.perf_counter()) < end or math.isinf(best):
        hashlib.sha256(_SPIN).digest()
        best = min(best, time.perf_counter() - began)
    return 1 / best


def _read_counters() -> _Reading:
    times = psutil.cpu_times()
    pressure = None
    # https://docs.kernel.org/accounting/psi.html: total is in microseconds.
    for line in (_read("/proc/pressure/cpu") or "").splitlines():
        if line.startswith("some"):
            pressure = int(line.rpartition("total=")[2])
    swapped = None
    for line in (_read("/proc/vmstat") or "").splitlines():
        if line.startswith("pswpin "):
            swapped = int(line.split()[1])
    counts = [
        int(text)
        for path in Path("/sys/devices/system/cpu").glob(
            "cpu[0-9]*/thermal_throttle/core_throttle_count"
        )
        if (text := _read(str(path))) is not None and text.isdigit()
    ]
    return _Reading(
        at=time.monotonic(),
        # The kernel adds guest time to user time as well: proc_stat(5).
        total=sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0),
        steal=getattr(times, "steal", 0.0),
        pressure_us=pressure,
        swapped_in=swapped,
        throttled=sum(counts) if counts else None,
        clock_source=_read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        run_queue=_run_queue(),
        speeds=_speeds(),
    )


def _run_queue() -> int | None:
    """Return how many tasks other than this process are ready to run; None: it is not visible."""
    for line in (_read("/proc/stat") or "").splitlines():
        if line.startswith("procs_running "):
            return max(0, int(line.split()[1]) - 1)
    return None


class Meter:
    """Measures the state of the host from one `lap` to the next."""

    def __init__(self) -> None:
        self._last = _read_counters()
        self._seen: list[tuple[float, ...]] = []

    def lap(self, block: int) -> BlockHealth:
        """Return the state of the host since the last lap, and the rules that were broken."""
        before, after = self._last, _read_counters()
        self._last = after
        spent = after.total - before.total
        # The kernel counts in ticks of 10 ms: a very short block may have none.
        steal = 100 * (after.steal - before.steal) / spent if spent > 0 else None
        seconds = after.at - before.at
        pressure = (
            (after.pressure_us - before.pressure_us) / 1e4 / seconds
            if after.pressure_us is not None and before.pressure_us is not None and seconds > 0
            else None
        )
        swapped = _difference(after.swapped_in, before.swapped_in)
        throttled = _difference(after.throttled, before.throttled)
        speed = self._speed(before.speeds, after.speeds)
        broken = (
            steal is not None and steal > STEAL_PERCENT,
            bool(throttled),
            bool(swapped),
            after.clock_source != before.clock_source,
            speed is not None and speed < SPEED_PERCENT,
        )
        return BlockHealth(
            block=block,
            seconds=round(seconds, 3),
            steal_percent=None if steal is None else round(steal, 2),
            pressure_percent=None if pressure is None else round(pressure, 1),
            swapped_in_pages=swapped,
            throttled=throttled,
            clock_source=after.clock_source,
            speed_percent=None if speed is None else round(speed, 1),
            run_queue=_mean(before.run_queue, after.run_queue),
            broken_rules=tuple(
                rule for rule, is_broken in zip(RULES, broken, strict=True) if is_broken
            ),
        )

    def _speed(self, before: tuple[float, ...], after: tuple[float, ...]) -> float | None:
        """Return the speed of the processor at both ends of a block, in percent of its median in
        this run; None while too few blocks were measured, or where the CPUs have changed.
        """
        if not before or len(before) != len(after):
            return None
        ends = zip(before, after, strict=True)
        self._seen.append(tuple(statistics.fmean(pair) for pair in ends))
        alike = [each for each in self._seen if len(each) == len(after)]
        if len(alike) < _BLOCKS_FOR_USUAL_SPEED:
            return None
        usual = [statistics.median(column) for column in zip(*alike, strict=True)]
        return 100 * statistics.fmean(
            now / each for now, each in zip(self._seen[-1], usual, strict=True)
        )


def _mean(before: int | None, after: int | None) -> float | None:
    return None if before is None or after is None else (before + after) / 2


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before
