"""The target `docker`, the part that needs no daemon."""

import gc
import warnings
from pathlib import Path

import pytest
from docker.errors import APIError

from isobench.model import Lack, Unavailable
from isobench.model.errors import SessionError
from isobench.targets.containers import docker
from isobench.targets.containers.docker import DockerTarget


def test_a_missing_daemon_leaves_no_socket_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = DockerTarget().probe()
        gc.collect()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.SERVICE
    assert not [warning for warning in caught if "unclosed" in str(warning.message)]


@pytest.mark.parametrize(
    "address",
    [
        *("tcp://[::1:x@", "tcp://me:dsecret#111@127.0.0.1:1", "tcp://me:dsecret-1/22@127.0.0.1:1"),
        *("nowhere://x", "fd://", "tcp://", "tcp://host", "tcp://host:99999"),
    ],
)
def test_a_docker_host_that_is_no_address_is_said_to_be_none(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    answer = DockerTarget().probe()
    assert isinstance(answer, Unavailable)
    assert answer.what == "DOCKER_HOST is not the address of a Docker engine"
    assert answer.hint.startswith("unset DOCKER_HOST, or write it as in unix:///")


def test_a_daemon_that_refuses_is_not_said_to_be_missing() -> None:
    answer = docker._unreachable(APIError("no space left on device"))
    assert answer.what.endswith("refuses: no space left on device")


def test_a_secret_with_a_tab_is_left_out_of_what_the_engine_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "tabby\tsecret")
    assert docker._message(APIError("no login \n with tabby\tsecret")) == "no login with ***"


@pytest.mark.parametrize(
    "option",
    ["seccomp=unconfined", "seccomp=builtin", 'seccomp={"defaultAction":"X"}', "apparmor=x"],
)
def test_options_that_the_engine_takes_as_they_are_are_left(option: str) -> None:
    assert docker._security_option(option) == option


def test_the_engine_gets_the_text_of_a_seccomp_profile(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text('{\n  "defaultAction": "SCMP_ACT_ALLOW"\n}\n')
    option = docker._security_option(f"seccomp={path}")
    assert option == 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'
    assert docker._shown(option).startswith("seccomp=profile sha256:")


@pytest.mark.parametrize("text", [None, "no JSON", "[" * 100_000])
def test_a_profile_that_cannot_be_read_is_an_error_with_its_name(
    text: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SessionError, match=r"profile\.json"):
        docker._security_option(f"seccomp={path}")


def test_a_profile_that_never_ends_is_not_read() -> None:
    with pytest.raises(SessionError, match="not a regular file"):
        docker._security_option("seccomp=/dev/zero")
