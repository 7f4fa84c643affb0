"""Contract tests run as a run does: isobench's spawner starts the programs of targets."""

from collections.abc import Iterator

import pytest

from isobench.model import host_abi
from isobench.payload import build
from isobench.targets.shared import processes


# Of the module, not of the session: later tests expect to have no spawner.
@pytest.fixture(scope="module", autouse=True)
def spawner(cache: object) -> Iterator[None]:
    del cache  # the spawner is built there
    host = host_abi()
    assert host is not None
    built = build.build_all({}, [host], host=host)
    program = next(each.path for each in built if each.program == build.SPAWN)
    with processes.spawning(program) as method:
        assert method == "vfork"
        yield
