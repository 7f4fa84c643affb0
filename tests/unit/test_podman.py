"""What containers of Podman are started with."""

import contextlib
from pathlib import Path

import pytest

from isobench.model import Command, Stage
from isobench.model.errors import SessionError
from isobench.model.units import Sha256
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.containers import _podman, podman
from isobench.targets.shared import oci, processes


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


@pytest.mark.parametrize("how", ["late", "interrupted"])
def test_a_probe_that_does_not_end_leaves_no_container(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def run(*words: str, **_: object) -> Completed:
        started.append(words[words.index("--name") + 1])
        if how == "interrupted":
            raise KeyboardInterrupt
        return Completed(exit_code=None, stdout=b"", stderr=b"")

    monkeypatch.setattr(_podman, "run", run)
    removed: list[str] = []
    monkeypatch.setattr(_podman, "remove", lambda name: removed.append(name) or "")
    with contextlib.suppress(KeyboardInterrupt, SessionError):
        _podman._start_error(_podman.Options(), oci.Settings(), tmp_path)
    assert removed == started != []


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_podman, "_working", {})


def test_a_sweep_looks_for_containers_of_a_first_start_that_was_killed(
    no_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(_podman, "_start_error", killed)
    with pytest.raises(KeyboardInterrupt):
        _podman.working_settings(_podman.Options())
    assert _podman.settings_cache().exists()


def test_where_no_container_starts_a_sweep_needs_no_podman(
    no_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_podman, "_start_error", lambda *_: "it does not start")
    with pytest.raises(SessionError, match="it does not start"):
        _podman.working_settings(_podman.Options())
    assert not _podman.settings_cache().exists()


def test_a_pod_that_cannot_be_made_puts_its_image_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise SessionError("podman kube: no such image")

    monkeypatch.setattr(_podman, "checked", fail)
    monkeypatch.setattr(podman, "_loaded", {"localhost/isobench/stage:0"})
    made = Stage(root=tmp_path, digest=Sha256("0" * 64), tools={}, scratch=tmp_path, owner="x")
    command = Command(argv=("_agent",))
    with (
        pytest.raises(SessionError, match="no such image"),
        podman.PodTarget()._created(made, command, oci.Settings(), start=True),
    ):
        pytest.fail("it was made")
    assert podman._loaded == set()


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b'{"host": null}', b'{"store": {"graphRoot": 1}}', b"[" * 100_000]
)
def test_a_podman_that_describes_itself_wrongly_is_an_error_of_the_target(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_podman, "checked", lambda *_, **__: answer)
    monkeypatch.setitem(_podman._working, _podman.Options(), oci.Settings())
    with pytest.raises(SessionError, match="podman info"):
        _podman.info()
    assert _podman.limitable(_podman.Options()) == []


def test_limits_are_unknown_where_podman_fails_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([b'{"host": {"cgroupControllers": ["cpu", "io"]}}'])

    def checked(*_: object, **__: object) -> bytes:
        try:
            return next(answers)
        except StopIteration:
            raise SessionError("podman info: database is locked") from None

    monkeypatch.setattr(_podman, "checked", checked)
    monkeypatch.setitem(_podman._working, _podman.Options(), oci.Settings())
    assert _podman.limitable(_podman.Options()) == []


@pytest.mark.parametrize("container", ["", "--all", "precious-database", "0" * 63])
def test_a_monitor_of_no_container_ends_nothing(
    container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["conmon", "-b", "/store/overlay-containers/x", "-n", "isobench-1-2-3-dead", "-c"]
    words.append(container)
    done: list[object] = []
    known = [1]
    store = _podman.Info(store=_podman._Store(graph_root="/store"))
    monkeypatch.setattr(_podman, "info", lambda: store)
    monkeypatch.setattr(
        _podman, "run", lambda *_: Completed(exit_code=known[0], stdout=b"", stderr=b"")
    )
    monkeypatch.setattr(processes, "own", lambda _: [(7, words)])
    monkeypatch.setattr(processes, "end_tree", lambda pid: done.append(pid) or [])
    monkeypatch.setattr(_podman, "remove", lambda name: done.append(name) or "")
    assert _podman._sweep_forgotten(lambda _: False) == []
    assert done == []
    words[-1] = "0" * 64
    # Podman knows it: its labels say whose it is. In another store, too.
    known[0] = 0
    assert _podman._sweep_forgotten(lambda _: False) == []
    known[0], words[2] = 1, "/elsewhere/overlay-containers/x"
    assert _podman._sweep_forgotten(lambda _: False) == []
    words[2] = "/store/overlay-containers/x"
    assert done == []
    assert len(_podman._sweep_forgotten(lambda _: False)) == 1
    assert done == [7, "0" * 64]


def test_a_sweep_removes_pods_then_containers_of_the_dead_and_tries_each_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = "isobench-1-2-3"
    of = b'"Labels": {"isobench": "1", "isobench.owner": "%b"}' % owner.encode()
    calls: list[str] = []
    refusals = {"p", "c"}

    def refuse_once(which: str) -> None:
        if which in refusals:
            refusals.remove(which)
            raise SessionError("podman: a process is running")

    def checked(*arguments: str, **_: object) -> bytes:
        match arguments:
            case ("pod", "rm", *_, "--", pod):
                calls.append(f"pod {pod}")
                refuse_once(pod)
            case ("rm", *_, "--", container):
                calls.append(f"container {container}")
                refuse_once(container)
            case ("pod", "ps", *_):
                return b'[{"Id": "p", "Name": "%b-0", %b}]' % (owner.encode(), of)
            case ("ps", *_):
                one = b'{"Id": "%b", "Names": ["%b"], %b}'
                lent = one % (b"lent", b"my-own-database", of)  # the labels are those of its image
                return b"[%b, %b]" % (one % (b"c", f"{owner}-1".encode(), of), lent)
        return b""

    monkeypatch.setattr(_podman, "checked", checked)
    monkeypatch.setattr(
        _podman, "run", lambda *_, **__: Completed(exit_code=0, stdout=b"", stderr=b"")
    )
    monkeypatch.setattr(processes, "own", lambda _: [])
    assert _podman.sweep({owner, ""}.__contains__, images=False) == []
    assert calls == []
    removed = _podman.sweep(lambda whose: not whose, images=False)
    assert [one.what for one in removed] == [f"podman pod {owner}-0", "podman container c"]
    assert [one.failure for one in removed] == ["", ""]
    assert calls == ["pod p", "pod p", "container c", "container c"]


@pytest.mark.parametrize("kind", [podman.PodmanTarget, podman.PodTarget])
def test_what_podman_does_not_remove_is_named_with_its_message(
    kind: type[podman.PodmanTarget], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked(*arguments: str, **_: object) -> bytes:
        if "rm" in arguments:
            raise SessionError("podman rm: device or resource busy")
        return b""

    monkeypatch.setattr(_podman, "checked", checked)
    monkeypatch.setattr(kind, "_ready", lambda *_: oci.Settings())
    made = Stage(root=tmp_path, digest=Sha256("0" * 64), tools={}, scratch=tmp_path, owner="x")
    with (
        pytest.raises(SessionError, match=r"^the \w+ x-\w+ stays: .* device or resource busy$"),
        kind().open(made),
    ):
        pass
    assert ownership.take_doubt()
    first = SessionError("lost", hint="look", log="what it printed")
    with pytest.raises(SessionError, match=r"^lost; and the .*busy$") as caught, kind().open(made):
        raise first
    assert (caught.value.hint, caught.value.log) == ("look", "what it printed")
    assert ownership.take_doubt()


def test_an_image_of_a_commit_has_no_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers get the labels of their image."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(_podman, "checked", lambda *words, **_: calls.append(words) or b"")
    made = Stage(root=tmp_path, digest=Sha256("0" * 64), tools={}, scratch=tmp_path, owner="x")
    podman._commit(made, "base")
    (commit,) = (words for words in calls if words[0] == "commit")
    assert "--change=LABEL isobench.owner=" in commit
