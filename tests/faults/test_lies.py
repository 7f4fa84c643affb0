"""Times that a target reports are compared with the host's clock: whatever it changes in them, it
never becomes faster, nor near-native where it is not.
"""

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from isobench.analysis.cells import Analysis
from isobench.config.options import UNBOUNDED, RunOptions
from isobench.model import Cause, Command, Stage
from isobench.model.units import Nanoseconds, TargetName, WorkloadName
from isobench.plugins.api import Completed
from isobench.run import selection
from isobench.run.lifecycle import Lifecycle
from isobench.storage import reader
from isobench.storage.schema import Summary
from isobench.targets.native import NativeTarget
from isobench.targets.shared.agents import AgentSession
from isobench.workloads import loader
from tests.faults import lies
from tests.unit.test_lifecycle import Observer, Shelf

pytestmark = pytest.mark.timeout(300)
SIEVE = WorkloadName("cpu.sieve")
Change = Callable[[bytes], bytes]
"""Changes one line of a payload's output."""


def scaled(key: str, factor: float, offset: int = 0) -> Change:
    """Return a change of a number in a line."""
    pattern = re.compile(rb'"%s":(\d+)' % key.encode())

    def change(line: bytes) -> bytes:
        return pattern.sub(
            lambda found: b'"%s":%d' % (key.encode(), int(int(found[1]) * factor) + offset), line
        )

    return change


def slow(line: bytes) -> bytes:
    """Let work take longer than the payload's clock sees."""
    if line.startswith(b'{"i":') and b'"loops":1,' not in line:
        threading.Event().wait(0.02)
    return line


def far(line: bytes) -> bytes:
    """Let every answer take long, and the clock see half of the work."""
    if line.startswith(b'{"i":'):
        threading.Event().wait(0.02)
    return scaled("ns", 0.5)(line)


def hidden(line: bytes) -> bytes:
    """Let every answer take long, and work three times as long as the clock sees."""
    if line.startswith(b'{"i":'):
        threading.Event().wait(0.015 + 2e-9 * int(json.loads(line)["ns"]))
    return line


def half(line: bytes) -> bytes:
    """Let the clock inside run at half speed."""
    for key in ("ns", "warmup_ns", "clock_ns"):
        line = scaled(key, 0.5)(line)
    return line


def late(line: bytes) -> bytes:
    """Let the first line come late, and the clock run at half speed."""
    if line.startswith(b'{"isobench":'):
        threading.Event().wait(2)
    return half(line)


class SomeBlocks:
    """Answers late for one loop in four of each nine visits, so that little is left of the turns of
    these for the host; in all visits, works as many times as long as the clock sees as `hides` says
    (0: not longer), or reports as small a part of its time as `reports` says.
    """

    def __init__(self, *, hides: float, reports: float) -> None:
        self.hides, self.reports, self.visits, self.longest = hides, reports, 0, 0.0

    def __call__(self, line: bytes) -> bytes:
        if line.startswith(b'{"isobench":'):
            self.visits += 1
        if line.startswith(b'{"i":'):
            taken = 1e-9 * int(json.loads(line)["ns"])
            self.longest = max(self.longest, taken)
            if b'"loops":1,' not in line:
                threading.Event().wait(self.hides * taken)
            elif self.visits % 9 < 4:
                threading.Event().wait((1 + self.hides) * self.longest)
        return scaled("ns", self.reports)(line)


class MovedTime:
    """Works three times as long as native. One turn of three reports a third of that, the next the
    rest: the sum is what the host saw, and the fastest turns are native's.
    """

    def __init__(self) -> None:
        self.turn = self.left_out = 0

    def __call__(self, line: bytes) -> bytes:
        if not line.startswith(b'{"i":') or b'"loops":' not in line or b'"loops":1,' in line:
            return line
        taken = int(json.loads(line)["ns"])
        threading.Event().wait(2e-9 * taken)
        self.turn += 1
        if self.turn % 3 == 0:
            self.left_out += 2 * taken
            return line
        moved, self.left_out = self.left_out, 0
        return scaled("ns", 3, moved)(line)


def exaggerated(line: bytes) -> bytes:
    """Report two fifths more than the time of each turn, but for those of one loop."""
    is_answer = line.startswith(b'{"i":') and b'"loops":' in line and b'"loops":1,' not in line
    return scaled("ns", 1.4)(line) if is_answer else line


@dataclass(frozen=True, kw_only=True)
class LyingTarget(NativeTarget):
    """A plain process of this host whose output is changed on its way."""

    name: ClassVar[TargetName] = TargetName("liar")
    change: Change

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:  # type: ignore[override]
        with super().open(stage) as session:
            yield _Session(change=self.change, session=session)


@dataclass(frozen=True, kw_only=True)
class _Session:
    change: Change
    session: AgentSession
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        if command.argv[0] != SIEVE:
            return self.session.run(command, timeout=timeout)
        kept, rest = bytearray(), b""

        def on_output(chunk: bytes, /, at: int | None = None) -> None:
            nonlocal rest
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                changed = self.change(line) + b"\n"
                kept.extend(changed)
                command.on_output(changed, at=None)

        done = self.session.run(replace(command, on_output=on_output), timeout=timeout)
        return replace(done, stdout=bytes(kept))


@dataclass(frozen=True, kw_only=True)
class BufferingTarget(LyingTarget):
    """The same, whose output arrives when the program has ended."""

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Buffered"]:  # type: ignore[override]
        with NativeTarget.open(self, stage) as session:
            yield _Buffered(session=session)


@dataclass(frozen=True, kw_only=True)
class _Buffered:
    session: AgentSession
    interactive: ClassVar[bool] = False

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        if command.argv[0] != SIEVE:
            return self.session.run(command, timeout=timeout)
        done = self.session.run(replace(command, on_output=_forget), timeout=timeout)
        command.on_output(done.stdout, at=None)
        return done


def _forget(_: bytes, /, at: int | None = None) -> None:
    pass


def measured(
    change: Change,
    folder: Path,
    kind: type[LyingTarget] = LyingTarget,
    blocks: int = 5,
    margin: float = 0.05,
) -> Summary:
    """Return the summary of a short run of native and a target that lies."""
    options = RunOptions(
        targets=("liar",),
        workloads=(SIEVE,),
        budget=UNBOUNDED,
        minimum_blocks=blocks,
        maximum_blocks=blocks,
        leave_width=None,
        precision=0.0,
        margin=margin,
        output=folder,
        seed=1,
    )
    shelf, observer = Shelf([NativeTarget(), kind(change=change)]), Observer()
    workloads = loader.select(loader.find(), [SIEVE])
    chosen = selection.choose(options, shelf, workloads, observer)
    return Lifecycle(options, shelf, observer).run(chosen).summary


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOBENCH_RESULTS_DIR", str(tmp_path / "results"))


def status(summary: Summary) -> tuple[str, set[str]]:
    (cell,) = [one for one in summary.cells if one.target == "liar"]
    return str(cell.status), set(cell.doubt_codes)


def test_an_honest_target_is_not_doubted(tmp_path: Path) -> None:
    _, codes = status(measured(lambda line: line, tmp_path / "run"))
    assert "host-time" not in codes


@pytest.mark.parametrize(
    "change",
    [scaled("ns", 0.0, 1), scaled("ns", 0.3), slow],
    ids=["a nanosecond", "three tenths", "a slow passage"],
)
def test_time_that_the_host_saw_and_the_payload_left_out_is_unproven(
    change: Change, tmp_path: Path
) -> None:
    what, codes = status(measured(change, tmp_path / "run"))
    assert what == "unproven"
    assert "host-time" in codes


def test_a_fifth_left_out_makes_nothing_faster(tmp_path: Path) -> None:
    """On a busy machine, five blocks do not show that it is left out."""
    what, codes = status(measured(scaled("ns", 0.8), tmp_path / "run"))
    assert what == "inconclusive" or (what == "unproven" and "host-time" in codes)


@pytest.mark.parametrize(
    "change", [half, late, far], ids=["at once", "after a late first line", "over a slow line"]
)
def test_a_clock_at_half_speed_makes_nothing_faster(change: Change, tmp_path: Path) -> None:
    what, codes = status(measured(change, tmp_path / "run"))
    assert what != "faster"
    # On a busy machine, five blocks may not show it.
    assert what == "inconclusive" or codes & {"guest-clock", "host-time"}


def test_nothing_is_near_native_that_the_host_cannot_see(tmp_path: Path) -> None:
    what, codes = status(measured(hidden, tmp_path / "run"))
    assert what != "near-native"
    assert what == "inconclusive" or "host-time" in codes


@pytest.mark.parametrize(
    ("hides", "reports"), [(2.0, 1.0), (0.0, 0.25)], ids=["three times as long", "a quarter"]
)
def test_late_answers_for_one_loop_in_some_blocks_hide_nothing(
    hides: float, reports: float, tmp_path: Path
) -> None:
    liar = SomeBlocks(hides=hides, reports=reports)
    what, codes = status(measured(liar, tmp_path / "run", blocks=18))
    assert what not in ("near-native", "faster")
    # On a busy machine, eighteen blocks may not show what it hides, nor that it is near-native.
    assert what == "inconclusive" or (what == "unproven" and "host-time" in codes)


def test_no_lie_is_believed_beyond_what_is_documented() -> None:
    """`nox -s lies` searches for longer."""
    found = [*itertools.islice(lies.search(seed=5), 100)]
    assert any(one.is_believed for one in found)
    assert max(one.ratio for one in found if not one.is_believed) > 2
    assert max(one.ratio for one in found if one.is_believed) < lies.LONGEST


def test_time_that_the_host_did_not_see_makes_nothing_slower(tmp_path: Path) -> None:
    what, codes = status(measured(exaggerated, tmp_path / "run", blocks=12))
    if what == "slower":
        # On a busy machine requests and answers may take more than a fifth of a turn: then it rests
        # on what the payload reports.
        check = Analysis(reader.load(tmp_path / "run")).host_check(SIEVE, TargetName("liar"))
        assert check is not None
        assert not check.is_known
    # On a busy machine native may be as slow by chance.
    elif what not in ("inconclusive", "near-native"):
        assert (what, "host-time" in codes) == ("unproven", True)


def test_time_that_is_moved_to_other_turns_makes_nothing_near_native(tmp_path: Path) -> None:
    # The margin is wide, so that a busy machine leaves the cell decided.
    what, codes = status(measured(MovedTime(), tmp_path / "run", blocks=12, margin=0.5))
    assert what == "inconclusive" or (what == "unproven" and "host-time" in codes)


def test_output_that_arrives_at_the_end_is_unproven(tmp_path: Path) -> None:
    summary = measured(lambda line: line, tmp_path / "run", kind=BufferingTarget)
    what, codes = status(summary)
    assert what == "unproven"
    assert "host-time" in codes
    (cell,) = [one for one in summary.cells if one.target == "liar"]
    assert "times the time that the host saw" in " ".join(cell.doubts)


def test_operations_that_were_not_asked_for_are_a_wrong_answer(tmp_path: Path) -> None:
    summary = measured(scaled("ops", 1000), tmp_path / "run")
    assert not [one for one in summary.cells if one.target == "liar"]
    (gap,) = {(one.cause, one.target) for one in summary.gaps if one.target == "liar"}
    assert gap == (Cause.WRONG_ANSWER, "liar")
    assert "operations for" in json.dumps([one.detail for one in summary.gaps])
