"""Whom things belong to, and whether that process still lives."""

import os
import subprocess
import sys

import pytest

from isobench.plugins import ownership


def test_what_belongs_to_this_process_is_left_alone() -> None:
    assert ownership.alive(ownership.mine())


def test_an_owner_names_this_process() -> None:
    tool, machine, pid, started = ownership.mine().split("-")
    assert tool == "isobench"
    assert len(machine) == 6
    assert int(pid) == os.getpid()
    assert started.isdigit()


def test_what_a_process_that_ended_has_left_may_be_removed() -> None:
    """The next isobench removes it: a process of its own, which takes the machine as it is now.

    This one may have read /etc/machine-id long ago; installing an engine can make that file.
    """

    def ask(expression: str) -> str:
        program = f"from isobench.plugins import ownership; print({expression})"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    dead = ask("ownership.mine()")
    assert dead.startswith("isobench-")
    assert ask(f"ownership.alive({dead!r}), ownership.mine()").startswith("False "), dead


def test_a_process_that_took_over_the_number_is_not_the_owner() -> None:
    parts = ownership.mine().split("-")
    parts[3] = str(int(parts[3]) - 100_000)
    assert not ownership.alive("-".join(parts))


def test_a_clock_that_was_corrected_a_little_does_not_make_an_owner_dead() -> None:
    parts = ownership.mine().split("-")
    parts[3] = str(int(parts[3]) + 30)
    assert ownership.alive("-".join(parts))


def test_what_belongs_to_another_machine_is_left_alone() -> None:
    parts = ownership.mine().split("-")
    parts[1] = "ffffff" if parts[1] != "ffffff" else "000000"
    parts[3] = "1"
    assert ownership.alive("-".join(parts))


@pytest.mark.parametrize(
    "label", ["", "isobench", "isobench-abc", "isobench-a-b-c", "other-a-1-2", "isobench-a-1-2-3"]
)
def test_what_no_isobench_has_named_is_left_alone(label: str) -> None:
    assert ownership.alive(label)


def test_a_number_beyond_any_process_is_dead_and_no_error() -> None:
    parts = ownership.mine().split("-")
    parts[2] = "9" * 12
    assert not ownership.alive("-".join(parts))
