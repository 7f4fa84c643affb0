"""Patterns in facts and samples that make a number less certain."""

import pytest

from isobench.evidence import doubts
from isobench.evidence.clock import ClockCheck
from isobench.model import BlockHealth, Fact

EXT4, TMPFS, OVERLAY = "0x0000ef53", "0x01021994", "0x794c7630"


def health(block: int, *broken: str, steal: float | None = 0.0) -> BlockHealth:
    return BlockHealth(
        block=block,
        seconds=1.0,
        steal_percent=steal,
        pressure_percent=None,
        swapped_in_pages=0,
        throttled=None,
        clock_source="tsc",
        broken_rules=broken,
    )


def test_the_same_disk_on_both_sides_raises_no_doubt() -> None:
    facts: dict[str, Fact] = {"io.filesystem": EXT4, "io.cached_percent": 0}
    assert doubts.of_io("io.seq-read", facts, facts) == ()


def test_files_in_memory_take_the_verdict_away() -> None:
    (doubt,) = doubts.of_io("io.fsync", {"io.filesystem": TMPFS}, {"io.filesystem": TMPFS})
    assert (doubt.code, doubt.blocks) == ("memory-file-system", True)
    assert "io.fsync ran on tmpfs" in doubt.detail
    assert "XDG_CACHE_HOME" in doubt.advice


def test_native_in_memory_takes_the_verdict_away_too() -> None:
    (doubt,) = doubts.of_io("io.fsync", {"io.filesystem": OVERLAY}, {"io.filesystem": TMPFS})
    assert (doubt.code, doubt.blocks) == ("memory-file-system", True)
    assert "io.fsync ran natively on tmpfs" in doubt.detail


def test_another_file_system_than_natives_is_reported_and_leaves_the_verdict() -> None:
    (doubt,) = doubts.of_io("io.fsync", {"io.filesystem": OVERLAY}, {"io.filesystem": EXT4})
    assert (doubt.code, doubt.blocks) == ("other-file-system", False)
    assert doubt.detail == "it ran on overlayfs, native on ext4"


def test_a_file_system_that_cannot_be_seen_is_reported() -> None:
    (doubt,) = doubts.of_io("io.fsync", {"io.filesystem": None}, {"io.filesystem": EXT4})
    assert (doubt.code, doubt.blocks) == ("unseen-file-system", False)
    assert "native ran on ext4" in doubt.detail


def test_other_calls_than_natively_are_reported_and_leave_the_verdict() -> None:
    native: dict[str, Fact] = {"syscall.call": "openat close"}
    (doubt,) = doubts.of_calls({"syscall.call": "CreateFile CloseHandle"}, native)
    assert (doubt.code, doubt.blocks) == ("other-calls", False)
    assert doubt.detail == "it uses CreateFile CloseHandle, natively openat close"


@pytest.mark.parametrize("inside", [{"syscall.call": "openat close"}, {}])
def test_the_same_calls_raise_no_doubt_nor_does_a_run_that_did_not_tell(
    inside: dict[str, Fact],
) -> None:
    assert doubts.of_calls(inside, {"syscall.call": "openat close"}) == ()
    assert doubts.of_calls({"syscall.call": "openat close"}, {}) == ()


@pytest.mark.parametrize(
    ("percent", "codes"), [(5, []), (6, ["page-cache"]), (None, ["page-cache-unseen"])]
)
def test_a_file_still_in_the_page_cache_takes_the_verdict_away(
    percent: int | None, codes: list[str]
) -> None:
    facts = {"io.filesystem": EXT4, "io.cached_percent": percent}
    dropped: dict[str, Fact] = {"io.filesystem": EXT4, "io.cached_percent": 0}
    for inside, native in ((facts, facts), (facts, dropped), (dropped, facts)):
        found = doubts.of_io("io.seq-read", inside, native)
        assert [doubt.code for doubt in found] == codes
        assert all(doubt.blocks for doubt in found)


@pytest.mark.parametrize(
    ("cache", "reads", "codes"),
    [
        ("none", True, []),
        ("directsync", True, []),
        (None, True, []),
        ("writeback", True, ["host-page-cache"]),
        ("writethrough", True, ["host-page-cache"]),
        ("writeback", False, []),
        ("unsafe", False, ["no-flush"]),
    ],
)
def test_a_disk_that_the_host_caches_is_no_disk(
    cache: str | None, reads: bool, codes: list[str]
) -> None:
    facts = {"io.filesystem": EXT4} | ({"io.cached_percent": 0} if reads else {})
    found = doubts.of_disk(facts, cache)
    assert [doubt.code for doubt in found] == codes
    assert all(doubt.blocks for doubt in found)


def test_an_unknown_file_system_is_shown_by_its_number() -> None:
    (doubt,) = doubts.of_io("io.fsync", {"io.filesystem": "0x12345678"}, {"io.filesystem": EXT4})
    assert "0x12345678" in doubt.detail


def checked(slope: float, *, error: float = 0.002, runs: bool = True) -> ClockCheck:
    return ClockCheck(slope=slope, error=error, runs=runs)


def test_clocks_that_agree_raise_no_doubt() -> None:
    assert doubts.of_clock(checked(1.005), {}) == ()
    assert doubts.of_clock(checked(1.005), {"cpu.matmul": checked(0.5)}) == ()


@pytest.mark.parametrize("slope", [0.5, 0.9, 1.1, 2.0])
def test_a_clock_that_runs_at_another_speed_is_reported_with_what_stands_in_for_it(
    slope: float,
) -> None:
    (doubt,) = doubts.of_clock(checked(slope), {})
    assert (doubt.code, doubt.blocks) == ("guest-clock", False)
    assert f"{slope:.3f}" in doubt.detail
    assert "by the host's clock, to within 0.2%" in doubt.detail


def test_a_clock_that_does_not_run_takes_the_verdict_away() -> None:
    (doubt,) = doubts.of_clock(checked(0.0, runs=False), {})
    assert (doubt.code, doubt.blocks) == ("guest-clock", True)


def test_visits_too_short_to_compare_are_doubted_where_the_clock_is_known_to_be_off() -> None:
    others = {"cpu.sieve": checked(1.0), "cpu.matmul": checked(0.5)}
    (doubt,) = doubts.of_clock(None, others)
    assert (doubt.code, doubt.blocks) == ("guest-clock", True)
    assert "0.500 of the host's in cpu.matmul" in doubt.detail
    assert "--min-time" in doubt.advice


@pytest.mark.parametrize(("slope", "bound"), [(17.5, "or more"), (0.02, "or less")])
def test_short_visits_by_a_clock_that_is_plainly_off_lose_their_verdict(
    slope: float, bound: str
) -> None:
    short = ClockCheck(slope=slope, error=0.0, runs=True, long=False)
    (doubt,) = doubts.of_clock(short, {"cpu.sieve": checked(1.0)})
    assert (doubt.code, doubt.blocks) == ("guest-clock", True)
    assert f"ran at {slope:.3f} of the host's {bound} in these visits" in doubt.detail


def test_visits_too_short_to_compare_are_believed_where_nothing_is_known_against_the_clock() -> (
    None
):
    assert doubts.of_clock(None, {}) == ()
    assert doubts.of_clock(None, {"cpu.sieve": checked(1.0)}) == ()


def test_another_number_of_cpus_is_reported() -> None:
    (doubt,) = doubts.of_threads({"cpu.threads": 2}, {"cpu.threads": 8})
    assert doubt.detail == "it sees 2 CPUs inside, and the host has 8"
    assert not doubt.blocks


@pytest.mark.parametrize("inside", [{}, {"cpu.threads": 8}, {"cpu.threads": None}])
def test_as_many_cpus_or_none_counted_raise_no_doubt(inside: dict[str, int | None]) -> None:
    assert doubts.of_threads(inside, {"cpu.threads": 8}) == ()


@pytest.mark.parametrize(("sessions", "blocks"), [(3, 15), (15, 15), (1, 1), (2, 2), (4, 5)])
def test_sessions_enough_raise_no_doubt(sessions: int, blocks: int) -> None:
    assert doubts.of_sessions(sessions, blocks, fewest=3) == ()


@pytest.mark.parametrize(("sessions", "said"), [(1, "one session served"), (2, "2 sessions")])
def test_too_few_sessions_take_the_verdict_away(sessions: int, said: str) -> None:
    (doubt,) = doubts.of_sessions(sessions, 12, fewest=3)
    assert (doubt.code, doubt.blocks) == ("few-sessions", True)
    assert said in doubt.detail
    assert "--launch fresh" in doubt.advice


def test_a_quiet_host_raises_no_doubt() -> None:
    assert doubts.of_blocks([health(1), health(2)], 0) == ()
    assert doubts.of_blocks([], 0) == ()


def test_noisy_blocks_that_were_all_measured_again_raise_no_doubt() -> None:
    assert doubts.of_blocks([health(1, "steal", steal=9.0), health(2)], 1) == ()


def test_noisy_blocks_that_had_to_be_kept_are_counted_with_the_worst_steal() -> None:
    blocks = [health(1, "a", steal=3.5), health(2, "a", steal=12.25), health(3, steal=None)]
    (doubt,) = doubts.of_blocks(blocks, 1)
    assert doubt.code == "noisy-host"
    assert "2 of 3 blocks" in doubt.detail
    assert "up to 12.25 %" in doubt.detail
    assert "1 was measured again" in doubt.detail


def test_drift_is_reported_with_its_sign_and_bounds() -> None:
    doubt = doubts.of_drift(0.12, 0.05, 0.2)
    assert "+12% [+5%, +20%]" in doubt.detail
    assert not doubt.blocks


def test_every_doubt_advises_something() -> None:
    found = [
        *doubts.of_io("io.x", {"io.filesystem": TMPFS, "io.cached_percent": 90}, {}),
        *doubts.of_io("io.x", {"io.filesystem": OVERLAY}, {"io.filesystem": EXT4}),
        *doubts.of_clock(checked(0.5), {}),
        doubts.of_unchecked_clock(),
        *doubts.of_disk({}, "unsafe"),
        *doubts.of_threads({"cpu.threads": 1}, {"cpu.threads": 2}),
        *doubts.of_sessions(1, 2, fewest=3),
        *doubts.of_blocks([health(1, "x")], 0),
        doubts.of_drift(0.1, 0.0, 0.2),
    ]
    assert len(found) == 10
    assert all(doubt.advice and doubt.detail for doubt in found)
    assert len({doubt.code for doubt in found}) == 10
