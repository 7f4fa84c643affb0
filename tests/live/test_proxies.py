"""Proxies of configuration files, passwords included, stay outside of containers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.model.units import seconds
from isobench.plugins.api import Launcher, Target
from isobench.targets.containers import docker
from tests.conftest import PROGRAM, Staged

pytestmark = pytest.mark.live
PROXY = "http://me:hunter22@proxy.example:3128"
PATIENCE = seconds(60)


def seen(target: Target, one: Staged) -> list[bytes]:
    """Return what programs see of the proxy in a session and in an instance of their own."""
    command = one.command(PROGRAM, "see", "HTTP_PROXY")
    assert isinstance(target, Launcher)
    with target.open(one.stage) as session:
        inside = session.run(command, timeout=PATIENCE)
    launched = target.launch(one.stage, command, timeout=PATIENCE)
    return [inside.stdout.strip(), launched.stdout.strip()]


def test_the_proxies_of_dockers_client_reach_no_program(
    able: Callable[[str], Target],
    staged: Callable[[Target], Staged],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = able("docker")
    proxies = {"default": {"httpProxy": PROXY, "httpsProxy": PROXY}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    docker._connected.cache_clear()  # a client reads its configuration once
    try:
        assert seen(target, staged(target)) == [b"null", b"null"]
    finally:
        docker._connected.cache_clear()


@pytest.mark.parametrize("name", ["podman", "podman-pod"])
def test_a_containers_conf_that_passes_everything_on_passes_nothing_on(
    name: str,
    able: Callable[[str], Target],
    staged: Callable[[Target], Staged],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = able(name)
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    (tmp_path / "containers.conf").write_text("[containers]\nhttp_proxy = true\nenv_host = true\n")
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    assert seen(target, staged(target)) == [b"null", b"null"]
