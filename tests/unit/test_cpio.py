"""Archives for kernels, read back by an independent reader."""

import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from isobench.targets.machines import _cpio

FIELDS = (
    *("inode", "mode", "uid", "gid", "links", "time", "size"),
    *("major", "minor", "device_major", "device_minor", "name_size", "checksum"),
)


@dataclass(frozen=True)
class Entry:
    name: str
    numbers: dict[str, int]
    content: bytes


def entries(archive: bytes) -> list[Entry]:
    """Read an archive as the kernel's documentation describes it (buffer-format.rst)."""
    found, at = [], 0
    while at < len(archive):
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        words = [archive[at + 6 + 8 * n : at + 14 + 8 * n] for n in range(len(FIELDS))]
        numbers = dict(zip(FIELDS, (int(word, 16) for word in words), strict=True))
        at += 110
        raw = archive[at : at + numbers["name_size"]]
        assert raw.endswith(b"\0")
        assert b"\0" not in raw[:-1]
        at = -(-(at + len(raw)) // 4) * 4
        content = archive[at : at + numbers["size"]]
        assert len(content) == numbers["size"]
        at += len(content)
        assert set(archive[at : -(-at // 4) * 4]) <= {0}
        at = -(-at // 4) * 4
        found.append(Entry(raw[:-1].decode(), numbers, content))
    return found


def filled(tmp_path: Path) -> bytes:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    archive = _cpio.Archive()
    archive.directory("a")
    archive.directory("a/secret", 0o700)
    for length in range(6):
        archive.file(f"a/{'n' * (length + 1)}", b"x" * length)
    archive.file("é", b"umlaut", 0o600)
    archive.program("init", program)
    archive.device("dev/null", 1, 3)
    return archive.finished()


def test_an_archive_contains_what_was_added(tmp_path: Path) -> None:
    found = entries(filled(tmp_path))
    assert [entry.name for entry in found] == [
        "a", "a/secret", "a/n", "a/nn", "a/nnn", "a/nnnn", "a/nnnnn", "a/nnnnnn", "é", "init",
        "dev/null", "TRAILER!!!",
    ]  # fmt: skip
    by_name = {entry.name: entry for entry in found}
    assert by_name["a/nnnn"].content == b"xxx"
    assert by_name["é"].content == b"umlaut"
    modes = {name: entry.numbers["mode"] for name, entry in by_name.items()}
    assert modes["a"] == stat.S_IFDIR | 0o755
    assert modes["a/secret"] == stat.S_IFDIR | 0o700
    assert modes["a/n"] == stat.S_IFREG | 0o644
    assert modes["é"] == stat.S_IFREG | 0o600
    assert modes["init"] == stat.S_IFREG | 0o755
    assert modes["dev/null"] == stat.S_IFCHR | 0o600
    device = by_name["dev/null"].numbers
    assert (device["device_major"], device["device_minor"]) == (1, 3)


def test_everything_belongs_to_root_and_has_no_time_stamp(tmp_path: Path) -> None:
    for entry in entries(filled(tmp_path)):
        assert (entry.numbers["uid"], entry.numbers["gid"], entry.numbers["time"]) == (0, 0, 0)


def test_no_two_entries_are_the_same_file(tmp_path: Path) -> None:
    """A kernel takes equal numbers for hard links, where the link count is above one."""
    inodes = [entry.numbers["inode"] for entry in entries(filled(tmp_path))]
    assert len(set(inodes)) == len(inodes)


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    assert filled(tmp_path) == filled(tmp_path)


@pytest.mark.parametrize("length", range(9))
def test_archives_can_follow_each_other(length: int) -> None:
    archive = _cpio.Archive()
    archive.file("f", b"x" * length)
    one = archive.finished()
    assert len(one) % 4 == 0
    assert [entry.name for entry in entries(one + one)] == ["f", "TRAILER!!!"] * 2
