"""Which found files are obeyed, and when the commands in a configuration run."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.config import file, redaction, trust
from isobench.model import Lack, Unavailable
from isobench.model.errors import UsageError
from isobench.plugins.registry import Registry
from isobench.plugins.untried import UntriedTarget
from tests.unit.command import Done

Run = Callable[..., Done]
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder below another one, with no configuration anywhere."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ISOBENCH_CONFIG", raising=False)
    inner = tmp_path / "work" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return inner


def give_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def why(path: Path) -> str:
    content = trust.read(path)
    assert content is not None
    assert content.distrust == trust.distrust(path)
    return content.distrust


def test_a_file_of_the_callers_own_is_trusted(work: Path) -> None:
    (work / "file").write_text("x")
    assert trust.read(work / "file") == trust.Content(data=b"x", distrust="")


@as_root
def test_a_file_of_another_user_is_not_trusted(work: Path) -> None:
    (work / "file").write_text("x")
    give_away(work / "file")
    assert why(work / "file") == f"it belongs to {pwd.getpwuid(NOBODY).pw_name}"


@as_root
def test_a_file_in_the_folder_of_another_user_is_not_trusted(work: Path) -> None:
    (work / "file").write_text("x")
    give_away(work.parent)
    assert why(work / "file").startswith(f"{work.parent}: it belongs to ")


def test_a_file_that_everyone_may_write_is_not_trusted(work: Path) -> None:
    (work / "file").write_text("x")
    (work / "file").chmod(0o646)
    assert why(work / "file") == "everyone may write it"


def test_a_file_in_a_folder_that_everyone_may_write_is_not_trusted(work: Path) -> None:
    (work / "file").write_text("x")
    work.chmod(0o777)
    assert why(work / "file") == f"{work}: everyone may write it"


def test_a_sticky_folder_is_trusted_with_what_is_the_callers_own(work: Path) -> None:
    (work / "file").write_text("x")
    work.chmod(0o1777)
    assert why(work / "file") == ""


@as_root
def test_a_sticky_folder_of_another_user_is_not_trusted(work: Path) -> None:
    (work / "file").write_text("x")
    work.chmod(0o1777)
    give_away(work)
    assert "it belongs to" in why(work / "file")


@as_root
def test_a_group_may_write_where_the_caller_is_its_only_member(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "file").write_text("x")
    (work / "file").chmod(0o664)
    assert why(work / "file") == ""  # root's own group

    alone = pwd.getpwnam("root")
    other = pwd.struct_passwd(("other", "x", 4711, 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [alone, other])
    assert why(work / "file") == "the group root may write it"


@as_root
def test_a_group_without_a_name_may_not_write(work: Path) -> None:
    (work / "file").write_text("x")
    os.chown(work / "file", 0, 4_000_000)
    (work / "file").chmod(0o664)
    assert why(work / "file") == "the group 4000000 may write it"


def test_a_link_is_trusted_where_it_and_what_it_leads_to_are(work: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (work / "to-folder").symlink_to("../../kept")
    (work / "link").symlink_to("to-folder/file")
    assert why(work / "link") == ""
    (tmp_path / "kept").chmod(0o777)
    assert why(work / "link") == f"{tmp_path / 'kept'}: everyone may write it"


@as_root
def test_a_link_of_another_user_to_a_file_of_roots_is_not_trusted(work: Path) -> None:
    (work / "file").write_text("x")
    (work / "link").symlink_to("file")
    give_away(work / "link")
    assert "it belongs to" in why(work / "link")


@as_root
def test_a_link_through_a_folder_of_another_user_is_not_trusted(work: Path, tmp_path: Path) -> None:
    (work / "file").write_text("x")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "hop").symlink_to(work)
    give_away(tmp_path / "theirs")
    (work / "link").symlink_to(tmp_path / "theirs" / "hop" / "file")
    assert why(work / "link").startswith(f"{tmp_path / 'theirs'}: it belongs to")


def test_a_file_that_is_exchanged_after_it_was_opened_is_not_trusted(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "file").write_text("first")
    opened = os.open

    def exchanging(path: Any, flags: int, *more: Any, **named: Any) -> int:
        descriptor = opened(path, flags, *more, **named)
        if path == work / "file":
            (work / "file").rename(work / "gone")
            (work / "file").write_text("second")
        return descriptor

    monkeypatch.setattr(os, "open", exchanging)
    content = trust.read(work / "file")
    assert content == trust.Content(
        data=b"first", distrust="it was replaced while isobench read it"
    )


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "circle"])
def test_what_is_no_file_is_passed_by_without_waiting(kind: str, work: Path) -> None:
    path = work / "isobench.toml"
    {
        "missing": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "circle": lambda: path.symlink_to(path),
    }[kind]()
    assert trust.read(path) is None


# ---- the configuration


@as_root
@pytest.mark.parametrize("name", ["isobench.toml", "pyproject.toml"])
def test_a_configuration_of_another_user_is_passed_over_for_the_next_one(
    name: str, work: Path
) -> None:
    table = "run" if name == "isobench.toml" else "tool.isobench.run"
    (work / name).write_text(f"[{table}]\nseed = 1\n")
    give_away(work / name)
    (work.parent / "isobench.toml").write_text("[run]\nseed = 2\n")
    found = file.find(environment={})
    assert found.settings.run.seed == 2
    assert [one.path for one in found.ignored] == [work / name]


@as_root
def test_the_users_own_file_is_obeyed_only_where_it_is_his_own(work: Path, tmp_path: Path) -> None:
    own = tmp_path / "home" / "isobench" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[run]\nseed = 3\n")
    assert file.find(environment={}).settings.run.seed == 3
    give_away(own.parent)
    found = file.find(environment={})
    assert found.settings == file.Settings()
    assert [one.path for one in found.ignored] == [own]
    assert work.is_dir()


@as_root
def test_a_broken_file_of_another_user_ends_nothing(work: Path) -> None:
    (work / "isobench.toml").write_text("[run\n")
    give_away(work / "isobench.toml")
    assert file.find(environment={}).settings == file.Settings()


@as_root
def test_a_project_of_another_user_that_does_not_speak_of_isobench_is_no_news(work: Path) -> None:
    (work / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    give_away(work / "pyproject.toml")
    assert file.find(environment={}).ignored == ()


@as_root
@pytest.mark.parametrize("way", ["flag", "environment"])
def test_a_file_that_is_named_is_obeyed_whoever_owns_it(way: str, work: Path) -> None:
    path = work / "theirs.toml"
    path.write_text("[run]\nseed = 4\n")
    give_away(path)
    if way == "flag":
        found = file.find(path, environment={})
    else:
        found = file.find(environment={"ISOBENCH_CONFIG": str(path)})
    assert (found.settings.run.seed, found.named, found.ignored) == (4, True, ())


# ---- commands in it


def machine(witness: Path) -> str:
    return f"""
        [targets.trap]
        kind = "ssh"
        host = "trap.invalid"
        status = "sh -c 'touch {witness}; exit 1'"
        start = "true"
        stop = "true"
        """


@as_root
def test_a_file_of_nobody_above_this_folder_runs_nothing_and_is_named(
    work: Path, tmp_path: Path, isobench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    planted = work.parent / "isobench.toml"
    planted.write_text(machine(tmp_path / "executed"))
    give_away(planted)
    done = isobench("doctor", "native")
    assert not (tmp_path / "executed").exists()
    assert f"{planted} is ignored: it belongs to" in done.words
    assert f"--config {planted}" in done.words
    assert "trap" not in done.out

    done = isobench("doctor", "trap")
    assert done.code == 2
    assert not (tmp_path / "executed").exists()

    isobench("doctor", "trap", "--config", planted)
    assert (tmp_path / "executed").exists()


@as_root
def test_redact_leaves_out_the_name_of_another_user(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redaction.leave_out_names()
    account = pwd.getpwuid(os.geteuid())
    other = pwd.struct_passwd(("marguerite", *account[1:]))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: other)
    (work / "isobench.toml").write_text("")
    give_away(work / "isobench.toml")
    (found,) = file.find(environment={}).ignored
    assert redaction.text(found.reason) == "it belongs to ***"


def probed(registry: Registry, name: str) -> Unavailable:
    answer = registry.get(name).probe()
    assert isinstance(answer, Unavailable)
    return answer


def test_commands_of_a_found_file_run_only_for_a_target_that_is_named(
    work: Path, tmp_path: Path, isobench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    (work / "isobench.toml").write_text(machine(tmp_path / "executed"))
    asked: list[str] = []
    everything = Registry.names

    def few(self: Registry) -> Any:
        return [name for name in everything(self) if name in ("native", "trap")]

    monkeypatch.setattr(Registry, "names", few)
    for command in (["targets"], ["doctor"], ["prepare"], ["run", "--dry-run"], ["clean"]):
        done = isobench(*command)
        assert done.code == 0, done
        assert not (tmp_path / "executed").exists(), command
        asked += [done.words] if "trap" in done.words else []
    for words in asked:
        what = "isobench.toml says what to start or use for it (host, status, start, stop)"
        assert f"not tried: {what}" in words
        assert "isobench doctor trap" in words
    assert len(asked) == 3

    isobench("doctor", "trap")
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("targets", "--config", "isobench.toml"),
        ("run", "--dry-run", "--targets", "trap"),
        ("run", "--dry-run", "--require", "trap"),
    ],
)
def test_commands_run_for_a_file_or_a_target_that_is_named(
    command: tuple[str, ...],
    work: Path,
    tmp_path: Path,
    isobench: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(work)
    (work / "isobench.toml").write_text(machine(tmp_path / "executed"))
    everything = Registry.names
    monkeypatch.setattr(
        Registry, "names", lambda s: [n for n in everything(s) if n in ("native", "trap")]
    )
    isobench(*command)
    assert (tmp_path / "executed").exists()


COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("ssh", {"host": "x", "tool": "virsh -c x", "preset": "libvirt", "machine": "m"}),
    ("ssh", {"host": "x", "preset": "libvirt", "machine": "m"}),
    ("kubernetes", {"load": ["ctr", "import"]}),
    ("kubernetes", {"context": "elsewhere"}),
    ("kubernetes", {"image": "registry.example.com/x", "pull_secret": "s"}),
    ("distrobox", {"image": "debian:12"}),
    ("wine", {"loader": "/opt/wine"}),
    ("wasm", {"engine": "/opt/wasmtime"}),
    ("gvisor", {"program": "/opt/runsc"}),
    ("firejail", {"arguments": ["--output=/x"]}),
    ("uml", {"kernel": "/opt/linux"}),
    ("kvm", {"emulator": "/opt/qemu"}),
    ("kvm", {"kernel": "/opt/linux"}),
    ("qemu", {"initrd": "/opt/archive"}),
    ("qemu", {"arguments": ["-netdev", "tap,script=/x"]}),
    ("podman", {"runtime": "/opt/crun"}),
    ("podman-pod", {"network": "pasta:--pcap,/x"}),
]


@pytest.mark.parametrize(
    ("kind", "options"), COMMANDS, ids=lambda one: one if isinstance(one, str) else "-".join(one)
)
def test_a_configured_program_is_not_executed_without_a_request(
    kind: str, options: dict[str, Any]
) -> None:
    found = Registry({"mine": {"kind": kind, **options}}, trusted=False)
    assert isinstance(found.get("mine"), UntriedTarget)
    answer = probed(found, "mine")
    assert (answer.lack, "isobench doctor mine" in answer.hint) == (Lack.UNTRIED, True)
    found.permit(["mine"])
    assert not isinstance(found.get("mine"), UntriedTarget)
    trusted = Registry({"mine": {"kind": kind, **options}})
    assert not isinstance(trusted.get("mine"), UntriedTarget)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ssh", {"port": 2222}),
        ("docker", {"runtime": "runsc", "memory": "1g"}),
        ("podman", {"runtime": "runsc", "network": "slirp4netns"}),
        ("kvm", {"vcpus": 2, "emulator": ""}),
        ("qemu", {"machine": "pc", "cpu": "max"}),
        ("kubernetes", {"cpu": "2"}),
        ("namespaces", {"pids": 64}),
    ],
)
def test_an_option_that_is_no_command_holds_nothing_back(
    kind: str, options: dict[str, Any]
) -> None:
    found = Registry({"mine": {"kind": kind, **options}}, trusted=False)
    assert not isinstance(found.get("mine"), UntriedTarget)


def test_a_changed_registry_keeps_what_the_user_has_named() -> None:
    options = {"kind": "uml", "kernel": "/opt/linux"}
    found = Registry({"one": options, "two": options}, trusted=False)
    found.permit(["one"])
    changed = found.with_tables({"three": {"kind": "native"}})
    assert not isinstance(changed.get("one"), UntriedTarget)
    assert isinstance(changed.get("two"), UntriedTarget)


@as_root
def test_commands_of_a_resumed_run_that_another_user_may_have_written_do_not_run(
    synthetic: Callable[..., Path], isobench: Run, somewhere: Path
) -> None:
    tables = {"trap": {"kind": "uml", "kernel": "/opt/linux"}}
    about = {"config": {"targets": tables}, "interrupted": True}
    run = synthetic({("trap", "cpu.sieve"): 1.0}, about=about)
    give_away(run / "run.json")
    done = isobench("run", "--resume", run, "--budget", "5m")
    assert done.code == 2
    assert "has commands for trap and is not trusted: it belongs to" in done.words
    assert "--config FILE" in done.words
    assert somewhere.is_dir()


def test_an_unreadable_file_of_the_callers_own_is_still_a_mistake(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "isobench.toml").write_text("")

    def refuse(path: Path, *_: Any) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        file.find(environment={})
