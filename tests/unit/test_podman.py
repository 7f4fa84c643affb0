"""What containers of Podman are started with."""

import pytest

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
