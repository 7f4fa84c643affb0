"""The contract is kept as in a run: isobench's spawner starts what targets start."""

from collections.abc import Iterator

import pytest

from isobench.model import host_abi
from isobench.payload import build
from isobench.targets.shared import processes


# Of the module, not of the session: tests that come after it have no spawner, as they expect.
@pytest.fixture(scope="module", autouse=True)
def spawner(cache: object) -> Iterator[None]:
    del cache  # where it is built
    host = host_abi()
    assert host is not None
    built = build.build_all({}, [host], host=host)
    program = next(each.path for each in built if each.program == build.SPAWN)
    with processes.spawning(program) as way:
        assert way == "vfork"
        yield
