"""The environment in which boxes are entered, and the processes that are theirs."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.plugins.api import Completed
from isobench.targets.containers import distrobox


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def enter_environment(name: str, **environment: str) -> dict[str, str]:
    return dict(distrobox._Box(name=name, environment=environment).enter_environment)


def test_an_image_is_a_name_and_no_option_of_podman() -> None:
    assert distrobox.DistroboxTarget(image="debian:12").image == "debian:12"
    with pytest.raises(ValueError, match="write the name of an image"):
        distrobox.DistroboxTarget(image="--help")


def test_each_box_is_entered_with_its_own_home(home: Path) -> None:
    """`distrobox enter` deletes ~/.cache/.*.fifo, which another one may be reading."""
    one, two = (Path(enter_environment(name, HOME=str(home))["HOME"]) for name in ("one", "two"))
    assert len({home, one, two}) == 3
    assert one.is_dir()
    assert two.is_dir()


def test_settings_and_images_stay_those_of_the_real_home(home: Path) -> None:
    (home / ".distroboxrc").write_text("container_manager=podman\n")
    plain = enter_environment("one", HOME=str(home))
    assert plain["XDG_CONFIG_HOME"] == str(home / ".config")
    assert plain["XDG_DATA_HOME"] == str(home / ".local/share")
    assert (Path(plain["HOME"]) / ".distroboxrc").read_text() == "container_manager=podman\n"
    assert enter_environment("one", XDG_DATA_HOME="/data")["XDG_DATA_HOME"] == "/data"


def test_a_box_that_is_never_set_up_is_said_to_be_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`distrobox enter` then prints "Starting container...", and nothing else."""
    waited: list[float] = []

    def call(_: object, argv: list[str], *, timeout: int, **__: object) -> Completed:
        waited.append(timeout)
        hangs = argv[1] == "enter"
        return Completed(
            exit_code=None if hangs else 0, stdout=b"", stderr=b" Starting container..."
        )

    monkeypatch.setattr(distrobox._Box, "call", call)
    monkeypatch.setattr(distrobox._Box, "remove", lambda _: None)
    monkeypatch.setattr(distrobox.DistroboxTarget, "_image", lambda _: "image")
    monkeypatch.setattr(distrobox._podman, "settings_cache", lambda: home / "settings")
    with pytest.raises(SessionError, match="did not set one up within 45 s"):
        distrobox.DistroboxTarget()._check_box("1 2 3")
    assert waited[-1] < seconds(60)


# ---- the processes of a box ----------------------------------------------------------------------

Monitor = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    """Return a function that starts a shell under the name of a program, with two children."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, program: str = "conmon") -> subprocess.Popen[bytes]:
        path = tmp_path / program
        if not path.exists():
            shutil.copy("/bin/sh", path)
        argv = [str(path), "-c", "sleep 60 & sleep 60; :", *words]
        started.append(subprocess.Popen(argv))
        while len(children(started[-1])) < 2:
            time.sleep(0.01)
        return started[-1]

    yield start
    for each in started:
        for one in (*psutil.Process(each.pid).children(), each):
            one.kill()
        each.wait()


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return sorted(child.pid for child in psutil.Process(process.pid).children())


def test_the_processes_of_a_box_descend_from_its_own_monitor_whatever_podman_says(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = monitor("-n", "isobench-1")
    stranger = monitor("isobench-1", program="sleeper")
    # Of another box, and one whose arguments only look alike.
    monitor("-n", "isobench-2")
    monitor("isobench-1", "-n")
    monitor("-n", "isobench-1", program="no-conmon")

    def podman(*words: str, **_: Any) -> Completed:
        ran.append(words)
        said = str(stranger.pid).encode() if "inspect" in words else b""
        return Completed(exit_code=0, stdout=said, stderr=b"")

    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(distrobox._podman, "run", podman)
    box = distrobox._Box(name="isobench-1", environment={})
    assert sorted(box._children()) == children(mine)
    monkeypatch.setattr(distrobox._Box, "call", lambda *_, **__: None)
    box.stop()
    (ended,) = (words for words in ran if "kill" in words)
    assert sorted(map(int, ended[3:])) == children(mine)


def test_a_box_without_a_monitor_has_no_processes() -> None:
    assert distrobox._Box(name="isobench-none", environment={})._children() == []


def test_what_stays_of_a_home_is_not_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in a box can have made a folder there as another user."""
    dead = "isobench-a1b2c3-1-5-6"
    left = home / ".cache" / f".{dead}.home"
    left.mkdir(parents=True)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/podman")
    monkeypatch.setattr(distrobox.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(distrobox._podman, "settings_cache", lambda: home)
    monkeypatch.setattr(distrobox._podman, "sweep", lambda *_, **__: [])
    target = distrobox.DistroboxTarget()
    with monkeypatch.context() as stuck:
        stuck.setattr(shutil, "rmtree", lambda *_, **__: None)
        (found,) = target.sweep(lambda _: False, cached=False)
    assert (found.what, found.failure) == (f"folder {left}", "some of its files cannot be removed")
    (found,) = target.sweep(lambda _: False, cached=False)
    assert (found.what, found.failure, left.exists()) == (f"folder {left}", "", False)
