"""Which packages bring what a target needs."""

import os
import shutil
import sys

import pytest

from isobench import packages
from isobench.errors import UsageError
from isobench.registry import announced

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
    *_, install = packages.commands([name])
    assert install[0] == manager
    for package in packages.PACKAGES[name][manager]:
        assert package in install


def test_apt_looks_for_news_before_it_installs(system: pytest.MonkeyPatch) -> None:
    assert packages.commands(["bubblewrap"]) == [
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "bubblewrap"],
    ]


def test_an_ordinary_user_is_given_sudo(system: pytest.MonkeyPatch) -> None:
    system.setattr(os, "geteuid", lambda: 1000)
    assert all(command[0] == "sudo" for command in packages.commands(["docker", "podman"]))


def test_two_names_for_the_same_package_ask_for_it_once(system: pytest.MonkeyPatch) -> None:
    *_, install = packages.commands(["qemu-user-aarch64", "qemu-user-riscv64", "qemu-user"])
    assert install.count("qemu-user") == 1


def test_several_names_are_one_installation(system: pytest.MonkeyPatch) -> None:
    *before, install = packages.commands(["docker", "bubblewrap"])
    assert before == [["apt-get", "update"]]
    assert install[-2:] == ["docker.io", "bubblewrap"]


def test_what_is_of_pypi_is_installed_beside_isobench(system: pytest.MonkeyPatch) -> None:
    assert packages.commands(["kubernetes"]) == [[*packages._pip(), "kubernetes>=29"]]
    *before, last = packages.commands(["kubernetes", "bubblewrap"])
    assert before[-1][-1] == "bubblewrap"
    assert "pip" in last


def test_an_environment_without_pip_is_reached_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert packages._pip() == ["python3", "-m", "pip", "--python", sys.prefix, "install"]


def test_an_unknown_name_is_answered_with_those_that_are_known(system: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'dockr'") as caught:
        packages.commands(["dockr"])
    assert all(name in caught.value.hint for name in packages.NAMES)


def test_a_system_without_a_known_manager_is_told_to_install_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="apt-get, dnf, pacman and zypper") as caught:
        packages.commands(["docker"])
    assert "by hand" in caught.value.hint


def test_every_target_that_needs_a_package_can_be_installed_by_its_own_name(
    system: pytest.MonkeyPatch,
) -> None:
    for name in set(announced()) - {"native", "namespaces"}:
        if announced()[name].value.startswith("isobench."):
            assert packages.commands([name])
