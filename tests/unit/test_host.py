"""Facts about this host, and the rules for a quiet one."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from isobench.evidence import host
from isobench.model import BlockHealth, Fact

QUIET = host._Reading(
    at=100.0,
    total=1000.0,
    steal=5.0,
    pressure_us=1_000_000,
    swapped_in=40,
    throttled=3,
    clock_source="tsc",
)


def lap(monkeypatch: pytest.MonkeyPatch, **changes: object) -> BlockHealth:
    """Return the health of a block of ten seconds after QUIET, with changes."""
    after = dataclasses.replace(QUIET, **({"at": 110.0, "total": 1040.0} | changes))  # type: ignore[arg-type]
    readings = [QUIET, after]
    monkeypatch.setattr(host, "_read_counters", lambda: readings.pop(0))
    return host.Meter().lap(7)


def test_a_quiet_block_breaks_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    health = lap(monkeypatch)
    assert health.broken_rules == ()
    assert (health.block, health.seconds, health.steal_percent) == (7, 10.0, 0.0)
    assert (health.pressure_percent, health.swapped_in_pages, health.throttled) == (0.0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"steal": 5.5}, "steal"),
        ({"throttled": 4}, "throttled"),
        ({"swapped_in": 41}, "swapped in"),
        ({"clock_source": "hpet"}, "clock source"),
    ],
)
def test_each_rule_is_broken_by_what_it_speaks_of(
    changes: dict[str, object], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rule,) = lap(monkeypatch, **changes).broken_rules
    assert word in rule
    assert rule in host.RULES


def test_steal_below_its_limit_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    health = lap(monkeypatch, steal=5.396)
    assert health.steal_percent == 0.99
    assert health.broken_rules == ()


def test_pressure_is_a_share_of_the_time_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lap(monkeypatch, pressure_us=3_500_000).pressure_percent == 25.0


def test_what_this_kernel_does_not_count_is_unknown_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = lap(monkeypatch, pressure_us=None, swapped_in=None, throttled=None)
    assert (health.pressure_percent, health.swapped_in_pages, health.throttled) == (None,) * 3
    assert health.broken_rules == ()


def test_a_block_too_short_for_any_tick_has_no_known_steal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lap(monkeypatch, at=100.0, total=1000.0).steal_percent is None


def test_each_lap_begins_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [
        dataclasses.replace(QUIET, at=at, swapped_in=n) for at, n in ((0, 0), (1, 5), (3, 5))
    ]
    monkeypatch.setattr(host, "_read_counters", lambda: readings.pop(0))
    meter = host.Meter()
    laps = [meter.lap(1), meter.lap(2)]
    assert [(each.seconds, each.swapped_in_pages) for each in laps] == [(1.0, 5), (2.0, 0)]


def laps(monkeypatch: pytest.MonkeyPatch, *speeds: tuple[float, ...]) -> list[BlockHealth]:
    """Return the health of blocks at whose ends the CPUs had these speeds."""
    readings = [
        dataclasses.replace(QUIET, at=100.0 + n, speeds=each) for n, each in enumerate(speeds)
    ]
    monkeypatch.setattr(host, "_read_counters", lambda: readings.pop(0))
    meter = host.Meter()
    return [meter.lap(number) for number in range(1, len(speeds))]


def test_a_block_in_which_the_processor_is_slower_than_usual_breaks_a_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = laps(monkeypatch, *[(100.0, 50.0)] * 8, (80.0, 40.0), (100.0, 50.0))
    assert [each.speed_percent for each in health] == [*[None] * 4, 100, 100, 100, 90, 90]
    broken = [bool(each.broken_rules) for each in health]
    assert broken == [*[False] * 7, True, True]
    (rule,) = health[-1].broken_rules
    assert "95 % of its usual speed" in rule


def test_a_processor_that_is_a_little_slower_or_faster_breaks_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = laps(monkeypatch, *[(100.0, 50.0)] * 8, (92.0, 50.0), (150.0, 90.0))
    assert all(each.broken_rules == () for each in health)


def test_speeds_of_other_cpus_than_before_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    health = laps(monkeypatch, *[(100.0, 50.0)] * 8, (10.0,), (), (10.0, 5.0))
    assert [each.speed_percent for each in health[-3:]] == [None] * 3


def test_looking_at_the_speed_leaves_the_thread_where_it_may_run() -> None:
    before = os.sched_getaffinity(0)
    speeds = host._speeds()
    assert os.sched_getaffinity(0) == before
    assert len(speeds) == min(len(before), 4)
    assert all(speed > 0 for speed in speeds)


def test_this_hosts_own_readings_can_be_taken() -> None:
    health = host.Meter().lap(1)
    assert health.block == 1
    assert set(health.broken_rules) <= set(host.RULES)


@pytest.mark.parametrize(
    ("magic", "name"),
    [
        ("0x0000ef53", "ext4"),
        ("0x01021994", "tmpfs"),
        ("0x794c7630", "overlayfs"),
        ("0x00000001", "0x00000001"),
        ("0xnonsense", "0xnonsense"),
        ("ext4", "ext4"),
        (None, None),
        (7, 7),
    ],
)
def test_a_magic_number_becomes_the_name_people_use(magic: Fact, name: Fact) -> None:
    assert host.filesystem_name(magic) == name


def test_this_host_is_described_in_facts_that_json_can_hold(tmp_path: Path) -> None:
    facts = host.describe(tmp_path)
    assert json.loads(json.dumps(facts)) == facts
    for key in ("cpu", "cpus", "kernel", "memory_bytes", "os", "filesystem"):
        assert facts[key], key


def test_a_machine_is_named_in_one_line(tmp_path: Path) -> None:
    line = host.summary(host.describe(tmp_path))
    assert "\n" not in line
    assert "CPUs" in line
    assert "GiB" in line


def test_a_machine_of_unknown_memory_is_named_without_a_number() -> None:
    assert "unknown memory" in host.summary({"os": "Linux", "cpu": "x", "cpus": 1})


@dataclasses.dataclass
class Partition:
    mountpoint: str
    fstype: str


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/user/file", "ext4"),
        ("/data", "xfs"),
        ("/data/deep/er", "xfs"),
        ("/database", "ext4"),
        ("/data/memory/x", "tmpfs"),
    ],
)
def test_a_path_lies_on_the_innermost_mount_that_holds_it(
    path: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mounts(*, all: bool) -> Sequence[Partition]:  # noqa: A002 - psutil's own word
        table = [("/", "ext4"), ("/data", "xfs"), ("/data/memory", "tmpfs")]
        return [Partition(mountpoint=point, fstype=kind) for point, kind in table]

    monkeypatch.setattr(psutil, "disk_partitions", mounts)
    monkeypatch.setattr(Path, "resolve", lambda self: self)
    assert host.filesystem_of(Path(path)) == kind


# ---- limits and clocks


def reading(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Let the host hold these files alone."""
    monkeypatch.setattr(host, "_read", files.get)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/b/cpu.max": "max 100000"}, None),
        ({"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        (
            {
                "/proc/self/cgroup": "0::/a/b",
                "/sys/fs/cgroup/a/cpu.max": "50000 100000",
                "/sys/fs/cgroup/a/b/cpu.max": "150000 100000",
            },
            0.5,
        ),
        (
            {
                "/proc/self/cgroup": "3:memory:/m\n2:cpu,cpuacct:/a",
                "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "200000",
                "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        (
            {
                "/proc/self/cgroup": "2:cpu:/a",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_the_narrowest_cgroup_limits_the_cpus(
    files: dict[str, str], limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading(monkeypatch, files)
    assert host._cpu_limit() == limit


@pytest.mark.parametrize(
    ("text", "limit"), [("max", None), ("4096", 4096), ("9223372036854771712", None)]
)
def test_a_memory_limit_is_one_below_what_there_is(
    text: str, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"/proc/self/cgroup": "0::/a", "/sys/fs/cgroup/a/memory.max": text}
    reading(monkeypatch, files)
    assert host._memory_limit() == limit


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({}, None),
        ({"/sys/devices/system/cpu/intel_pstate/no_turbo": "0"}, "on"),
        ({"/sys/devices/system/cpu/intel_pstate/no_turbo": "1"}, "off"),
        ({"/sys/devices/system/cpu/cpufreq/boost": "1"}, "on"),
        ({"/sys/devices/system/cpu/cpufreq/boost": "0"}, "off"),
    ],
)
def test_turbo_is_read_from_either_driver(
    files: dict[str, str], turbo: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading(monkeypatch, files)
    assert host._turbo() == turbo
