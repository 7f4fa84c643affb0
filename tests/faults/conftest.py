"""A run that tests of faults change."""

import shutil
from pathlib import Path

import pytest

from tests.faults import damage


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return damage.run(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    """Return a copy of the run."""
    return Path(shutil.copytree(base, tmp_path / "run"))
