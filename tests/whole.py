"""Documents of a run with all keys that isobench writes: those that are not given have defaults."""

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from isobench.model import Work
from isobench.model.units import TargetName, WorkloadName
from isobench.storage import forms, reader
from isobench.storage.schema import (
    CheckedExpectation,
    RunMetadata,
    TargetEntry,
    TargetState,
    WorkloadEntry,
)

_RUN = RunMetadata(schema_version=1, reference=TargetName("native"))
_TARGET = TargetEntry(name=TargetName("x"), technology="native")  # type: ignore[arg-type] - as text
_WORKLOAD = WorkloadEntry(name=WorkloadName("x"), group="x")
_WORK = Work(workload=WorkloadName("x"), loops=1, iterations=1)
_EXPECTATION = CheckedExpectation(key="x", relation="same")  # type: ignore[arg-type] - as text


def _filled(default: object, value: Any) -> Any:
    # A test may have put something else in place of a table.
    is_table = isinstance(value, Mapping)
    return {**msgspec.to_builtins(default), **value} if is_table else value


def run(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return run.json."""
    made: dict[str, Any] = _filled(_RUN, about)
    for key, default in (("targets", _TARGET), ("workloads", _WORKLOAD)):
        made[key] = [_filled(default, one) for one in made[key]]
    if isinstance(made["host"], Mapping):
        names = sorted({*itertools.chain.from_iterable(forms._OF_HOST.values())})
        made["host"] = {**dict.fromkeys(names), **made["host"]}
    return made


def plan(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return plan.json."""
    made = {"schedule": "blocks", "expensive": [], "blocks_per_session": {}, **about}
    made["expensive"] = made.pop(reader._OLD_EXPENSIVE, made["expensive"])
    return {**made, "work": [_filled(_WORK, one) for one in made["work"]]}


def state(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a target."""
    made: dict[str, Any] = _filled(TargetState(), about)
    made["limits"] = [{"why": "", **one} for one in made["limits"]]
    return {**made, "promises": [_filled(_EXPECTATION, one) for one in made["promises"]]}
