"""Makes doubts from facts and patterns that make a number less certain. Pure."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from isobench.evidence import cpu_share
from isobench.evidence.clock import ClockCheck
from isobench.evidence.host import MEMORY_FILESYSTEMS, filesystem_name
from isobench.evidence.host_time import LEAST_SEEN, HostCheck
from isobench.model import BlockHealth, Doubt, Fact, Interval, Status
from isobench.model.wording import interval_text, ratio_text

CACHED_PERCENT: Final = 5
"""The share of a file that may be in the page cache for a reading of it to count as I/O."""
NOISE_CODES: Final = frozenset({"noisy-host", "busy-host"})
"""Doubts that mean that the machine did other work. The headline names them."""
LOSS_CODES: Final = frozenset({"lost-records", "damaged-records"})
"""Doubts that mean that records are missing. The headline names them."""
UNEVEN: Final = frozenset({"cpu-share"})
"""Doubts with which "faster" is no verdict, and "slower" only beyond `UNEVEN_RATIO`, even where
they do not block others.
"""
# Beside busy neighbours, work of one speed took up to 1.27 times as long in a container of native's
# weight: docs/statistics.md, "Equal shares of the CPU".
UNEVEN_RATIO: Final = 1.5
"""A ratio that uneven shares of the CPU alone do not explain."""
# Less than 1, since the two starts differ a little, and the durations by the ratio of the target.
OVERLAP: Final = 0.8
"""The share of their time that the two programs of a duet must run at the same time."""


def of_io(
    workload: str, facts: Mapping[str, Fact], native: Mapping[str, Fact]
) -> tuple[Doubt, ...]:
    """Return doubts about an I/O cell from the facts that its payload reported, and native's.

    A ratio needs both on a disk.
    """
    return (
        *_of_file_system(workload, facts, native),
        *_of_page_cache(facts, ""),
        *(_of_page_cache(native, "native's part of the ratio: ") if facts != native else ()),
    )


def _of_file_system(
    workload: str, facts: Mapping[str, Fact], native: Mapping[str, Fact]
) -> Iterator[Doubt]:
    kind = filesystem_name(facts.get("io.filesystem"))
    home = filesystem_name(native.get("io.filesystem"))
    # An fsync in memory returns at once: such a ratio compares no I/O at all, so it blocks. Two
    # file systems on disks can still be compared, with a warning.
    if kind in MEMORY_FILESYSTEMS or home in MEMORY_FILESYSTEMS:
        where = f" on {kind}" if kind in MEMORY_FILESYSTEMS else f" natively on {home}"
        yield Doubt(
            code="memory-file-system",
            detail=f"{workload} ran{where}, which is memory and not a disk",
            advice="set XDG_CACHE_HOME to a folder on a disk",
            blocks=True,
        )
    elif kind is None and home is not None:
        yield Doubt(
            code="unseen-file-system",
            detail=f"its file system is not visible inside; native ran on {home}",
            advice="the ratio may compare file systems too",
        )
    elif kind != home:
        yield Doubt(
            code="other-file-system",
            detail=f"it ran on {kind or 'an unknown file system'}, native on {home}",
            advice="the ratio compares the file systems too",
        )


def _of_page_cache(facts: Mapping[str, Fact], whose: str) -> Iterator[Doubt]:
    # A payload that reads a file asks for its pages to be dropped (posix_fadvise, DONTNEED) and
    # reports how many mincore(2) still shows. None: this system cannot show it.
    # Payloads that do not read have no such fact.
    cached = facts.get("io.cached_percent", 0)
    if cached is None:
        yield Doubt(
            code="page-cache-unseen",
            detail=f"{whose}how much of the file was still in the page cache is not visible inside",
            advice="this may be memory and not a disk",
            blocks=True,
        )
    if isinstance(cached, int) and cached > CACHED_PERCENT:
        yield Doubt(
            code="page-cache",
            detail=f"{whose}up to {cached} % of the file was still in the page cache",
            advice="this is memory and not a disk: the file system keeps pages it should drop",
            blocks=True,
        )


def of_clock(
    found: ClockCheck | None, other_workloads: Mapping[str, ClockCheck]
) -> tuple[Doubt, ...]:
    """Return the doubt about a cell's clock, from its own visits, else from those of the target's
    other workloads.

    It blocks only where the host's clock cannot be used instead.
    """
    if found is None or not found.long:
        off = {name: one for name, one in other_workloads.items() if not one.trusted}
        if found is None and not off:
            return ()
        where, known = ("these visits", found) if found is not None else next(iter(off.items()))
        more = "" if known.long else " or more" if known.slope > 1 else " or less"
        return (
            Doubt(
                code="guest-clock",
                detail=f"the clock inside ran at {known.slope:.3f} of the host's{more} in {where},"
                " and these visits are too short to be timed by the host's clock",
                advice="a larger --min-time makes them longer",
                blocks=True,
            ),
        )
    if found.trusted:
        return ()
    speed = f"the clock inside ran at {found.slope:.3f} of the host's"
    speed += f" (allowed {found.allowed:.1%} off)"
    if not found.runs:
        return (
            Doubt(
                code="guest-clock",
                detail=speed,
                advice="its times mean nothing: fix the clock of the technology first",
                blocks=True,
            ),
        )
    return (
        Doubt(
            code="guest-clock",
            detail=f"{speed}: times are by the host's clock, to within {found.error:.1%}",
            advice="fix the clock of the technology; until then intervals are wider by as much",
        ),
    )


def of_unchecked_clock() -> Doubt:
    """Return the doubt about a cell whose target has its own kernel, and so its own clock, which
    could not be checked.
    """
    return Doubt(
        code="clock-unchecked",
        detail="no visit was long enough to compare the clock inside with the host's",
        advice="a larger --min-time makes them longer",
    )


def of_evidence(faults: Sequence[str]) -> tuple[Doubt, ...]:
    """Return the doubt about a cell of targets without evidence. `faults` say for the target, and
    for native, which file shows nothing, and why; empty where it does.
    """
    found = " and ".join(filter(None, faults))
    if not found:
        return ()
    return (
        Doubt(
            code="lost-evidence",
            detail=f"{found}: nothing shows that the target was what its name says",
            advice="use the whole folder of the run, or measure again",
            blocks=True,
        ),
    )


HOST_TIME: Final = "host-time"
"""The code of doubts that the host's times leave."""


def of_host_time(found: HostCheck | None) -> tuple[Doubt, ...]:
    """Return the doubt about a cell whose payload reports less time than the host saw, or more."""
    if found is not None and found.is_unseen:
        return (
            _of_host(
                f"its payload reports {found.whole:.1f} times the time that the host saw",
                "find out what keeps its lines back, such as a buffer, or answers for it",
            ),
        )
    if found is None:
        return ()
    if found.is_incomplete:
        detail = f"its payload reports {found.share:.0%} of the time that the host saw it work,"
    elif found.is_known and found.hiding:
        detail = (
            f"in {found.hiding} of {found.blocks} blocks its payload reports less than"
            f" {LEAST_SEEN:.0%} of the time that the host saw it work,"
        )
    else:
        return ()
    return (
        _of_host(
            f"{detail} compared with native",
            "find out where the rest goes: the clock inside, or what runs between iterations",
        ),
    )


def of_unseen_speed(
    found: HostCheck, status: Status, interval: Interval, margin: float, *, than: str = "native"
) -> Doubt:
    """Return the doubt about a target that has this status by its own times alone. `than` names
    what it is compared with.
    """
    if found.excludes(status, interval, margin):
        is_open = math.isinf(found.most)
        known = (found.least, found.most)
        bounds = f"at least {ratio_text(found.least)}" if is_open else interval_text(known)
        return _of_host(
            f"the host saw {bounds} times the time of {than}'s work: the payload reports otherwise",
            "find out which of its turns take longer or shorter than its payload reports",
        )
    if found.is_hidden or not found.is_known:
        return of_hidden_work()
    return _of_host("the host did not see that it is faster: only the payload reports it", _LONGER)


def of_hidden_work(whose: str = "its") -> Doubt:
    """Return the doubt that the host does not see how fast a target is; `whose` names it."""
    return _of_host(
        f"the host sees too little of {whose} work: only the payload reports how fast it is",
        _LONGER,
    )


_LONGER: Final = "a larger --min-time makes turns longer, and the host's times more exact"


def _of_host(detail: str, advice: str) -> Doubt:
    return Doubt(code=HOST_TIME, detail=detail, advice=advice, blocks=True)


def of_fact_by_clock(metric: str, found: ClockCheck) -> Doubt:
    """Return the doubt about a number that a payload has computed with a wrong clock."""
    return Doubt(
        code="guest-clock",
        detail=f"the clock inside ran at {found.slope:.3f} of the host's, and {metric} depends on"
        " it",
        advice="its values mean nothing until the technology's clock is right; time is corrected",
        blocks=True,
    )


def of_disk(facts: Mapping[str, Fact], cache: Fact) -> tuple[Doubt, ...]:
    """Return doubts about an I/O cell of a virtual machine from the host's cache of its disk.

    `facts` are the payload's. `cache` is the cache mode in QEMU's terms; None: no such disk.
    """
    # QEMU's cache modes: "unsafe" ignores the guest's flushes; "writeback" and "writethrough" pass
    # through the host's page cache, which holds what the guest has dropped; "none" opens the file
    # with O_DIRECT. https://www.qemu.org/docs/master/system/qemu-block-drivers.html
    if cache == "unsafe":
        detail = "the host ignores the guest's flushes: written data need not be on a disk"
        advice = 'set cache = "none" for this target, or "writethrough" where that is not offered'
        return (Doubt(code="no-flush", detail=detail, advice=advice, blocks=True),)
    if cache in ("writeback", "writethrough") and "io.cached_percent" in facts:
        detail = f"the host caches the guest's disk ({cache}): reads may come from memory"
        advice = (
            'set cache = "none" for this target, with its files on a file system that supports'
            " O_DIRECT; user-mode Linux always reads through the host's cache"
        )
        return (Doubt(code="host-page-cache", detail=detail, advice=advice, blocks=True),)
    return ()


def of_threads(facts: Mapping[str, Fact], native: Mapping[str, Fact]) -> tuple[Doubt, ...]:
    """Return a doubt where a target has more or fewer CPUs than the host."""
    inside, outside = facts.get("cpu.threads"), native.get("cpu.threads")
    if inside is None or inside == outside:
        return ()
    return (
        Doubt(
            code="other-cpu-count",
            detail=f"it sees {inside} CPUs inside, and the host has {outside}",
            advice="give the target as many CPUs as the host; else the ratio shows them too",
        ),
    )


def of_affinity(inside: Fact, outside: Fact) -> tuple[Doubt, ...]:
    """Return a doubt where a target can use other than the CPUs of the run. `inside` and `outside`
    are numbers of CPUs.
    """
    if inside == outside:
        return ()
    return (
        Doubt(
            code="other-cpus",
            detail=f"the run may use {outside} CPUs, but {inside} can be used inside",
            advice="set the CPUs of the target by its own option, or measure without --affinity",
        ),
    )


def of_missing(ratios: int, zeros: int, blocks: int, *, complete: float) -> tuple[Doubt, ...]:
    """Return the blocking doubts about a cell that has `ratios` in fewer than all of its `blocks`:
    in fewer than the share `complete` of them, or in some, `zeros`, one side alone has the value 0.
    """
    found = []
    if ratios < complete * blocks:
        found.append(
            Doubt(
                code="incomplete",
                detail=f"only {ratios} of {blocks} blocks have a ratio: in the others a value is"
                " missing or 0",
                advice="see the gaps of this cell, and those of native",
                blocks=True,
            )
        )
    # Such a block may be the largest difference of all, and a ratio cannot show it.
    if zeros:
        found.append(
            Doubt(
                code="zero-values",
                detail=f"in {zeros} of {blocks} blocks one side alone has the value 0, which no"
                " ratio shows",
                advice="look at the values of these blocks in records.jsonl",
                blocks=True,
            )
        )
    return tuple(found)


def of_warmup(late: int, timed: int, warmups: int) -> tuple[Doubt, ...]:
    """Return a doubt where `late` of the `timed` passes come before the steady state, and so many
    that the median of a visit depends on them.
    """
    # The median of five passes stands two places from the end: one slow pass does not reach it, two
    # move it. A quarter is between these.
    if late * 4 < timed:
        return ()
    return (
        Doubt(
            code="warm-up",
            detail=f"the first {late} of {timed} timed passes are slower than those after them",
            advice=f"--warmup {warmups + 2 * late}",
        ),
    )


def of_overlap(share: float) -> tuple[Doubt, ...]:
    """Return a doubt where the two programs of a duet did not run at the same time. A program that
    runs alone is not disturbed by the other, so the ratio would be biased.
    """
    if share >= OVERLAP:
        return ()
    return (
        Doubt(
            code="no-duet",
            detail=f"native and this target ran at the same time for only {share:.0%} of it",
            advice="leave out --schedule duet",
            blocks=True,
        ),
    )


def of_calls(facts: Mapping[str, Fact], native: Mapping[str, Fact]) -> tuple[Doubt, ...]:
    """Return a doubt where a payload uses other system calls than natively."""
    inside, outside = facts.get("syscall.call"), native.get("syscall.call")
    if inside is None or outside is None or inside == outside:
        return ()
    return (
        Doubt(
            code="other-calls",
            detail=f"it uses {inside}, natively {outside}",
            advice="the ratio compares the nearest equivalents of the two systems",
        ),
    )


def of_sessions(sessions: int, blocks: int, *, fewest: int) -> tuple[Doubt, ...]:
    """Return a blocking doubt where too few sessions served a cell's blocks to show how much
    sessions differ.
    """
    # A run of fewer blocks than that cannot have more sessions.
    if sessions >= min(fewest, blocks):
        return ()
    served = "one session served" if sessions == 1 else f"{sessions} sessions served"
    return (
        Doubt(
            code="few-sessions",
            detail=f"{served} all {blocks} blocks; {fewest} are needed to see how much they differ",
            advice="--launch fresh, or a larger --budget",
            blocks=True,
        ),
    )


def of_cpu_share(
    native: cpu_share.Chain | None,
    target: cpu_share.Chain | None,
    contention: cpu_share.Contention | None,
) -> tuple[Doubt, ...]:
    """Return a doubt where native and a target may have got other shares of a contended CPU.

    `contention` says how programs competed for the CPUs; None: they did not. A chain is None where
    it is unknown, as in runs of older versions: no doubt follows from that.
    """
    if contention is None or native is None or target is None:
        return ()
    if not cpu_share.have_equal_shares(native, target):
        return (_of_unequal_shares(native, target, contention.text),)
    if cpu_share.compete_alike(native, target):
        return ()
    # Equal weights give equal shares on average, not within a turn of some milliseconds. Requests
    # reach a payload through the processes of its engine, which use CPUs too. Where no CPU is ever
    # free, turns in Docker took 0.87 to 1.06 times native's, and in Podman 1.14 to 1.27 times.
    return (
        Doubt(
            code="cpu-share",
            detail=f"the CPU was contended ({contention.text}), and this target has a cgroup of its"
            " own with native's weight: shares are equal on average, not in each moment",
            advice="measure on a quieter machine: there is no verdict here"
            if contention.is_saturated
            else "measure on a quiet machine: faster than native, or slower by less than"
            f" {UNEVEN_RATIO:g} times, is no verdict here",
            blocks=contention.is_saturated,
        ),
    )


def _of_unequal_shares(native: cpu_share.Chain, target: cpu_share.Chain, contention: str) -> Doubt:
    # It takes every verdict. In which direction the ratio is off depends on the cgroups of the
    # neighbours, and by how much on their number: a native process beside four of them gets a
    # fifth, a container in a cgroup of its own half. So the target may look faster or near-native
    # and be slower; beside busy services of its engine's slice it may look slower and not be.
    return Doubt(
        code="cpu-share",
        detail=f"the CPU was contended ({contention}), and native and this target do not compete"
        f" for it in cgroups of one level and weight: {target.path} against {native.path}",
        advice="run isobench as root, or on a quiet machine: the ratio compares shares of the CPU"
        " too",
        blocks=True,
    )


def of_blocks(health: Sequence[BlockHealth], invalid: int) -> tuple[Doubt, ...]:
    """Return the doubt that blocks which broke a rule for a quiet host are part of the results.

    `invalid` of the blocks that broke one were measured again, and do not count.
    """
    noisy = [block for block in health if block.broken_rules]
    if not health or len(noisy) <= invalid:
        return ()
    worst = max((block.steal_percent or 0 for block in noisy), default=0)
    again = "1 was" if invalid == 1 else f"{invalid} were"
    return (
        Doubt(
            code="noisy-host",
            detail=(
                f"{len(noisy)} of {len(health)} blocks broke a rule for a quiet host"
                f" (steal up to {worst:g} %); {again} measured again, the others count"
            ),
            advice="measure on a quieter machine, or trust the interval, which the noise widens",
        ),
    )


def of_load(load: Fact | float, cpus: Fact | float) -> tuple[Doubt, ...]:
    """Return the doubt that other work was running on the machine when the run began.

    `load` is the load average of the minute before the run; `cpus` the number of usable CPUs.
    """
    if not isinstance(load, float | int) or not isinstance(cpus, int) or load <= cpus / 2:
        return ()
    return (
        Doubt(
            code="busy-host",
            detail=f"the load was {load:.1f} on {cpus} CPUs when the run began",
            advice="measure again when it is quiet, or for longer (--budget)",
        ),
    )


def of_lost_blocks(lost: Collection[int], whole: int) -> tuple[Doubt, ...]:
    """Return the doubt that the records of `lost` of `whole` measured blocks are missing."""
    if not lost:
        return ()
    return (
        Doubt(
            code="lost-records",
            detail=f"records.jsonl has no records of {len(lost)} of {whole} measured blocks",
            advice="the file is damaged: restore it, or measure again; these results are partial",
            blocks=True,
        ),
    )


def of_losses(lines: int, blocks: int, first: Sequence[str]) -> tuple[Doubt, ...]:
    """Return the doubt that so many lines of the run's files are damaged and left out, and so many
    blocks with them. `first` are the first lines: file, line and reason.
    """
    if not lines:
        return ()
    of_lines = "one damaged line is" if lines == 1 else f"{lines} damaged lines are"
    of_blocks = "one block does" if blocks == 1 else f"{blocks} blocks do"
    more = f" and {lines - len(first)} more" if lines > len(first) else ""
    return (
        Doubt(
            code="damaged-records",
            detail=f"{of_lines} left out, and {of_blocks} not count ({'; '.join(first)}{more})",
            advice="restore the file, or measure again; these results are partial",
        ),
    )


def of_drift(change: float, low: float, high: float) -> Doubt:
    """Return the doubt that native's own time changed during the run, by `change` (0.04: 4 %) with
    the bounds `low` and `high`.
    """
    return Doubt(
        code="drift",
        detail=f"native's own time changed by {change:+.0%} [{low:+.0%}, {high:+.0%}] in the run",
        advice="ratios stay valid, since targets are interleaved; absolute times do not",
    )
