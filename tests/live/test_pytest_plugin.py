"""pytest-isobench, as a project uses it: the example in tests/data is run by pytest."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.plugins.api import Target

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).parents[1] / "data" / "pytest_example"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # pytest-xdist and pytest itself tell their children about themselves.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *words]
    return subprocess.run(argv, cwd=folder, env=plain, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example; its programs must be within reach of other users."""
    shutil.copytree(EXAMPLE, folder := tmp_path / "project")
    return folder


def test_the_example_passes_but_for_what_is_not_near_native(
    project: Path, able: Callable[[str], Target]
) -> None:
    able("landlock")
    done = run(project, "-v")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "4 passed" in done.stdout, done.stdout
    assert "1 failed" in done.stdout
    assert "landlock startup.warm is slower" in done.stdout
    assert len(list((project / "isobench-results").iterdir())) == 2


def test_workloads_are_benchmarks_in_native_and_each_target(
    project: Path, able: Callable[[str], Target]
) -> None:
    able("landlock")
    done = run(
        project, "--isobench-targets", "landlock", "--isobench-workloads", "cpu.sieve,startup.exec",
        "--benchmark-only", "--benchmark-json", "found.json", "--benchmark-max-time", "0.3",
        "-k", "test_workload",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((project / "found.json").read_text())["benchmarks"]
    names = {one["name"] for one in found}
    assert names == {
        f"test_workload[{workload}-{target}]"
        for workload in ("cpu.sieve", "startup.exec")
        for target in ("native", "landlock")
    }
    assert all(one["stats"]["rounds"] >= 5 and one["stats"]["min"] > 0 for one in found)
    assert {one["group"] for one in found} == {"cpu.sieve", "startup.exec"}
    loops = {one["extra_info"]["loops"] for one in found if one["group"] == "cpu.sieve"}
    assert len(loops) == 1  # the same work in all targets


def test_a_target_that_cannot_run_here_skips_with_the_reason(project: Path) -> None:
    (project / "test_isolation.py").write_text("def test_it(isolated):\n    isolated('ssh')\n")
    done = run(project, "-rs")
    assert done.returncode == 0, done.stdout
    assert "ssh cannot run here" in done.stdout


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("workloads='cpu'", "targets must be named"),
        ("targets='landlock', margins='5%'", "no argument ['margins']"),
        ("targets='landlock', margin='5'", "margin:"),
    ],
)
def test_a_wrong_marker_is_refused(marker: str, words: str, project: Path) -> None:
    (project / "test_isolation.py").write_text(
        f"import pytest\n@pytest.mark.isobench({marker})\ndef test_it():\n    pass\n"
    )
    done = run(project)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


def test_a_pytest_that_does_not_use_it_imports_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    assert not {'pandas', 'scipy', 'isobench.run'} & set(sys.modules)\n"
    )
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
