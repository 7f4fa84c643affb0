"""Stages on disk, and that nothing of them stays."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from isobench.model import Abi, Command, Payload, Stage
from isobench.model.units import Sha256
from isobench.payload import build, stage
from isobench.plugins import ownership

X86, ARM = Abi.ELF_X86_64, Abi.ELF_AARCH64
DEAD = "isobench-{machine}-999999999-1-abcd"


def payload(folder: Path, program: str, abi: Abi = X86, content: bytes = b"program") -> Payload:
    path = folder / f"{abi}-{program}"
    path.write_bytes(content)
    digest = Sha256(hashlib.sha256(content).hexdigest())
    return Payload(program=program, abi=abi, path=path, sha256=digest, compiler="", flags=())


@pytest.fixture
def payloads(tmp_path: Path) -> Sequence[Payload]:
    return (
        payload(tmp_path, "cpu.sieve"),
        payload(tmp_path, "_evidence", content=b"evidence"),
        payload(tmp_path, "cpu.sieve", ARM, b"arm"),
        *(payload(tmp_path, tool, content=tool.encode()) for tool in build.TOOLS),
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "isobench"


def made(shop: stage.Workshop, abi: Abi = X86) -> Stage:
    return shop.stage(abi)


def test_a_root_holds_the_payloads_of_its_isa_and_empty_mount_points(
    payloads: Sequence[Payload],
) -> None:
    with stage.workshop(payloads) as shop:
        root = made(shop).root
        assert {p.name for p in (root / "isobench").iterdir()} == {"cpu.sieve", "_evidence"}
        assert (root / "isobench" / "cpu.sieve").read_bytes() == b"program"
        assert (root / "isobench" / "cpu.sieve").stat().st_mode & 0o777 == 0o755
        for name in stage.MOUNT_POINTS:
            assert list((root / name).iterdir()) == []
        assert (made(shop, ARM).root / "isobench" / "cpu.sieve").read_bytes() == b"arm"


def test_a_launcher_is_a_tool_of_the_host_and_in_no_root(payloads: Sequence[Payload]) -> None:
    with stage.workshop(payloads) as shop:
        one = made(shop)
        for tool in build.TOOLS:
            assert one.tools[tool].read_bytes() == tool.encode()
            assert not (one.root / "isobench" / tool).exists()


def test_a_stage_belongs_to_this_process(payloads: Sequence[Payload]) -> None:
    with stage.workshop(payloads) as shop:
        assert made(shop).owner == ownership.mine()


def test_a_command_names_the_scratch_directory_as_it_is_seen_inside() -> None:
    command = Command(argv=("cpu.sieve",), environment={"ISOBENCH": "1"})
    assert command.environ("/scratch") == {"ISOBENCH": "1", "ISOBENCH_SCRATCH": "/scratch"}


def test_a_digest_depends_on_content_and_not_on_order(payloads: Sequence[Payload]) -> None:
    mine = [p for p in payloads if p.abi is X86]
    assert stage.digest(mine) == stage.digest(mine[::-1])
    assert stage.digest(mine) != stage.digest(mine[1:])
    with stage.workshop(payloads) as shop:
        assert made(shop).digest == stage.digest(shop.payloads(X86)) != made(shop, ARM).digest


def test_the_folder_of_a_run_is_gone_afterwards_even_after_an_error(
    payloads: Sequence[Payload], own_cache: Path
) -> None:
    class BoomError(Exception):
        pass

    def fail() -> None:
        with stage.workshop(payloads) as shop:
            (shop.scratch / "left").write_text("over")
            assert made(shop).root.is_relative_to(own_cache)
            raise BoomError

    with pytest.raises(BoomError):
        fail()
    assert list((own_cache / "runs").iterdir()) == []


def test_a_fresh_root_is_alike_and_has_never_been_used(payloads: Sequence[Payload]) -> None:
    with stage.workshop(payloads) as shop:
        one = made(shop)
        roots = []
        for _ in range(2):
            with shop.fresh(one, X86) as fresh:
                roots.append(fresh.root)
                assert (fresh.root / "isobench" / "cpu.sieve").is_file()
                assert fresh.digest == one.digest
        assert len({one.root, *roots}) == 3
        assert not any(root.exists() for root in roots)
        assert one.root.exists()


def test_the_canary_lies_on_the_host_and_in_no_root(payloads: Sequence[Payload]) -> None:
    with stage.workshop(payloads) as shop:
        assert shop.canary.is_file()
        assert not shop.canary.is_relative_to(made(shop).root)


def test_others_may_pass_through_the_folder_and_not_look(payloads: Sequence[Payload]) -> None:
    with stage.workshop(payloads) as shop:
        assert shop.scratch.parent.stat().st_mode & 0o777 == 0o711
        assert shop.scratch.stat().st_mode & 0o777 == 0o711


def test_two_runs_have_folders_of_their_own(payloads: Sequence[Payload]) -> None:
    with stage.workshop(payloads) as one, stage.workshop(payloads) as two:
        assert one.scratch != two.scratch


def test_a_sweep_takes_what_the_dead_have_left_and_nothing_of_the_living(
    payloads: Sequence[Payload], own_cache: Path
) -> None:
    machine = ownership.mine().split("-")[1]
    with stage.workshop(payloads) as shop:
        dead = own_cache / "runs" / DEAD.format(machine=machine)
        elsewhere = own_cache / "runs" / DEAD.format(machine="zzzzzz")
        for folder in (dead, elsewhere):
            (folder / "scratch").mkdir(parents=True)
        lines = [*map(str, stage.sweep(ownership.alive))]
        assert lines == [f"folder {dead}"]
        assert not dead.exists()
        assert elsewhere.exists()
        assert shop.scratch.exists()


def test_a_sweep_without_any_cache_finds_nothing() -> None:
    assert stage.sweep(ownership.alive) == []


def test_forgetting_removes_the_whole_cache_and_says_how_large_it_was(own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / "big").write_bytes(bytes(2_500_000))
    assert [*map(str, stage.remove_cache())] == [f"folder {own_cache} (2.5 MB)"]
    assert not own_cache.exists()
    assert stage.remove_cache() == []


def test_notes_on_what_is_not_removed_stay_when_the_cache_is_removed(own_cache: Path) -> None:
    notes = [own_cache / "machines" / "x.json", own_cache / "pods" / "y.json"]
    others = [own_cache / "machines" / "x.lock", own_cache / "payloads" / "p", own_cache / "log"]
    for path in (*notes, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (found,) = stage.remove_cache()
    assert (found.what, found.failure) == (f"folder {own_cache} (0.0 MB)", "")
    assert sorted(path for path in own_cache.rglob("*") if path.is_file()) == sorted(notes)
    assert stage.remove_cache() == []


def test_a_sweep_takes_what_was_being_built_by_the_dead(own_cache: Path) -> None:
    machine = ownership.mine().split("-")[1]
    dead = own_cache / "payloads" / DEAD.format(machine=machine)
    living = own_cache / "payloads" / f"{ownership.mine()}-build-abcd"
    for folder in (dead, living):
        folder.mkdir(parents=True)
    assert [*map(str, stage.sweep(ownership.alive))] == [f"folder {dead}"]
    assert living.exists()


def test_half_of_a_root_is_removed_where_a_disk_is_full(
    payloads: Sequence[Payload], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with stage.workshop(payloads) as shop:
        one = made(shop)
        monkeypatch.setattr(stage.cache, "replace", full)
        with pytest.raises(OSError, match="No space"), shop.fresh(one, X86):
            pytest.fail("it was made")
        assert [*one.root.parent.glob("root-*")] == [one.root]


@pytest.mark.parametrize("place", ["payloads", "gvisor", "runs"])
def test_a_cache_that_a_living_process_uses_is_not_removed(place: str, own_cache: Path) -> None:
    machine = ownership.mine().split("-")[1]
    dead = own_cache / place / DEAD.format(machine=machine)
    living = own_cache / place / f"{ownership.mine()}-build-abcd"
    for folder in (dead, living):
        folder.mkdir(parents=True)
    (found,) = stage.remove_cache()
    assert found.failure == f"another isobench is using it ({living.name})"
    assert living.exists()
    living.rmdir()
    (found,) = stage.remove_cache()
    assert not found.failure
    assert not own_cache.exists()


def test_a_run_keeps_the_cache_before_it_has_its_workshop(own_cache: Path) -> None:
    @stage.cache_in_use()
    def run() -> list[str]:
        return [left.failure for left in stage.remove_cache()]

    for _ in range(2):
        (failure,) = run()
        assert "is using it" in failure
    (found,) = stage.remove_cache()
    assert not found.failure
