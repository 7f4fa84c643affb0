"""Damages run folders and zips of them, each time in another way and the same way for a seed.

    python -m tests.faults.damage 700 0             the seeds from 0 on
    python -m tests.faults.damage --seconds 600     for so long, from the seed of the time on

prints what did not work and was not refused clearly either: tracebacks, hangs, too much memory.

`run` is a small copy of an example run; `damaged` damages a copy of it.
"""

import json
import math
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isobench import api
from isobench.cli._front import cli
from isobench.evidence import host_time
from isobench.model import TURNS
from isobench.model.errors import IsobenchError
from isobench.stats import sequential
from tests import whole

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"
_TARGETS = ("native", "docker", "qemu-user-aarch64", "uml")
_WORKLOADS = ("cpu.sieve", "io.metadata", "startup.cold")
_BLOCKS = 4
_SECONDS = 60
"""The longest that one command may take on a busy machine before it counts as a hang."""
_MEMORY = 3 << 30


def put_in_place_of(path: Path, what: str) -> None:
    """Put something that is no file of a sensible size in the place of a file."""
    path.unlink()
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "sparse":
        with path.open("wb") as file:
            file.truncate(5 << 40)
    else:
        goals = {
            "loop": path.name,
            "device": "/dev/zero",
            "dangling": "none",
            "empty": "/dev/null",
        }
        path.symlink_to(goals[what])


def run(folder: Path, example: str = "2026-11-25-debian12-2cpu") -> Path:
    """Write a small copy of an example run: four blocks, four targets, three workloads."""
    source = EXAMPLES / example
    (folder / "state").mkdir(parents=True)

    def kept(row: dict[str, Any]) -> bool:
        target = row["target"].partition("#")[0]
        return row["block"] <= _BLOCKS and target in _TARGETS and row["workload"] in _WORKLOADS

    rows = [json.loads(line) for line in (source / "records.jsonl").read_text().splitlines()]
    rows = [row for row in rows if kept(row)]
    rows.append(_GAP)
    rows.append(_LEAVING)
    _write_lines(folder / "records.jsonl", rows)
    about = json.loads((source / "run.json").read_text())
    about["targets"] = [one for one in about["targets"] if one["name"] in _TARGETS]
    about["workloads"] = [one for one in about["workloads"] if one["name"] in _WORKLOADS]
    about["variations"] = [{"name": "uml", "base": "docker", "option": "memory", "value": "64MiB"}]
    about["claims"] = [
        {"id": "mine", "quote": "It is.", "kind": "equivalent", "targets": ["docker"]}
    ]
    about["sequential"] = sequential.RULE.name
    _write(folder / "run.json", whole.run(about))
    plan = json.loads((source / "plan.json").read_text())
    plan["work"] = [one for one in plan["work"] if one["workload"] in _WORKLOADS]
    plan["blocks"] = [
        {
            "number": block["number"],
            "sessions": [one for one in block["sessions"] if one.partition("#")[0] in _TARGETS],
            "visits": [visit for visit in block["visits"] if kept(visit)],
        }
        for block in plan["blocks"][:_BLOCKS]
    ]
    plan = whole.plan(plan)
    plan["expensive"] = [one for one in plan["expensive"] if one in _TARGETS]
    plan["blocks_per_session"] = {
        name: blocks for name, blocks in plan["blocks_per_session"].items() if name in _TARGETS
    }
    _write(folder / "plan.json", plan)
    health = (source / "state" / "blocks.jsonl").read_text().splitlines()[:_BLOCKS]
    _write_lines(folder / "state" / "blocks.jsonl", [json.loads(one) | _LOAD for one in health])
    shutil.copy(source / "state" / "host-pre.json", folder / "state")
    for name in _TARGETS:
        state = json.loads((source / "state" / f"{name}-pre.json").read_text())
        _write(folder / "state" / f"{name}-pre.json", whole.state(state))
    return folder


def in_rounds(folder: Path) -> Path:
    """Make a run one whose payloads took turns: with the host's times of their turns."""
    plan = json.loads((folder / "plan.json").read_text())
    _write(folder / "plan.json", {**plan, "schedule": "rounds"})
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    times = Counter(_visit(row) for row in rows if row.get("metric") == "time")
    turns = [
        {**row, "metric": metric, "value": round(row["value"] * factor), "operations": count}
        for row in rows
        if row.get("metric") == "span.host"
        for metric, factor, count in (
            (TURNS, 1.0, times[_visit(row)]),
            (host_time.ONE_LOOP, 0.01, 1),
        )
    ]
    _write_lines(folder / "records.jsonl", sorted([*rows, *turns], key=lambda row: row["block"]))
    return folder


def _visit(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["block"], row["target"], row["workload"]


_LOAD = {"speed_percent": 100.0, "run_queue": 0.0, "own_cpu_percent": None}
_GAP = {
    "kind": "gap", "block": 4, "target": "uml", "workload": "io.metadata", "cause": "failed",
    "detail": "it broke", "hint": "",
}  # fmt: skip
_LEAVING = {
    "kind": "leaving", "block": 4, "target": "docker", "workload": "cpu.sieve", "share": 0.5
}  # fmt: skip


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))


def _write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


# ---- values and places ---------------------------------------------------------------------------

_RAW = "\0raw\0"
"""Marks a text that is to stand in the file as it is, since Python's json does not write it."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -5, 0.5, -0.5, 1e308, 5e-324, 1 << 31, 1 << 53, (1 << 62) + 1,
    (1 << 63) - 1, -(1 << 63), 1 << 63, 1 << 64, 10**40, "", " ", "x", "native", "native#2",
    "native#docker", "docker", "cpu.sieve", "cpu.nothing", "time", "#", "\n", "x" * 200_000,
    "\x1b]0;title\x07\x1b[2J", "\u202egnp.exe", "\u0000", "<script>alert(1)</script>", "5%", "-1",
    "2026-13-45T99:99:99Z", "ns", "ops/s", "guest", "unavailable", [], {}, [[]], [None], {"": None},
    ["native"], {"native": "native"}, {"kind": "sample"}, [1, 2, 3], [2.0, 1.0], [0, 0],
    _RAW + "1e400", _RAW + "-1e400", _RAW + "NaN", _RAW + "Infinity", _RAW + "1" + "0" * 400,
    _RAW + '"\\ud800"', _RAW + "[" * 5000 + "]" * 5000, _RAW + '{"a":' * 2000 + "1" + "}" * 2000,
)  # fmt: skip
GARBAGE = (
    b"garbage", b"{", b"}", b"[]", b"null", b"7", b'""', b"\xff\xfe\x00", b"\x00" * 50, b"{}",
    b'{"kind":"sample"}', b'{"kind":"gap","block":1,"target":"docker","workload":"cpu.sieve"}',
    b'{"kind":"later","block":1,"target":"docker","workload":"cpu.sieve"}', b"[" * 100_000,
    b'{"kind":"sample","block":9999999,"target":"docker","workload":"cpu.sieve","metric":"time"}',
    b"x" * 3_000_000, b"", b"   ", b"\r",
)  # fmt: skip


KEY = re.compile(rb'"[a-z_]+":')
"""A key in a line of JSON."""


def flipped(key: bytes) -> bytes:
    """Return a key as a flipped bit may leave it: the name of nothing."""
    return key[:1] + bytes([key[1] ^ 16]) + key[2:]


def _places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield every place in a JSON document."""
    yield path
    children = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    for key, child in children:
        yield from _places(child, (*path, key))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _kind_of_place(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return a place without the numbers of entries: all visits of a plan are of one kind."""
    return tuple("*" if isinstance(key, int) else key for key in path)


def kinds_of_places(document: Any) -> list[tuple[str | int, ...]]:
    """Return the first place of each kind in a JSON document, but for the document itself."""
    found: dict[tuple[str, ...], tuple[str | int, ...]] = {}
    for place in _places(document):
        found.setdefault(_kind_of_place(place), place)
    return [*found.values()][1:]


FREE = frozenset(("host", "config", "claims", "starts", "blocks_per_session"))
"""Tables whose keys are no keys of isobench's; `workloads` of a state is another."""


def _chosen_place(
    document: Any, rng: random.Random, only: type | tuple[type, ...] = object
) -> tuple[str | int, ...]:
    """Return a place of a document; each kind of place is as likely as all others."""
    kinds: dict[tuple[str, ...], list[tuple[str | int, ...]]] = {}
    for place in _places(document):
        if isinstance(_at(document, place), only):
            kinds.setdefault(_kind_of_place(place), []).append(place)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def _similar(value: Any, document: Any, rng: random.Random) -> Any:
    """Return another value of the same type: it passes a check of types alone."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        by = rng.choice((0, -1, 0.001, 3, 1000, 1e9, 1e15))
        made = value * by if value else by
        return int(made) if isinstance(value, int) else made
    if isinstance(value, str):
        values = (_at(document, place) for place in _places(document))
        return rng.choice(sorted({one for one in values if isinstance(one, str)}))
    if isinstance(value, list):
        return rng.choice(([], value[:1], value[1:], value[::-1], value * 2))
    if isinstance(value, dict) and value:
        return dict(rng.sample(sorted(value.items(), key=str), rng.randrange(len(value))))
    return rng.choice(VALUES)


def _replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    inner = _replaced(value[path[0]], path[1:], new)
    if isinstance(value, dict):
        return {**value, path[0]: inner}
    return [inner if at == path[0] else each for at, each in enumerate(value)]


def without(value: Any, path: tuple[str | int, ...]) -> Any:
    if len(path) > 1:
        return _replaced(value, path[:1], without(value[path[0]], path[1:]))
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if key != path[0]}
    return [each for at, each in enumerate(value) if at != path[0]]


def _text(value: Any) -> str:
    """Return JSON in which the marked texts stand as they are."""
    text = json.dumps(value)
    marker = json.dumps(_RAW)[1:-1]
    for one in VALUES:
        if isinstance(one, str) and one.startswith(_RAW):
            text = text.replace(json.dumps(one), one.removeprefix(_RAW))
    assert marker not in text
    return text


# ---- damage --------------------------------------------------------------------------------------


@dataclass
class Damager:
    """Damages one copy of a run; every choice is by `rng`."""

    folder: Path
    rng: random.Random

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _file(self, pattern: str = "*") -> Path:
        chosen = [path for path in self.files() if path.match(pattern)]
        # run.json, plan.json and the records hold most of what is read: half of all damage.
        main = [path for path in chosen if path.parent == self.folder]
        return self.rng.choice(main if main and self.rng.random() < 0.5 else chosen)

    def _lines(self) -> Path:
        name = self.rng.choice(("records.jsonl", "records.jsonl", "state/blocks.jsonl"))
        return self.folder / name

    def flip_bits(self) -> str:
        path = self._file()
        data = bytearray(path.read_bytes())
        for _ in range(self.rng.choice((1, 1, 1, 2, 8, 64))):
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        path.write_bytes(data)
        return path.name

    def cut(self) -> str:
        path = self._file()
        data = path.read_bytes()
        at = self.rng.choice((0, 1, self.rng.randrange(len(data))))
        path.write_bytes(data[:at])
        return f"{path.name} at {at}"

    def delete(self) -> str:
        path = self._file()
        path.unlink()
        return path.name

    def swap(self) -> str:
        """Put another value in a place of a document."""
        path = self._file("*.json")
        document = json.loads(path.read_text())
        shown = []
        for _ in range(self.rng.choice((1, 1, 1, 3))):
            place = _chosen_place(document, self.rng)
            is_similar = self.rng.random() < 0.5
            old = _at(document, place)
            new = _similar(old, document, self.rng) if is_similar else self.rng.choice(VALUES)
            document = _replaced(document, place, new)
            shown.append(f"{place}={str(new)[:40]!r}")
        path.write_text(_text(document))
        return f"{path.name} {' '.join(shown)}"

    def remove_key(self) -> str:
        path = self._file("*.json")
        document = json.loads(path.read_text())
        place = _chosen_place(document, self.rng) or (next(iter(document)),)
        path.write_text(json.dumps(without(document, place)))
        return f"{path.name} {place}"

    def repeat_entry(self) -> str:
        """Repeat an entry of a list, such as a target, a workload or a block."""
        path = self._file("*.json")
        document = json.loads(path.read_text())
        if not any(isinstance(_at(document, place), list) for place in _places(document)):
            return self.swap()
        place = _chosen_place(document, self.rng, list)
        value = _at(document, place)
        more = [*value, *(self.rng.choice(value) for _ in value[:1])]
        path.write_text(json.dumps(_replaced(document, place, more)))
        return f"{path.name} {place}"

    def swap_in_line(self) -> str:
        path = self._lines()
        lines = path.read_text().splitlines()
        shown = []
        for _ in range(self.rng.choice((1, 1, 2, 5))):
            at = self.rng.randrange(len(lines))
            row = json.loads(lines[at])
            if not isinstance(row, dict) or not row:
                continue
            key = self.rng.choice([*row])
            is_similar = self.rng.random() < 0.5
            new = _similar(row[key], row, self.rng) if is_similar else self.rng.choice(VALUES)
            if isinstance(new, str) and new.startswith(_RAW):
                row[key] = new
                lines[at] = _text(row)
                break
            lines[at] = json.dumps({**row, key: new})
            shown.append(f"{at + 1}:{key}={str(new)[:40]!r}")
        path.write_text("".join(line + "\n" for line in lines))
        return f"{path.name} {' '.join(shown)}"

    def key_in_line(self) -> str:
        """Flip a bit of a key of a line."""
        path = self._lines()
        lines = path.read_bytes().split(b"\n")
        at = self.rng.randrange(len(lines) - 1)
        key = self.rng.choice(KEY.findall(lines[at]))
        lines[at] = lines[at].replace(key, flipped(key))
        path.write_bytes(b"\n".join(lines))
        return f"{path.name}:{at + 1} {key!r}"

    def rename(self) -> str:
        """Give another value to a field in all lines that have one value of it."""
        path = self.folder / "records.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        key = self.rng.choice(("target", "workload", "metric", "unit", "clock", "block", "value"))
        old = self.rng.choice([row[key] for row in rows if key in row])
        new = self.rng.choice([each for each in VALUES if isinstance(each, str | int | float)])
        if isinstance(new, str) and new.startswith(_RAW):
            new = "x"
        _write_lines(path, [{**row, key: new} if row.get(key) == old else row for row in rows])
        return f"{key} {old!r} -> {str(new)[:40]!r}"

    def scale(self) -> str:
        """Give all values of a target, or of a block, another magnitude."""
        path = self.folder / "records.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        key = self.rng.choice(("target", "workload", "block", "metric", "kind"))
        name = self.rng.choice(("value", "value", "operations", "at", "session", "iteration"))
        old = self.rng.choice([row[key] for row in rows if key in row])
        factor = self.rng.choice((0, -1, 10, 1000, 10**6, 10**9, 10**12, 10**17))
        wild = self.rng.random() < 0.3
        for row in rows:
            if row.get(key) == old and name in row:
                by = self.rng.choice((0, 1, 10**6, 10**12)) if wild else factor
                row[name] = min(int(row[name] * by), (1 << 62) - 1)
        _write_lines(path, rows)
        return f"{name} of {key} {old} by {'any' if wild else factor}"

    def lines(self) -> str:
        path = self._lines()
        lines = path.read_bytes().splitlines(keepends=True)
        what = self.rng.choice(("garbage", "repeat", "swap", "drop", "shuffle", "block", "join"))
        at = self.rng.randrange(len(lines))
        if what == "garbage":
            for _ in range(self.rng.choice((1, 1, 3))):
                lines.insert(self.rng.randrange(len(lines) + 1), self.rng.choice(GARBAGE) + b"\n")
        elif what == "repeat":
            lines[at:at] = lines[at : at + self.rng.choice((1, 5))]
        elif what == "swap":
            other = self.rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif what == "drop":
            del lines[at : at + self.rng.choice((1, 3, 200))]
        elif what == "shuffle":
            self.rng.shuffle(lines)
        elif what == "join":
            lines[at] = lines[at].rstrip(b"\n")
        else:
            lines = [line for line in lines if b'"block":2,' not in line]
        path.write_bytes(b"".join(lines))
        return f"{path.name} {what} {at + 1}"

    def kind_of_file(self) -> str:
        path = self._file()
        what = self.rng.choice(
            ("directory", "fifo", "loop", "device", "empty", "dangling", "sparse")
        )
        put_in_place_of(path, what)
        return f"{path.name} {what}"

    def foreign_state(self) -> str:
        """Add the state of a target that the run does not name."""
        source = self.rng.choice([p for p in self.files() if p.name.endswith("-pre.json")])
        name = self.rng.choice(("stranger", "native#2", "\x1b[2J", "x" * 100, "cpu.sieve"))
        shutil.copy(source, source.with_name(f"{name}-pre.json"))
        return name

    def folder_damage(self) -> str:
        kinds: tuple[Callable[[], str], ...] = (
            self.flip_bits, self.flip_bits, self.cut, self.delete, self.swap, self.swap, self.swap,
            self.swap, self.remove_key, self.repeat_entry, self.swap_in_line, self.swap_in_line,
            self.key_in_line, self.rename, self.rename, self.scale, self.scale, self.lines,
            self.lines, self.kind_of_file, self.foreign_state,
        )  # fmt: skip
        chosen = self.rng.choice(kinds)
        return f"{chosen.__name__}: {chosen()}"

    # ---- zips

    def zip(self) -> tuple[Path, str]:
        """Return a damaged zip of the run."""
        archive = self.folder.with_suffix(".zip")
        what = self.rng.choice(
            ("flips", "flips", "flips", "cut", "encrypted", "repeated", "paths", "bomb", "many",
             "bytes", "method", "folder", "inside")
        )  # fmt: skip
        if what == "inside":
            what = self.folder_damage()
        self._zipped(archive, what)
        data = bytearray(archive.read_bytes())
        if what == "flips":
            for _ in range(self.rng.choice((1, 1, 4, 64))):
                data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        elif what == "cut":
            del data[self.rng.randrange(len(data)) :]
        elif what in ("encrypted", "method"):
            # Flags and method of the first entry of the central directory and of its local header.
            for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
                at = data.find(signature) + offset + (2 if what == "method" else 0)
                data[at : at + 2] = struct.pack("<H", 1 if what == "encrypted" else 99)
        elif what == "bytes":
            at = data.find(b"PK\x01\x02") + self.rng.randrange(46)
            data[at] = self.rng.randrange(256)
        archive.write_bytes(data)
        return archive, f"zip {what}"

    def _zipped(self, archive: Path, what: str) -> None:
        prefix = "../../" if what == "paths" else "run/" if what == "folder" else ""
        with warnings.catch_warnings(), zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            warnings.simplefilter("ignore")
            for path in self.files():
                file.write(path, prefix + str(path.relative_to(self.folder)))
            if what == "repeated":
                file.writestr(self.rng.choice(("run.json", "plan.json", "records.jsonl")), "{}")
            elif what == "bomb":
                name = self.rng.choice(("records.jsonl", "plan.json", "state/docker-pre.json"))
                with file.open(name, "w") as member:
                    for _ in range(300):
                        member.write(self.rng.choice((b" ", b"\n", b"[")) * (1 << 20))
            elif what == "many":
                for number in range(20_000):
                    file.writestr(f"state/{number}-pre.json", "{}")


def damaged(base: Path, place: Path, seed: int) -> tuple[Path, str]:
    """Copy the run at `base` to `place` and damage it; return its path and what was done."""
    rng = random.Random(seed)  # noqa: S311 - damage to repeat, not a secret
    shutil.copytree(base, place)
    damager = Damager(place, rng)
    if rng.random() < 0.15:
        return damager.zip()
    return place, damager.folder_damage()


# ---- what reads a run ----------------------------------------------------------------------------


class HangError(BaseException):
    """A command takes too long. Not an Exception, so that nothing can catch it by accident."""


def commands(path: Path, other: Path, output: Path) -> dict[str, Callable[[], object]]:
    """Return everything that reads the run at `path`, by name."""

    def load() -> None:
        found = api.load(path)
        for name in ("summary", "cells", "verdicts", "claims", "gaps", "samples"):
            assert getattr(found, name) is not None

    return {
        "load": load,
        "report": lambda: _command("report", path, "--output", output, "--quiet"),
        "verify": lambda: _command("verify", path, "--output", output),
        "compare": lambda: _command("compare", path, other),
        "compare-anyway": lambda: _command("compare", "--anyway", other, path),
        "noise": lambda: _command("noise", path),
    }


def _command(*words: object) -> None:
    with cli.make_context("isobench", [*map(str, words)]) as context:
        cli.invoke(context)


def attempt(
    call: Callable[[], object], ends: "Counter[str] | None" = None, seconds: int = _SECONDS
) -> str:
    """Return what is wrong with the end of a command: its traceback; empty: it ended as it should.

    Every message must name what to type. `ends` counts how the commands ended.
    """
    ends = Counter() if ends is None else ends

    def late(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        with warnings.catch_warnings():
            # Tests turn warnings into errors: a warning of pandas about a damaged run is output
            # that nobody can use.
            warnings.simplefilter("error")
            call()
    except SystemExit:
        ends["worked"] += 1
        return ""
    except IsobenchError as error:
        ends["refused"] += 1
        return "" if error.hint and error.args[0] else f"no hint: {error}"
    except BaseException as error:  # noqa: BLE001 - all that is not one of isobench's errors
        return "".join(traceback.format_exception(error))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    ends["worked"] += 1
    return ""


def site(trace: str) -> str:
    """Return the innermost line of isobench in a traceback, and the error."""
    lines = trace.splitlines()
    own = [line.strip() for line in lines if "/isobench/" in line and "tests/" not in line]
    return f"{own[-1] if own else '?'}: {lines[-1][:120]}"


def another(base: Path, place: Path) -> Path:
    """Copy a run as another one of the same machine, to compare the two."""
    shutil.copytree(base, place)
    about = json.loads((place / "run.json").read_text())
    _write(place / "run.json", {**about, "id": "another"})
    return place


def main(seeds: Iterable[int], seconds: float = math.inf) -> int:
    """Try damaged runs; print every site of a traceback once, with how often it came."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    sites: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    example: dict[str, str] = {}
    bad = 0
    console, sys.stdout = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stdout
    with tempfile.TemporaryDirectory() as scratch:
        base = run(Path(scratch) / "base")
        bases = (base, in_rounds(another(base, Path(scratch) / "rounds")))
        other = another(base, Path(scratch) / "other")
        end, count = time.monotonic() + seconds, 0
        for seed in seeds:
            if time.monotonic() > end:
                break
            count += 1
            folder = Path(scratch) / f"r{seed}"
            path, what = damaged(bases[seed % len(bases)], folder, seed)
            failed = False
            for name, call in commands(path, other, Path(scratch) / "out").items():
                trace = attempt(call, ends)
                if trace:
                    failed = True
                    key = site(trace)
                    sites[key] += 1
                    example.setdefault(key, f"seed {seed}, {name}: {what}\n{trace[-1500:]}")
            bad += failed
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".zip").unlink(missing_ok=True)
    for key, times in sites.most_common():
        print(f"== {times} x {key}\n{example[key]}", file=console)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(dict(ends), file=console)
    print(
        f"{count} damaged runs, {bad} not handled, {len(sites)} sites, peak {peak} MiB",
        file=console,
    )
    return bool(bad)


if __name__ == "__main__":
    if sys.argv[1] == "--seconds":
        start = int(time.time())
        sys.exit(main(range(start, start + 1_000_000), int(sys.argv[2])))
    numbers = [*map(int, sys.argv[1:]), 0]
    sys.exit(main(range(numbers[1], numbers[1] + numbers[0])))
