"""Files that begin like a kernel."""

import struct
from pathlib import Path

import pytest

from isobench.model import Lack, Unavailable
from isobench.plugins.registry import Registry
from isobench.targets.machines import _image


def elf(code: int) -> bytes:
    return b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack("<HH", 2, code)


BZ_IMAGE = bytes(0x202) + b"HdrS" + bytes(64)
IMAGE = bytes(0x38) + b"ARMd" + bytes(64)


@pytest.mark.parametrize(
    ("content", "machines"),
    [
        (BZ_IMAGE, {"x86_64"}),
        (elf(62), {"x86_64"}),
        (elf(3), {"x86_64"}),
        (bytes(4096) + struct.pack("<I", 0x1BADB002), {"x86_64"}),
        (IMAGE, {"aarch64"}),
        (elf(183), {"aarch64"}),
        (b"\x1f\x8b\x08", {"aarch64"}),
        (b"MZ\0\0zimg", {"aarch64"}),
        (b"root:x:0:0:root:/root:/bin/bash\n" * 64, set()),
        (b"", set()),
        (elf(243), set()),
    ],
)
def test_a_kernel_is_recognised_for_its_isa_only(
    content: bytes, machines: set[str], tmp_path: Path
) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(content)
    assert {isa for isa in ("x86_64", "aarch64") if _image.is_kernel(path, isa)} == machines


def test_a_file_that_cannot_be_read_is_no_kernel(tmp_path: Path) -> None:
    assert not _image.is_kernel(tmp_path, "x86_64")
    assert not _image.is_kernel(tmp_path / "nowhere", "x86_64")


@pytest.mark.parametrize("name", ["qemu", "qemu-aarch64"])
def test_a_file_that_is_no_kernel_is_refused_before_anything_starts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "isobench.targets.machines.qemu.shutil.which", lambda *_, **__: "/usr/bin/true"
    )
    target = Registry({name: {"kernel": "/etc/passwd"}}).get(name)
    answer = target.probe()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.RUNTIME
    assert "/etc/passwd is not a kernel that QEMU boots" in answer.what
    assert "set kernel of this target" in answer.hint
