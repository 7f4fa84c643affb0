"""Facts and patterns that make a number less certain -> Doubt. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from isobench.evidence.clock import ClockCheck
from isobench.evidence.host import MEMORY_FILESYSTEMS, filesystem_name
from isobench.model import BlockHealth, Doubt, Fact

CACHED_PERCENT: Final = 5
NOISE_CODES: Final = frozenset({"noisy-host", "busy-host"})
"""Doubts that say that the machine did other work: the closing sentence names them."""
OVERLAP: Final = 0.8
"""Share of their time that the two of a duet must have in common: starts differ by a little, and a
target by its ratio.
"""


def of_io(
    workload: str, facts: Mapping[str, Fact], native: Mapping[str, Fact]
) -> tuple[Doubt, ...]:
    """Return doubts about an I/O cell from what its payload saw of its file system."""
    found = []
    kind = filesystem_name(facts.get("io.filesystem"))
    home = filesystem_name(native.get("io.filesystem"))
    if kind in MEMORY_FILESYSTEMS:
        found.append(
            Doubt(
                code="memory-file-system",
                detail=f"{workload} ran on {kind}, which is memory and no disk",
                advice="set XDG_CACHE_HOME to a folder on a disk",
                blocks=True,
            )
        )
    elif kind is None and home is not None:
        found.append(
            Doubt(
                code="unseen-file-system",
                detail=f"on which file system it ran cannot be seen inside, native ran on {home}",
                advice="the ratio may compare file systems too",
            )
        )
    elif kind != home:
        found.append(
            Doubt(
                code="other-file-system",
                detail=f"ran on {kind or 'an unknown file system'}, native on {home}",
                advice="the ratio compares the file systems too",
            )
        )
    cached = facts.get("io.cached_percent", 0)
    if cached is None:
        found.append(
            Doubt(
                code="page-cache-unseen",
                detail="how much of the file was still in the page cache cannot be seen inside",
                advice="this may be memory, no disk",
                blocks=True,
            )
        )
    if isinstance(cached, int) and cached > CACHED_PERCENT:
        found.append(
            Doubt(
                code="page-cache",
                detail=f"up to {cached} % of the file was still in the page cache",
                advice="this is memory, no disk: the file system keeps pages it should drop",
                blocks=True,
            )
        )
    return tuple(found)


def of_clock(found: ClockCheck | None, elsewhere: Mapping[str, ClockCheck]) -> tuple[Doubt, ...]:
    """Return the doubt about a cell's clock: what its own visits show, else those of the target's
    other workloads, `elsewhere`.

    It blocks only where the host's clock cannot stand in for the one inside.
    """
    if found is None or not found.long:
        off = {name: one for name, one in elsewhere.items() if not one.trusted}
        if found is None and not off:
            return ()
        where, known = ("these visits", found) if found is not None else next(iter(off.items()))
        more = "" if known.long else " or more" if known.slope > 1 else " or less"
        return (
            Doubt(
                code="guest-clock",
                detail=f"the clock inside ran at {known.slope:.3f} of the host's{more} in {where},"
                " and these visits are too short to be timed from outside",
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
                advice="its times mean nothing; the technology's clock must be mended first",
                blocks=True,
            ),
        )
    return (
        Doubt(
            code="guest-clock",
            detail=f"{speed}: times are by the host's clock, to within {found.error:.1%}",
            advice="mend the technology's clock; until then intervals are wider by as much",
        ),
    )


def of_unchecked_clock() -> Doubt:
    """Return the doubt about a cell of a target with a kernel, and so a clock, of its own."""
    return Doubt(
        code="clock-unchecked",
        detail="no visit was long enough to hold the clock inside against the host's",
        advice="a larger --min-time makes them longer",
    )


def of_fact_by_clock(metric: str, found: ClockCheck) -> Doubt:
    """Return the doubt about a number that a payload made with a clock that is off."""
    return Doubt(
        code="guest-clock",
        detail=f"the clock inside ran at {found.slope:.3f} of the host's, and {metric} is by it",
        advice="its values mean nothing until the technology's clock is right; time is corrected",
        blocks=True,
    )


def of_disk(facts: Mapping[str, Fact], cache: Fact) -> tuple[Doubt, ...]:
    """Return doubts about an I/O cell of a virtual machine from how the host caches its disk.

    `facts` are the payload's; `cache` is QEMU's word for it, None where there is no such disk.
    """
    if cache == "unsafe":
        detail = "the guest's flushes are thrown away: nothing written has reached a disk"
        advice = 'set cache = "none" for this target, or "writethrough" where it knows no other'
        return (Doubt(code="no-flush", detail=detail, advice=advice, blocks=True),)
    if cache in ("writeback", "writethrough") and "io.cached_percent" in facts:
        detail = f"the guest's disk is cached by the host ({cache}): what it reads may be memory"
        advice = (
            'set cache = "none" for this target, and its files on a file system with O_DIRECT;'
            " user-mode Linux reads through the host's cache whatever is set"
        )
        return (Doubt(code="host-page-cache", detail=detail, advice=advice, blocks=True),)
    return ()


def of_threads(facts: Mapping[str, Fact], native: Mapping[str, Fact]) -> tuple[Doubt, ...]:
    """Return a doubt where a target has another number of CPUs than the host."""
    inside, outside = facts.get("cpu.threads"), native.get("cpu.threads")
    if inside is None or inside == outside:
        return ()
    return (
        Doubt(
            code="other-cpu-count",
            detail=f"{inside} CPUs inside, {outside} outside",
            advice="give the target as many CPUs as the host, or read the ratio as what they cost",
        ),
    )


def of_affinity(inside: Fact, outside: Fact) -> tuple[Doubt, ...]:
    """Return a doubt where a target was not held to the CPUs that the run is confined to, told by
    how many it may use.
    """
    if inside == outside:
        return ()
    return (
        Doubt(
            code="other-cpus",
            detail=f"the run is confined to {outside} CPUs, and {inside} can be used inside",
            advice="confine the target by an option of its own, or measure without --affinity",
        ),
    )


def of_warmup(late: int, timed: int, warmups: int) -> tuple[Doubt, ...]:
    """Return a doubt where so many of the timed passes come before a steady state that the median
    of a visit lies among or near them.
    """
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
    """Return a doubt where the two of a duet have not shared their time: whoever runs alone is
    disturbed by nobody, and the faster by the ratio of that.
    """
    if share >= OVERLAP:
        return ()
    return (
        Doubt(
            code="no-duet",
            detail=f"native and this target ran at the same time for {share:.0%} of it only",
            advice="leave out --schedule duet",
            blocks=True,
        ),
    )


def of_calls(facts: Mapping[str, Fact], native: Mapping[str, Fact]) -> tuple[Doubt, ...]:
    """Return a doubt where a payload asks its system by other calls than natively."""
    inside, outside = facts.get("syscall.call"), native.get("syscall.call")
    if inside is None or outside is None or inside == outside:
        return ()
    return (
        Doubt(
            code="other-calls",
            detail=f"by {inside}, natively by {outside}",
            advice="the ratio compares what the two systems offer to the same end",
        ),
    )


def of_sessions(sessions: int, blocks: int, *, fewest: int) -> tuple[Doubt, ...]:
    """Return a blocking doubt where too few sessions served a cell's blocks to tell whether
    sessions differ.
    """
    if sessions >= min(fewest, blocks):
        return ()
    served = "one session served" if sessions == 1 else f"{sessions} sessions served"
    return (
        Doubt(
            code="few-sessions",
            detail=f"{served} all {blocks} blocks, and how much sessions differ takes {fewest}",
            advice="--launch fresh, or a larger --budget",
            blocks=True,
        ),
    )


def of_blocks(health: Sequence[BlockHealth], invalid: int) -> tuple[Doubt, ...]:
    """Return doubts about the whole run from how the host fared."""
    kept = [block for block in health if block.broken_rules]
    found = []
    if health and len(kept) > invalid:
        worst = max((block.steal_percent or 0 for block in kept), default=0)
        found.append(
            Doubt(
                code="noisy-host",
                detail=(
                    f"{len(kept)} of {len(health)} blocks broke a rule for a quiet host"
                    f" (steal up to {worst:g} %), {invalid} were measured again"
                ),
                advice="measure on a quieter machine, or trust the interval, which is wider for it",
            )
        )
    return tuple(found)


def of_load(load: Fact | float, cpus: Fact | float) -> tuple[Doubt, ...]:
    """Return the doubt that other work was on the machine when the run began.

    `load` is the load average of the last minute, before isobench has added to it.
    """
    if not isinstance(load, float | int) or not isinstance(cpus, int) or load <= cpus / 2:
        return ()
    return (
        Doubt(
            code="busy-host",
            detail=f"its load was {load:.1f} on {cpus} CPUs when the run began",
            advice="measure again when it is quiet, or for longer (--budget)",
        ),
    )


def of_lost_blocks(lost: Collection[int], whole: int) -> tuple[Doubt, ...]:
    """Return the doubt that records of blocks are gone that have run: `lost` of `whole`."""
    if not lost:
        return ()
    return (
        Doubt(
            code="lost-records",
            detail=f"records.jsonl has nothing of {len(lost)} of {whole} blocks that were measured",
            advice="the file is damaged: restore it, or measure again; these answers are partial",
            blocks=True,
        ),
    )


def of_drift(change: float, low: float, high: float) -> Doubt:
    """Return the doubt that native itself changed over the run: by `change`, bounds `low` and
    `high`.
    """
    return Doubt(
        code="drift",
        detail=f"native itself changed by {change:+.0%} [{low:+.0%}, {high:+.0%}] over the run",
        advice="ratios stay valid, since blocks are interleaved; absolute times do not",
    )
