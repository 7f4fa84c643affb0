"""The workloads as tests under pytest-benchmark: `pytest --isobench-targets docker`.

One round is one iteration of a payload that waits in the target, by the host's clock: so much work
as takes about ten milliseconds natively, the same in all targets. Or it is one start.
pytest-benchmark measures one test after the other: it has no ratios with intervals, and no
interleaving. `isobench run` has.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from isobench.model.errors import IsobenchError, SessionError
from isobench.pytest_isobench.plugin import names, reason, registry
from isobench.run.inside import Inside, workloads_of

_LOOPS: Final[dict[str, int]] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each workload in native and each target."""
    config = metafunc.config
    targets = dict.fromkeys(["native", *names(config.getoption("--isobench-targets"))])
    try:
        known = registry()
        for name in targets:
            known.get(name)
        chosen = workloads_of(names(config.getoption("--isobench-workloads")))
    except IsobenchError as error:
        raise pytest.UsageError(reason(error)) from None
    cells = [(target, workload) for workload in chosen for target in targets]
    metafunc.parametrize(
        ("target", "workload"), cells, ids=[f"{one.name}-{target}" for target, one in cells]
    )


def _loops(workload: Any, isolated: Callable[[str], Inside]) -> int:  # noqa: ANN401 - as below
    """Return the loops of an iteration: those that take about ten milliseconds natively, in all
    targets.
    """
    if workload.name not in _LOOPS:
        _LOOPS[workload.name] = isolated("native").loops(workload)
    return _LOOPS[workload.name]


def test_workload(
    target: str,
    workload: Any,  # noqa: ANN401 - a workload; this module is read by pytest
    benchmark: Any,  # noqa: ANN401 - pytest-benchmark has no types
    isolated: Callable[[str], Inside],
) -> None:
    """Benchmark a workload in a target."""
    inside = isolated(target)
    benchmark.group = str(workload.name)
    benchmark.extra_info.update(target=target, version=inside.version)
    once: Callable[[], None]
    try:
        if workload.scope == "loop":
            once = inside.turns(workload, _loops(workload, isolated))
            benchmark.extra_info["loops"] = _LOOPS[workload.name]
        else:
            once = inside.starts(workload)
    except SessionError as error:
        pytest.skip(reason(error))
    benchmark(once)
