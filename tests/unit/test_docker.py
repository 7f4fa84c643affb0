"""The target `docker`, the part that needs no daemon."""

import gc
import warnings
from pathlib import Path

import pytest

from isobench.model import Lack, Unavailable
from isobench.targets.containers.docker import DockerTarget


def test_a_missing_daemon_leaves_no_socket_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = DockerTarget().probe()
        gc.collect()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.SERVICE
    assert not [warning for warning in caught if "unclosed" in str(warning.message)]
