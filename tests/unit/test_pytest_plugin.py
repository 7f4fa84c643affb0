"""The plug-in for pytest, in a pytest of its own: what it says of mistakes, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *words]
    here = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        argv, cwd=folder, env=plain | here, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("landlock", "cpu.siev"), "no workload or class is called 'cpu.siev'"),
        (("landlok", "cpu.sieve"), "no target is called 'landlok'"),
    ],
)
def test_a_name_that_does_not_exist_is_a_message(
    words: tuple[str, str], message: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "--isobench-targets", words[0], "--isobench-workloads", words[1])
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "loader.py" not in done.stdout
    assert "registry.py" not in done.stdout
    assert "passed" not in done.stdout


INTERRUPTED = """
import types

import pytest

from isobench import api


api.measure = lambda *_, **__: types.SimpleNamespace(interrupted=True)


@pytest.mark.isobench(targets="landlock")
def test_one():
    pass


def test_two():
    print("went on")
"""


def test_an_interruption_of_a_run_ends_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(INTERRUPTED)
    done = run(tmp_path, "-s")
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in done.stdout
    assert "went on" not in done.stdout


SEVERAL = """
import pytest


@pytest.mark.isobench(targets="landlock", workloads="cpu")
class TestIt:
    @pytest.mark.isobench(targets="wasm", workloads="cpu")
    def test_it(self):
        pass
"""


def test_several_markers_are_an_error_and_no_choice(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SEVERAL)
    done = run(tmp_path)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "TestIt::test_it: 2 markers @pytest.mark.isobench" in done.stdout
    assert not (tmp_path / "isobench-results").exists()


def test_a_configuration_that_is_ignored_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "isobench.toml").touch()
    (tmp_path / "isobench.toml").chmod(0o666)
    (tmp_path / "test_it.py").write_text("def test_it(isolated): pass\ndef test_2(isolated): pass")
    done = run(tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("isobench.toml is ignored: everyone may write it") == 1


SKIPPED = """
import types

import pytest

from isobench import api


def measure(*_, **__):
    print("measured")
    return types.SimpleNamespace(interrupted=False)


api.measure = measure


@pytest.fixture
def of_run(isobench_run):
    print("a fixture has the run")


pytestmark = pytest.mark.isobench(targets="landlock")


@pytest.mark.skip
def test_skip():
    pass


@pytest.mark.skipif(True, reason="x")
def test_skipif():
    pass


@pytest.mark.xfail(run=False)
def test_xfail():
    pass


def test_measured(of_run):
    pass
"""


def test_a_test_that_is_skipped_measures_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPED)
    done = run(tmp_path, "-s", "test_it.py")
    assert "2 skipped" in done.stdout
    assert "1 xfailed" in done.stdout
    assert done.stdout.count("measured\n") == 1
    assert "a fixture has the run" in done.stdout
