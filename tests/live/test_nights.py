"""Three nights of the workflow in docs/ci: a tool is upgraded, then it becomes slower."""

from pathlib import Path

import pytest

from tests import nights

pytestmark = pytest.mark.live


@pytest.mark.timeout(1800)
def test_the_third_night_finds_confirms_and_names_the_slowdown(tmp_path: Path) -> None:
    machine = nights.here(tmp_path)
    # A test runs on busy machines: so the tool becomes slower by half and not by a fifth.
    jobs = [nights.night(machine, number, "20s", slower=500) for number in range(3)]
    assert not nights.check(jobs)
