"""pytest-isobench: workloads as benchmarks, programs in targets, and near-native as an assertion.

    pytest --isobench-targets docker,podman    workloads as tests under pytest-benchmark
    isolated("docker").run("./tool", "x")      a fixture: a program of one's own in a target
    @pytest.mark.isobench(targets="docker", workloads="cpu", margin="5%")

It is loaded by every pytest of an environment with isobench: it imports nothing heavy until it is
used.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from isobench.api import Run
    from isobench.model.errors import IsobenchError
    from isobench.plugins.registry import Registry
    from isobench.run.inside import Inside

_WORKLOADS: Final = Path(__file__).with_name("workloads.py")
_MARKER: Final = (
    'isobench(targets, workloads="cpu", margin="5%", budget="1m"): measure, and fail unless all'
    " cells are near-native within the margin"
)
_KNOWN: Final = frozenset({"targets", "workloads", "margin", "budget", "folders", "config"})
_RUN: Final = pytest.StashKey["Run"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("isobench")
    group.addoption(
        "--isobench-targets",
        default="",
        metavar="NAMES",
        help="run workloads in native and these targets under pytest-benchmark, with commas",
    )
    group.addoption(
        "--isobench-workloads",
        default="cpu,syscall",
        metavar="NAMES",
        help="the workloads or classes for --isobench-targets (cpu,syscall)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and collect workloads where they are asked for."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--isobench-targets"):
        if not config.pluginmanager.has_plugin("benchmark"):
            raise pytest.UsageError(
                "--isobench-targets needs pytest-benchmark: python3 -m pip install pytest-benchmark"
            )
        config.args.append(str(_WORKLOADS))


def names(given: object) -> tuple[str, ...]:
    """Return names that are separated by commas, or in a list. TypeError: they are neither."""
    words = given.split(",") if isinstance(given, str) else given
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        message = f"{given!r} is not a list of names"
        raise TypeError(message)
    return tuple(word.strip() for word in words if word.strip())


def reason(error: "IsobenchError") -> str:
    """Return why a test is skipped, and what to type."""
    return f"{error}; {error.hint}" if error.hint else str(error)


def registry() -> "Registry":
    """Return the targets, those of isobench.toml too, as on the command line."""
    from isobench.config import file as configuration
    from isobench.plugins.registry import Registry

    found = configuration.find(None)
    found.warn_of_ignored()
    return Registry(found.settings.targets, source=found.source, trusted=found.named)


# ---- programs in targets -------------------------------------------------------------------------


@pytest.fixture
def isolated() -> "Iterator[Callable[[str], Inside]]":
    """Return a function that opens a target by its name, for programs of one's own.

    `isolated("docker").run("./tool", "argument")` puts a static program or a script into the target
    and returns how it ended; `.call(function, 1, 2)` runs a Python function there, if the target
    has python3. Targets of isobench.toml are known too, as on the command line. One that cannot run
    here skips the test, with the reason. Sessions end with the test.
    """
    from isobench.model.errors import IsobenchError, UnavailableError
    from isobench.run.inside import Inside

    opened: dict[str, Inside] = {}
    every = registry()

    def open_target(name: str) -> Inside:
        if name not in opened:
            try:
                opened[name] = Inside(name, every)
            except UnavailableError as error:
                pytest.skip(reason(error))
            except IsobenchError as error:
                pytest.fail(reason(error), pytrace=False)
        return opened[name]

    yield open_target
    for one in opened.values():
        one.close()


# ---- near-native as an assertion -----------------------------------------------------------------


@pytest.fixture
def isobench_run(request: pytest.FixtureRequest) -> "Run":
    """Return the run of a test with the marker `isobench`, as `isobench.load` returns it."""
    if _marker(request.node) is None:
        raise pytest.UsageError("isobench_run is for tests with @pytest.mark.isobench")
    run: Run = request.node.stash[_RUN]
    return run


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Measure what a test with the marker asks for."""
    # pytest calls plug-ins before its own modules, so the fixtures find the run. Only what skips
    # tests comes earlier there (`tryfirst`): a test that is skipped measures nothing.
    marker = _marker(item)
    if marker is not None:
        item.stash[_RUN] = _measured(item, marker)


def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test with the marker where a cell is not near-native."""
    if _marker(item) is not None:
        reasons = _refuting(item.stash[_RUN])
        if reasons:
            pytest.fail("\n".join(reasons), pytrace=False)


def _marker(item: pytest.Item) -> pytest.Mark | None:
    """Return the marker of a test. UsageError: it has several, perhaps one of its class."""
    found = [*item.iter_markers("isobench")]
    if len(found) > 1:
        raise pytest.UsageError(
            f"{item.nodeid}: {len(found)} markers @pytest.mark.isobench, of the test itself,"
            " its class or its module; a test asserts one run: write a test for each"
        )
    return found[0] if found else None


def _measured(item: pytest.Item, marker: pytest.Mark) -> "Run":
    """Return the run that a marker asks for."""
    from isobench import api
    from isobench.model.errors import IsobenchError, UnavailableError

    given = dict(marker.kwargs)
    unknown = given.keys() - _KNOWN
    if unknown or marker.args or not given.get("targets"):
        wrong = f"no argument {sorted(unknown)}" if unknown else "targets must be named"
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.isobench: {wrong}; {_MARKER}")
    try:
        targets = names(given["targets"])
        workloads = names(given.get("workloads", "cpu"))
        folders = names(given.get("folders", ()))
        budget = str(given.get("budget", "1m"))
    except TypeError as error:
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.isobench: {error}") from None
    try:
        run = api.measure(
            targets,
            workloads,
            require=targets,
            budget=budget,
            margin=_share(item, given.get("margin", "5%")),
            folders=folders,
            config=given.get("config"),
            output=item.config.rootpath / "isobench-results" / _folder(item),
        )
    except UnavailableError as error:
        pytest.skip(reason(error))
    except IsobenchError as error:
        pytest.fail(f"{error}\n{error.hint}", pytrace=False)
    if run.interrupted:
        raise KeyboardInterrupt  # which ends pytest: the measuring has taken the first one
    return run


def _folder(item: pytest.Item) -> str:
    name = "".join(one if one.isalnum() else "-" for one in item.name)[:60]
    return f"{name}-{secrets.token_hex(3)}"


def _share(item: pytest.Item, margin: object) -> float:
    import click

    from isobench.config.parameters import Share

    try:
        return Share().convert(margin, None, None)
    except click.BadParameter as error:
        raise pytest.UsageError(f"{item.nodeid}: margin: {error.message}") from None


def _refuting(run: "Run") -> Sequence[str]:
    """Return why a run does not show that all its cells are near-native; empty: it does."""
    from isobench.model import Status
    from isobench.model.plan import actual
    from isobench.model.wording import interval_text, percent_text, series_text, times_text

    margin = percent_text(run.summary.run.margin)
    reasons = []
    cells = [cell for cell in run.summary.cells if cell.target == actual(cell.target)]
    for cell in cells:
        if cell.status is not Status.NEAR_NATIVE:
            name = f"{cell.target} {series_text(cell.workload, cell.metric)}"
            figure = f"{times_text(cell.ratio, cell.interval)} {interval_text(cell.interval)}"
            doubts = f" ({'; '.join(cell.doubts)})" if cell.doubts else ""
            reasons.append(
                f"{name} is {cell.status}: {figure} is not shown to lie within {margin}{doubts}"
            )
    reasons += [f"{gap.target} {gap.workload}: {gap.detail}" for gap in run.summary.gaps]
    if not cells:
        reasons.append("nothing was measured")
    return [*reasons, f"the run: {run.path}"] if reasons else []
