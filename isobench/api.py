"""The Python interface: measure, read a run, compare runs; a run as pandas frames.

    import isobench

    run = isobench.measure(targets=["docker"], workloads=["cpu", "startup"], budget="2m")
    print(run)                       # the closing sentence
    run.cells                        # a row for each target and workload: ratio, interval, verdict
    isobench.load("latest").samples  # every value as it was measured

What the command line does before and after a run is done here as well: targets are probed,
evidence is taken, the report is written beside the records. No configuration file is read unless it
is named.
"""

import contextlib
import enum
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from isobench import claims as sentences
from isobench.analysis import summary as analysis
from isobench.comparison import changes
from isobench.comparison.result import Comparison, ComparisonOptions
from isobench.config import file as configuration
from isobench.config import paths
from isobench.config.options import QUICK, RunOptions
from isobench.model import Availability, Available, Claim
from isobench.model.bounds import LEAST_SHARE
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, parse_duration
from isobench.plugins.registry import Registry
from isobench.report import write
from isobench.run import cleanup, selection
from isobench.run.lifecycle import Lifecycle
from isobench.storage import reader
from isobench.storage.schema import RunMetadata, Summary
from isobench.workloads import loader

__all__ = ["Comparison", "Run", "compare", "load", "measure"]

LATEST: Final = "latest"
_BEFORE_BOUNDS: Final = ("target", "workload", "metric", "unit", "ratio")
_AFTER_BOUNDS: Final = (
    *("level", "value", "reference", "p95", "maximum"),
    *("blocks", "sessions"),
)
_measuring: Final = threading.Lock()
_NUMBERS: Final = ("ratio", "lower", "upper", "value", "reference", "p95", "maximum")


class Run:
    """A run: its records, its answers, and where they lie.

    `str(run)` is the closing sentence.
    """

    def __init__(self, records: reader.Run, summary: Summary | None = None) -> None:
        """Take the records, and the answers where they were made already."""
        self._records, self._summary = records, summary

    @property
    def path(self) -> Path:
        """The folder of the run, or a zip of it."""
        return self._records.path

    @property
    def interrupted(self) -> bool:
        """Whether it was interrupted, so that it is not complete."""
        return self.metadata.interrupted

    @property
    def summary(self) -> Summary:
        """The answers as one typed object: what summary.json holds, made from the records."""
        if self._summary is None:
            claims = analysis.claims_of(self._records)
            self._summary = analysis.summarise(self._records, claims)
        return self._summary

    @property
    def metadata(self) -> RunMetadata:
        """What was asked for, and on which machine: run.json."""
        return self._records.metadata

    @property
    def samples(self) -> pd.DataFrame:
        """Every value as it was measured, one in a row.

        Columns: block, session, target, workload, metric, iteration, value, unit, operations,
        clock, at. `value` is in `unit` and spans so many `operations`; `at` is in seconds since the
        run began.
        """
        return self._records.samples.copy()

    @property
    def gaps(self) -> pd.DataFrame:
        """What has no value, and why. Columns: block, target, workload, cause, detail, hint."""
        columns = ("block", "target", "workload", "cause", "detail", "hint")
        return _frame(self._records.gaps, columns)

    @property
    def cells(self) -> pd.DataFrame:
        """What was measured, a row for each target and workload.

        Columns: target, workload, metric, unit, ratio (target over native; above 1 is worse),
        lower, upper (its interval at `level`), level, value, reference (medians in `unit`, an
        operation or a start: of the target, of native), p95, maximum, blocks, sessions. What is not
        known is NaN.
        """
        frame = _frame(self.summary.cells, (*_BEFORE_BOUNDS, "interval", *_AFTER_BOUNDS))
        bounds = [one or (None, None) for one in frame.pop("interval")]
        for at, name in enumerate(("lower", "upper")):
            frame.insert(len(_BEFORE_BOUNDS) + at, name, [pair[at] for pair in bounds])
        return frame.astype(dict.fromkeys(_NUMBERS, float))

    @property
    def verdicts(self) -> pd.DataFrame:
        """What each cell means at the margin of the run, a row for each target and workload.

        Columns: target, workload, status ("near-native", "slower", "faster", "inconclusive",
        "unproven"), doubts (a tuple of sentences), blocks_needed (how many blocks would decide an
        open cell; NaN where that is not known).
        """
        frame = _frame(
            self.summary.cells, ("target", "workload", "status", "doubts", "blocks_needed")
        )
        return frame.astype({"blocks_needed": float})

    @property
    def claims(self) -> pd.DataFrame:
        """How each sentence stands after this run. Columns: id, status ("supported", "refuted",
        "inconclusive", "untested"), quote (the sentence), sentence (what was found).
        """
        return _frame(self.summary.claims, ("id", "status", "quote", "sentence"))

    @property
    def page(self) -> Path | None:
        """The HTML page beside the records; None for a zip, or where it was not written."""
        found = self.path / write.PAGE
        return found if found.is_file() else None

    def __str__(self) -> str:
        """Return the closing sentence."""
        return self.summary.run.headline


def measure(
    targets: Sequence[str] = (),
    workloads: Sequence[str] = (),
    *,
    budget: float | str | None = None,
    require: Sequence[str] = (),
    quick: bool = False,
    margin: float = 0.05,
    seed: int | None = None,
    claims: Path | str | None = None,
    folders: Sequence[Path | str] = (),
    config: Path | str | None = None,
    output: Path | str | None = None,
    say: Callable[[str], None] | None = None,
) -> Run:
    """Measure workloads natively and under targets, as `isobench run` does, and return the run.

    `targets` and `workloads` are names as on the command line; without any, what the budget has
    room for is chosen. `budget` is in seconds, or a text such as "5m", which is the default;
    `quick` is a first answer in about a minute, without verdicts. A target that is named and cannot
    run is a gap; one of `require` is an UnavailableError. `margin` is a share (0.05 is 5 %).
    `claims` is a file of claims of your own, `folders` are folders of workloads of your own,
    `config` a configuration file; a warning names one that is there and ignored. `output` is the
    folder of the run; without it, the run lies in isobench-results. `say` is called with each step
    in words.

    Errors: UsageError for an unknown name or a value that makes no sense, UnavailableError where
    nothing that was asked for can run, both subclasses of isobench.model.errors.IsobenchError.
    KeyboardInterrupt ends the run early: what was measured is returned, with `interrupted` set.
    Runs of one process are measured one after the other: a second call in another thread is a
    UsageError.
    """
    _check_share("margin", margin)
    registry, configured = _configured(config)
    preset = QUICK if quick else {}
    options = RunOptions(
        **{**preset, **({} if budget is None else {"budget": _seconds(budget)})},
        targets=tuple(targets),
        workloads=tuple(workloads),
        require=tuple(require),
        folders=tuple(map(Path, folders)),
        margin=margin,
        seed=seed,
        output=None if output is None else Path(output),
        claims=configured if claims is None else sentences.load_file(Path(claims)),
    )
    registry.permit([*options.targets, *options.require])
    chosen_workloads = loader.select(loader.find(options.folders), options.workloads)
    observer = _Observer(say or _ignore)
    with _alone():
        cleanup.sweep_before(registry, lambda found: observer.say(str(found)))
        chosen = selection.choose(options, registry, chosen_workloads, observer)
        chosen = selection.prepare(chosen, options, observer.say)
        outcome = Lifecycle(options, registry, observer).run(chosen)
        if outcome.moved:
            observer.say(outcome.moved)
    return Run(outcome.run(), outcome.summary)


def load(path: Path | str = LATEST) -> Run:
    """Return an earlier run: a folder, a zip of one, or "latest".

    UsageError: there is none, or its files are damaged.
    """
    place = paths.results() / LATEST if path == LATEST else Path(path)
    if not place.exists():
        raise UsageError(f"{place}: there is no run", hint="isobench.measure() measures one")
    return Run(reader.load(place.resolve()))


def compare(
    base: Run | Iterable[Run],
    head: Run | Iterable[Run],
    *,
    targets: Sequence[str] = (),
    workloads: Sequence[str] = (),
    minimum_effect: float = 0.05,
    anyway: bool = False,
) -> Comparison:
    """Return how the ratios to native changed from one run, or several, to others.

    A change below `minimum_effect` (a share: 0.05 is 5 %) does not matter. UsageError: a run is on
    both sides, or `minimum_effect` is no such share. IncomparableError: the sides have no cell in
    common, or their processors differ and `anyway` is not set.
    """
    _check_share("minimum_effect", minimum_effect)
    options = ComparisonOptions(
        minimum_effect=minimum_effect,
        targets=tuple(targets),
        workloads=tuple(workloads),
        anyway=anyway,
    )
    return changes.compare(_records(base), _records(head), options)


# ---- helpers -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Exclude other runs of this process. UsageError: another thread measures."""
    # CPUs, cgroup and spawner are those of the process: two runs would undo each other's.
    if not _measuring.acquire(blocking=False):
        raise UsageError(
            "isobench.measure() is running already, in another thread of this process",
            hint="measure one run after the other",
        )
    try:
        yield
    finally:
        _measuring.release()


@dataclass(frozen=True)
class _Observer:
    """Hands on steps in words. One that cannot be shown, as on a closed terminal, ends nothing."""

    to: Callable[[str], None]

    def say(self, text: str) -> None:
        """Hand on a step."""
        with contextlib.suppress(OSError):
            self.to(text)

    def probed(self, name: TargetName, answer: Availability) -> None:
        """Hand on why a target cannot run."""
        if not isinstance(answer, Available):
            self.say(f"{name} cannot run here: {answer.reason}")

    def step(self, what: str, done: float, total: float) -> None:
        """Leave out how far a step is."""


def _ignore(_: str) -> None:
    """Ignore a step."""


def _configured(file: Path | str | None) -> tuple[Registry, tuple[Claim, ...]]:
    """Return the targets and claims of a configuration file; isobench's own where none is named."""
    if file is None:
        _warn_of_ignored()
        return Registry(), ()
    found = configuration.find(Path(file))
    registry = Registry(found.settings.targets, source=found.source)
    return registry, sentences.of_table(found.settings.claims, origin=found.file, text=found.text)


def _warn_of_ignored() -> None:
    """Warn of the file that the command line would use here, and of those that it would not."""
    try:
        found = configuration.find()
    except UsageError as error:
        configuration.warn_ignored(configuration.FILE, str(error))
        return
    found.warn_of_ignored()
    if found.settings != configuration.Settings():
        configuration.warn_ignored(found.file, f"only config={found.file!r} would use it")


def _seconds(budget: float | str) -> float:
    try:
        return parse_duration(budget) if isinstance(budget, str) else float(budget)
    except ValueError as error:
        raise UsageError(f"budget: {error}", hint='budget="5m"') from None


def _check_share(name: str, value: object) -> None:
    """Check a share, as the command line does. UsageError: it is no number between 0 and 1."""
    if not isinstance(value, int | float) or not LEAST_SHARE < value < 1:
        raise UsageError(
            f"{name} is a share between 0 and 1, where 0.05 is 5 %, not {value!r}",
            hint=f"{name}=0.05",
        )


def _records(runs: Run | Iterable[Run]) -> list[reader.Run]:
    return [one._records for one in ([runs] if isinstance(runs, Run) else runs)]  # noqa: SLF001 - its own module's


def _frame(rows: Iterable[object], names: Sequence[str]) -> pd.DataFrame:
    """Return a frame of these attributes of each row; enums as their texts."""
    # Where pyarrow is installed, pandas makes a column of texts from enums that are texts.
    found = [*rows]
    return pd.DataFrame({name: [_plain(getattr(row, name)) for row in found] for name in names})


def _plain(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value
