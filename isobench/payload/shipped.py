"""The programs that came with isobench, built with its wheel: which there are, and whether one is
what would be built now.

`ABI/PROGRAM` lies beside `manifest.json`, which says what each was made of and what its hash is. A
program is used only while both hold: a checkout whose sources have changed does not run what was
built of the old ones, and a damaged file is never executed.
"""

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isobench.config import cache, paths
from isobench.model import Abi, Payload
from isobench.model.units import Sha256
from isobench.payload import compiler

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
"""The number in the manifest; another one is a manifest that this isobench cannot read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What the manifest says of one program."""

    program: str
    abi: Abi
    sha256: Sha256
    """Of the program itself."""
    inputs: Sha256
    """Of what it was made of: see `compiler.inputs`."""
    source: Sha256
    """Of its payload.c alone, for readers of the manifest."""
    compiler: str
    flags: tuple[str, ...]


def written(entries: list[Shipped], headers: Mapping[str, str]) -> str:
    """Return the text of a manifest; `headers` are the hashes of what every payload may include."""
    rows = [
        {
            "program": entry.program,
            "abi": entry.abi.value,
            "sha256": entry.sha256,
            "inputs": entry.inputs,
            "source": entry.source,
            "compiler": entry.compiler,
            "flags": list(entry.flags),
        }
        for entry in entries
    ]
    return json.dumps({"format": FORMAT, "headers": headers, "payloads": rows}, indent=1) + "\n"


def read(text: str) -> dict[tuple[str, Abi], Shipped]:
    """Return the programs of a manifest; ValueError, KeyError, TypeError where it is none."""
    document: dict[str, Any] = json.loads(text)
    if document["format"] != FORMAT:
        raise ValueError(document["format"])
    entries = [
        Shipped(
            program=str(row["program"]),
            abi=Abi(row["abi"]),
            sha256=Sha256(row["sha256"]),
            inputs=Sha256(row["inputs"]),
            source=Sha256(row["source"]),
            compiler=str(row["compiler"]),
            flags=tuple(map(str, row["flags"])),
        )
        for row in document["payloads"]
    ]
    return {(entry.program, entry.abi): entry for entry in entries}


def manifest() -> Mapping[tuple[str, Abi], Shipped]:
    """Return what came with this isobench: nothing where no wheel was installed."""
    folder = paths.payloads()
    return {} if folder is None else _manifest(folder)


@functools.cache
def _manifest(folder: Path) -> Mapping[tuple[str, Abi], Shipped]:
    try:
        return read((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def obstacle(program: str, source: Path, abi: Abi, *, libc: bool) -> str:
    """Return why a payload must be compiled; empty where the one that came can be used."""
    entry = manifest().get((program, abi))
    if entry is None and source.is_relative_to(paths.shared("workloads")):
        return f"none came with isobench, which is not installed here as a whole ({source})"
    if entry is None:
        return f"it is C source of your own ({source})"
    if entry.inputs != compiler.inputs(source, abi, libc=libc):
        return f"its sources have changed since isobench was installed ({source})"
    if _content(entry) is None:
        return (
            f"the one that came with isobench is damaged: install isobench again ({_place(entry)})"
        )
    return ""


def take(program: str, source: Path, abi: Abi, *, libc: bool) -> Payload | None:
    """Return a program that came with isobench; None where it must be compiled."""
    entry = manifest().get((program, abi))
    if entry is None or entry.inputs != compiler.inputs(source, abi, libc=libc):
        return None
    path = _kept(entry)
    if path is None:
        return None
    return Payload(
        program=program,
        abi=abi,
        path=path,
        sha256=entry.sha256,
        compiler=entry.compiler,
        flags=entry.flags,
    )


def _place(entry: Shipped) -> Path:
    folder = paths.payloads()
    assert folder is not None
    return folder / entry.abi / entry.program


def _content(entry: Shipped) -> bytes | None:
    """Return a program that came with isobench; None where it is not what it was."""
    # pip, uv and others may have linked an installed file from a store.
    return cache.content(_place(entry).resolve(), entry.sha256)


def _kept(entry: Shipped) -> Path | None:
    """Return the program's copy in the cache, made where there is none.

    A wheel's files may come without the right to be executed, and lie where another user may not
    go, or on a file system of its own: programs always run from the cache.
    """
    kept = cache.made("payloads") / f"{entry.sha256[:32]}-{entry.program}"
    if cache.content(kept, entry.sha256) is not None and os.access(kept, os.X_OK):
        return kept
    content = _content(entry)
    if content is None:
        return None
    cache.replace(kept, content, mode=0o755)
    return kept
