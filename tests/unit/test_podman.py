"""What containers of Podman are started with."""

import pytest

from isobench.plugins.api import Completed
from isobench.targets.containers import _podman
from isobench.targets.shared import oci


def test_a_container_gets_no_image_from_elsewhere_and_no_variable_of_the_user() -> None:
    options = _podman.container_options(_podman.Options(), oci.Settings())
    assert {"--pull=never", "--http-proxy=false", "--env-host=false"} <= {*options}


def test_podman_itself_is_not_told_the_users_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "No_Proxy"):
        monkeypatch.setenv(name, "http://me:hunter22@proxy:3128")
    monkeypatch.setenv("CONTAINERS_CONF", "/etc/containers/containers.conf")
    kept = _podman.environment()
    assert [name for name in kept if "proxy" in name.lower()] == []
    assert kept["CONTAINERS_CONF"] == "/etc/containers/containers.conf"


def test_containers_that_are_only_storage_are_removed_by_the_owner_in_their_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = (
        "aaa isobench-1-2-3-dead Storage\n"
        "bbb isobench-4-5-6-alive Storage\n"
        "ccc mycompany Storage\n"
        "ddd isobench-1-2-3-dead Exited (0) 3 minutes ago\n"
    )
    done = Completed(exit_code=0, stdout=lines.encode(), stderr=b"")
    monkeypatch.setattr(_podman, "run", lambda *_words: done)
    removed: list[str] = []
    monkeypatch.setattr(_podman, "remove", lambda name: removed.append(name) or "")
    found = _podman._sweep_storage(lambda owner: owner == "isobench-4-5-6")
    assert removed == ["aaa"]
    assert [one.what for one in found] == [
        "podman container isobench-1-2-3-dead, of which there is only storage"
    ]
