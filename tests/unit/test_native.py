"""The reference: what keeps its programs from running."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from isobench.model import Available, Unavailable
from isobench.targets.native import NativeTarget


def test_a_cache_whose_programs_cannot_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "made"))
    assert isinstance(NativeTarget().probe(), Available)
    found = {tmp_path: os.ST_NOEXEC}
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=found[path]))
    answer = NativeTarget().probe()
    assert isinstance(answer, Unavailable)
    assert f"{tmp_path}/not/made" in answer.what
    assert "noexec" in answer.what
