"""What was read from large records is kept, and used only where nothing has changed."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from isobench.config import cache
from isobench.storage import kept, records

KNOWN = records.Known(targets=("native", "docker"), workloads=("cpu.sieve",), blocks=(1, 2))
LINE = (
    '{{"kind":"sample","block":{block},"target":"{target}","workload":"cpu.sieve","metric":"{metric}",'
    '"iteration":{iteration},"value":{value},"unit":"{unit}","operations":3,"clock":"guest",'
    '"at":{at},"session":1}}'
)
GAP = (
    '{"kind":"gap","block":2,"target":"docker","workload":"cpu.sieve","cause":"failed",'
    '"detail":"no","hint":"try"}'
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache._check.cache_clear()
    monkeypatch.setattr(kept, "LARGE", 1)
    lines = [
        LINE.format(block=block, target=target, iteration=n, value=10**12 + n, at=n / 4,
                    metric="time", unit="ns")
        for block in (1, 2) for target in ("native", "docker") for n in range(3)
    ]  # fmt: skip
    lines.append(
        LINE.format(block=2, target="native", iteration=0, value=-5, at=9.5, metric="fact.x",
                    unit="ns")
    )  # fmt: skip
    file = tmp_path / "records.jsonl"
    file.write_text("\n".join([*lines, GAP, ""]))
    return file


def read(path: Path, known: records.Known = KNOWN) -> records.Records:
    with path.open("rb") as stream:
        return kept.read(stream, known)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How often lines were decoded."""
    calls: list[Any] = []
    original = records.read

    def counted(*words: Any) -> records.Records:
        calls.append(words)
        return original(*words)

    monkeypatch.setattr(records, "read", counted)
    return calls


def files(tmp_path: Path) -> list[Path]:
    return sorted(one for one in (tmp_path / "cache").rglob("*") if one.is_file())


def test_what_is_kept_is_what_was_read(path: Path, decoded: list[Any]) -> None:
    first, second = read(path), read(path)
    assert len(decoded) == 1
    pd.testing.assert_frame_equal(first.samples, second.samples)
    assert len(first.samples) == 13
    assert (first.gaps, first.leavings) == (second.gaps, second.leavings)
    assert [gap.detail for gap in second.gaps] == ["no"]
    assert not second.damage.reasons


def test_other_lines_and_other_names_are_read_anew(path: Path, decoded: list[Any]) -> None:
    read(path)
    other = records.Known(targets=("native",), workloads=("cpu.sieve",), blocks=(1, 2))
    assert {*read(path, other).samples["target"]} == {"native"}
    path.write_text(path.read_text().replace('"value":1000000000001,', '"value":7,'))
    assert 7 in {*read(path).samples["value"]}
    assert len(decoded) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "no digest"])
def test_a_kept_file_that_is_damaged_is_not_used(
    damage: str, path: Path, decoded: list[Any], tmp_path: Path
) -> None:
    first = read(path)
    content, digest = files(tmp_path)
    assert digest.suffix == ".sha256"
    data = content.read_bytes()
    if damage == "cut":
        content.write_bytes(data[:-3])
    elif damage == "changed":
        content.write_bytes(data[:-3] + b"abc")
    else:
        digest.unlink()
    pd.testing.assert_frame_equal(first.samples, read(path).samples)
    assert len(decoded) == 2


def test_damaged_records_are_not_kept(path: Path, tmp_path: Path) -> None:
    path.write_text(f"{path.read_text()}nothing\n")
    assert read(path).damage.reasons
    assert not files(tmp_path)


def test_a_file_that_grows_meanwhile_is_not_kept(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = records.read

    def growing(*words: Any) -> records.Records:
        with path.open("a") as file:
            file.write(GAP + "\n")
        return original(*words)

    monkeypatch.setattr(records, "read", growing)
    read(path)
    assert not files(tmp_path)


def swap(path: Path, content: bytes) -> None:
    """Write a file in place and give it the times that it had, as its owner can."""
    seen = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.mark.parametrize("ctime_is_seen", [True, False])
def test_what_is_changed_between_hashing_and_decoding_is_never_kept_for_what_was_there(
    ctime_is_seen: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = path.read_bytes()
    false = true.replace(b'"value":1000000000001,', b'"value":3000000000001,')
    original, state = records.read, kept._state

    def swapped(*words: Any) -> records.Records:
        swap(path, false)
        return original(*words)

    if not ctime_is_seen:  # as where two changes come within one tick of the clock
        monkeypatch.setattr(kept, "_state", lambda stream: state(stream)[:2])
    monkeypatch.setattr(records, "read", swapped)
    assert 3 * 10**12 + 1 in {*read(path).samples["value"]}
    monkeypatch.setattr(records, "read", original)
    swap(path, true)
    assert {*read(path).samples["value"]} == {-5, *range(10**12, 10**12 + 3)}


def test_without_a_cache_the_records_are_read(path: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert len(read(path).samples) == 13


def test_what_was_not_used_longest_makes_room(
    path: Path, decoded: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read(path)
    size = files(tmp_path)[0].stat().st_size
    monkeypatch.setattr(kept, "MOST", 2 * size + 10)
    texts = [path.read_text()]
    for value in (7, 8):
        texts.append(texts[0].replace('"value":1000000000001,', f'"value":{value},'))
        path.write_text(texts[-1])
        read(path)
    assert len(files(tmp_path)) == 4
    before = len(decoded)
    path.write_text(texts[2])
    read(path)
    assert len(decoded) == before
    path.write_text(texts[0])
    read(path)
    assert len(decoded) == before + 1


def test_a_small_file_is_not_kept(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LARGE", 1 << 20)
    read(path)
    assert not files(tmp_path)
