"""The environment in which boxes are entered."""

from pathlib import Path

import pytest

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
