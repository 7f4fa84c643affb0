"""Targets in an image of the user's: it has busybox, an entry point and a user."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isobench.model import Command, Unavailable
from isobench.model.units import seconds
from isobench.plugins.api import Target
from isobench.plugins.registry import Registry
from isobench.targets.containers import distrobox
from isobench.targets.shared import oci
from tests.conftest import PROGRAM, Staged
from tests.live.conftest import Command as Program

pytestmark = pytest.mark.live
NAME = "localhost/isobench-tests/busybox:1"
CHANGES = ('ENTRYPOINT ["/bin/false"]', "USER 12345", "LABEL maker=somebody")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    busybox = distrobox._busybox()
    if busybox is None:
        pytest.skip("busybox is not installed")
    path = tmp_path_factory.mktemp("image") / "root.tar"
    path.write_bytes(distrobox._archive(busybox))
    return path


@pytest.fixture
def engine(
    request: pytest.FixtureRequest, able: Callable[[str], Target], archive: Path
) -> Iterator[str]:
    """Return an engine that has the image."""
    name = str(request.param)
    able(name)
    changes = [word for change in CHANGES for word in ("--change", change)]
    subprocess.run([name, "import", *changes, archive, NAME], check=True, capture_output=True)
    yield name
    subprocess.run([name, "rmi", "--force", NAME], check=False, capture_output=True)


def images(engine: str) -> set[str]:
    """Return all names of images of an engine."""
    argv = [engine, "images", "--format", "{{.Repository}}:{{.Tag}}"]
    return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())


both = pytest.mark.parametrize("engine", ["docker", "podman"], indirect=True)


@both
def test_a_session_has_the_users_image_and_the_payloads(
    engine: str, staged: Callable[[Target], Staged]
) -> None:
    target = Registry({engine: {"image": NAME}}).get(engine)
    answer = target.probe()
    assert not isinstance(answer, Unavailable), answer
    assert f"image {NAME} " in answer.version
    with target.open(staged(target).stage) as session:
        done = session.run(Command(argv=(PROGRAM, "say", "x")), timeout=seconds(60))
    assert done.exit_code == 0, done.stderr


@both
def test_a_run_measures_starts_and_work(engine: str, isobench: Program) -> None:
    before = images(engine)
    (isobench.folder / "isobench.toml").write_text(
        f'[targets.mine]\nkind = "{engine}"\nimage = "{NAME}"\n'
    )
    done = isobench(
        *("run", "-t", "mine", "-w", "cpu.sieve,io.metadata,startup.cold,startup.warm"),
        *("--blocks", "3", "--min-time", "0.004s"),
    )
    assert done.code == 0, done.said
    cells = {cell["workload"] for cell in done.summary()["cells"] if cell["target"] == "mine"}
    assert cells == {"cpu.sieve", "io.metadata", "startup.cold", "startup.warm"}
    made = [name for name in images(engine) - before if name.startswith(oci.BASED)]
    assert made
    assert all(map(oci.is_own_image, made))
    subprocess.run([engine, "rmi", *made], check=True, capture_output=True)


@both
def test_an_image_that_the_engine_does_not_have_is_named(engine: str, isobench: Program) -> None:
    missing = "localhost/isobench-tests/none:1"
    (isobench.folder / "isobench.toml").write_text(
        f'[targets.mine]\nkind = "{engine}"\nimage = "{missing}"\n'
    )
    done = isobench("run", "-t", "mine", "-w", "cpu.sieve", "--require", "mine")
    assert done.code == 3
    assert f"has no image {missing}" in done.said
    assert f"{engine} pull {missing}" in done.said


@both
def test_a_command_of_the_image_runs_in_a_test(engine: str, tmp_path: Path) -> None:
    (tmp_path / "isobench.toml").write_text(
        f'[targets.mine]\nkind = "{engine}"\nimage = "{NAME}"\n'
    )
    (tmp_path / "test_it.py").write_text(
        "def test_it(isolated):\n"
        '    mine = isolated("mine")\n'
        '    assert mine.run("cat", "/etc/group").stdout.startswith(b"root:x:0:\\n")\n'
        '    assert mine.run("id", "-u").stdout == b"12345\\n"\n'
        '    assert mine.run("sh", "-c", "touch /scratch/x && echo yes").stdout == b"yes\\n"\n'
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
