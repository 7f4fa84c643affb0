"""The identifiers in the files of a run, which redaction leaves as they are.

The files refer to each other by names of targets, workloads and metrics, and some of their texts
are words of a list. A run in which one of them was replaced could not be read any more.
"""

import functools
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

from isobench.config import redaction
from isobench.model import Gap, Plan
from isobench.model.plan import partner, second
from isobench.storage.schema import History, RunMetadata, Summary, TargetState
from isobench.storage.schema.values import moment_of

_KINDS: Final = ("sample", "gap", "leaving")
"""What a line of records.jsonl is."""


def keep(run: RunMetadata) -> None:
    """Keep the identifiers of a run from now on."""
    redaction.keep(_words())
    redaction.keep(name for name in _names(run) if name)


@functools.cache
def _words() -> frozenset[str]:
    """Return the words that the documents of a run may have where not every text is allowed."""
    kinds = inspect.multi_type_info([RunMetadata, Plan, Gap, TargetState, History, Summary])
    return frozenset({*_KINDS, *_words_of(kinds)})


def _words_of(kind: Any) -> Iterator[str]:  # noqa: ANN401 - types of all kinds
    if isinstance(kind, inspect.EnumType):
        yield from (str(member.value) for member in kind.cls)
    elif isinstance(kind, inspect.LiteralType):
        yield from map(str, kind.values)
    elif isinstance(kind, msgspec.Struct):
        for name in kind.__struct_fields__:
            yield from _words_of(getattr(kind, name))
    elif isinstance(kind, tuple | list):
        for each in kind:
            yield from _words_of(each)


def _names(run: RunMetadata) -> Iterator[str | None]:
    yield from (run.id, run.launch, run.until, run.stopped, run.spawner, run.sequential)
    yield run.plan_sha256
    yield from (moment for moment in (run.started, run.finished) if moment_of(moment))
    yield second(run.reference)
    for target in run.targets:
        yield from (target.name, target.technology, partner(run.reference, target.name))
    for workload in run.workloads:
        yield from (workload.name, workload.group, workload.program, workload.scope)
        for metric in workload.metrics:
            yield from (metric.name, metric.unit.in_answers, metric.fact)
    for varied in run.variations:
        yield varied.option
    for payload in run.payloads:
        yield from (payload.program, payload.sha256)
