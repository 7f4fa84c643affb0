"""What native against native shows of a machine."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.comparison import noise
from isobench.comparison.noise import Effort, MachineNoise, Spanned, WorkloadNoise
from isobench.model import BlockHealth
from isobench.model.errors import UsageError
from isobench.report import noise as view
from isobench.storage import reader

Write = Callable[..., Path]
SIEVE, FSYNC = ("box", "cpu.sieve"), ("box", "io.fsync")


def resolved(path: Path, **options: Any) -> MachineNoise:
    return noise.machine_noise(reader.load(path), **options)


def row(made: MachineNoise, workload: str = "cpu.sieve") -> WorkloadNoise:
    (found,) = (one for one in made.workloads if one.workload == workload)
    return found


def test_a_quiet_machine_resolves_little_in_few_blocks(synthetic: Write) -> None:
    found = row(resolved(synthetic(noise=0.003, blocks=20)))
    assert not found.exceeds
    # Native over native differs by the noise of both: 0.42 %, and trimming costs a little.
    assert found.spread == pytest.approx(0.003 * 2**0.5, rel=0.4)
    effects = [found.smallest_effect[n] for n in (10, 20, 60)]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] < 0.01
    assert found.precision.blocks == 10, "no run stops at a width before"
    assert found.verdict.blocks == 3, "the fewest that give an interval"
    assert found.outlying_rate <= 0.2


def test_a_noisy_machine_needs_many_blocks_and_says_so(synthetic: Write) -> None:
    made = resolved(synthetic(noise=0.1, blocks=12))
    found = row(made)
    assert found.exceeds
    assert found.precision.blocks > found.verdict.blocks > 60
    assert "cannot show effects smaller than" in view.headline(made)
    assert "The noise floor of 1 of 1 workloads is above 5 %" in view.headline(made)


def test_a_target_of_the_run_has_no_part_in_it(synthetic: Write) -> None:
    alone = resolved(synthetic({SIEVE: 1.0}, name="one"))
    slow = resolved(synthetic({SIEVE: 30.0}, name="two"))
    assert row(alone).noise == pytest.approx(row(slow).noise)


def test_a_finer_precision_takes_more_blocks(synthetic: Write) -> None:
    path = synthetic(noise=0.02)
    rough, fine = (row(resolved(path, precision=p)) for p in (0.05, 0.01))
    assert fine.precision.blocks > rough.precision.blocks
    assert fine.verdict == rough.verdict


def test_time_is_of_three_visits_from_end_to_end(synthetic: Write) -> None:
    path = synthetic({SIEVE: 1.0, FSYNC: 1.0})
    run = reader.load(path)
    # Every visit takes two seconds and ends with its last iteration.
    frame = run.samples
    frame["at"] = 2.0 * frame.groupby(["block", "target", "workload"], sort=False).ngroup()
    found = noise.machine_noise(dataclasses.replace(run, samples=frame))
    seconds = [one.seconds_a_block for one in found.workloads]
    assert seconds == [6.0, 6.0]
    assert found.workloads[0].precision.seconds == 60.0


def test_where_visits_take_no_time_none_is_predicted(synthetic: Write) -> None:
    made = resolved(synthetic())
    assert row(made).seconds_a_block is None
    assert row(made).precision == Effort(blocks=10, seconds=None)


def test_drift_is_reported(synthetic: Write) -> None:
    found = row(resolved(synthetic(drift=3.0, blocks=30)))
    assert found.drift.notable
    assert found.drift.change > 1


def test_broken_rules_and_steal_are_counted(synthetic: Write) -> None:
    made = resolved(synthetic(blocks=12, invalid=frozenset({2, 5})))
    health = made.health
    assert (health.blocks, health.invalid, health.broken) == (12, 2, {"steal": 2})
    assert health.steal_percent == Spanned(median=0.0, worst=20.0)
    (steal,) = (one for one in made.host if one.name is noise.HostProperty.STEAL)
    assert steal.harmful
    (shown,) = (one for one in view.document(made)["host"] if one["fact"] == "steal")
    assert "hypervisor" in shown["note"]


def test_pressure_is_of_all_blocks_that_have_it() -> None:
    blocks = [
        BlockHealth(
            block=number, seconds=1.0, steal_percent=None, pressure_percent=pressure,
            swapped_in_pages=0, throttled=None, clock_source="tsc",
        )
        for number, pressure in enumerate((1.0, None, 3.0))
    ]  # fmt: skip
    assert noise._spanned(blocks, "pressure_percent") == Spanned(median=2.0, worst=3.0)
    assert noise._spanned(blocks, "steal_percent") is None


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": 2},
        {"missing": {("native#2", "cpu.sieve"): frozenset(range(16))}},
    ],
)
def test_a_run_that_cannot_show_it_is_refused(options: dict[str, Any], synthetic: Write) -> None:
    path = synthetic(**options)
    with pytest.raises(UsageError, match="does not show how noisy") as caught:
        resolved(path)
    assert caught.value.hint == "isobench noise"
