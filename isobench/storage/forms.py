"""Which keys the files of a run have: all that the version which wrote them writes. Pure.

A key that is lost must not become its default, which may change a verdict. Runs of two earlier
versions lack keys that came together since; no version number tells them apart, but these keys do:
a file that has one of them has all.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from functools import cache
from typing import Any, Final

import msgspec

from isobench.model import BlockHealth, Plan, Work
from isobench.storage.schema import RunMetadata, TargetEntry, TargetState, WorkloadEntry


class Form(IntEnum):
    """The forms of a run, by what came with them."""

    FIRST = 0
    SESSIONS = 1  # that serve several blocks
    ROUNDS = 2  # in which payloads take turns


_BROUGHT: Final[Mapping[type, Mapping[Form, frozenset[str]]]] = {
    RunMetadata: {
        Form.SESSIONS: frozenset(
            ("affinity", "claims", "config", "launch", "plan_sha256", "variations")
        ),
        Form.ROUNDS: frozenset((
            "confirms", "leave_width", "left_out", "resumed_by", "sequential", "spawner", "until",
        )),
    },
    TargetEntry: {Form.ROUNDS: frozenset(("asked",))},
    WorkloadEntry: {
        Form.SESSIONS: frozenset(("program",)),
        Form.ROUNDS: frozenset(("metrics",)),
    },
    TargetState: {Form.ROUNDS: frozenset(("limits",))},
    Plan: {
        Form.SESSIONS: frozenset(("blocks_per_session", "expensive")),
        Form.ROUNDS: frozenset(("schedule",)),
    },
    Work: {Form.ROUNDS: frozenset(("seconds", "turns", "untimed_share", "warmups"))},
    BlockHealth: {Form.ROUNDS: frozenset(("own_cpu_percent", "run_queue", "speed_percent"))},
}  # fmt: skip
"""The keys that a type did not have in the first form."""
_OF_HOST: Final[Mapping[Form, frozenset[str]]] = {
    Form.FIRST: frozenset(
        (
            *("cgroups", "clock_source", "cpu", "cpus", "filesystem", "frequency_governor"),
            *("huge_pages", "kernel", "kernel_version", "load", "machine", "memory_bytes", "os"),
            *("python", "root", "virtualization"),
        )
    ),
    Form.SESSIONS: frozenset(("cpu_limit", "memory_limit", "smt", "turbo")),
    Form.ROUNDS: frozenset(("kvm", "microcode")),
}
"""The facts about the host in run.json, of those that every machine has."""


def check(value: object, kind: type, name: str, *, least: Form = Form.FIRST) -> Form:
    """Check that plain data has all keys of its form, and return this: at least `least`.

    ValueError: it lacks one; names the place.
    """
    keys = [*_keys(value, _shape(kind), "$")]
    form = max(least, *(since for _, _, since, is_there in keys if is_there), Form.FIRST)
    for place, key, since, is_there in keys:
        if since <= form and not is_there:
            at = "" if place == "$" else f" - at `{place}`"
            message = f"{name}: Object missing required field `{key}`{at}"
            raise ValueError(message)
    return form


_shape = cache(msgspec.inspect.type_info)


def _keys(value: Any, shape: Any, place: str) -> Iterator[tuple[str, str, Form, bool]]:  # noqa: ANN401 - plain data and its type
    """Yield place, name and form of each key that plain data may have, and whether it is there.
    What does not have this shape has none: its conversion refuses it.
    """
    inner = getattr(shape, "fields", None)
    if isinstance(value, dict) and inner is not None:
        brought = _BROUGHT.get(shape.cls, {})
        for field in inner:
            key = field.encode_name
            since = next((form for form, keys in brought.items() if key in keys), Form.FIRST)
            yield place, key, since, key in value
            yield from _keys(value.get(key), field.type, f"{place}.{key}")
        if shape.cls is RunMetadata and isinstance(host := value.get("host"), dict):
            for form, keys in _OF_HOST.items():
                yield from ((f"{place}.host", key, form, key in host) for key in sorted(keys))
    elif isinstance(value, list) and hasattr(shape, "item_type"):
        for number, each in enumerate(value):
            yield from _keys(each, shape.item_type, f"{place}[{number}]")
    elif isinstance(shape, msgspec.inspect.UnionType):
        for one in shape.types:
            yield from _keys(value, one, place)
