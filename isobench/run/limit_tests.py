"""Limits set and pushed past: what came of it, in an instance of each target that can set some.

The program (workloads/_limits) knows no limit. Run natively first, it shows how far it comes
without one: a limit that it would not have reached anyhow has not been shown to hold.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isobench.model import Environment, LimitCheck, Limits, Resource, Technology, Visit
from isobench.model.errors import IsobenchError, PluginError
from isobench.model.units import TargetName, WorkloadName, seconds
from isobench.payload.build import LIMITS as PROGRAM
from isobench.plugins.api import Limiter, Session, Target
from isobench.run.context import Context
from isobench.run.measure import Runner

LIMITS: Final = Limits(cpus=0.5, memory=64 << 20, processes=64, write_rate=8 << 20)
"""Small enough to be passed within a second, large enough for an engine's own processes."""
_MILLISECONDS: Final = 1200
"""Twelve periods of a quota."""
_BEYOND: Final = 2
"""The program asks for so many times the limit."""
_TIMEOUT: Final = seconds(60)
_TOLERANCE: Final = 1.2
"""A quota is counted by the period, and lets pass what it is late to see."""
_TELLING: Final = 1.5
"""Natively it must come so many times as far as the limit."""
_AGAIN: Final = 11  # EAGAIN
_KILLED: Final = 9  # SIGKILL
_NO_MEMORY: Final = 12  # ENOMEM, the exit code of a child that was given none
_MEBIBYTE: Final = 1 << 20


def natively(runner: Runner, native: TargetName) -> Environment:
    """Return how far the program comes without any limit; nothing where it cannot run."""
    context, target = _context(runner, native), runner.targets[native]
    with (
        contextlib.suppress(IsobenchError),
        target.open(context.of_stage(runner.stage(target))) as session,
    ):
        return _pushed(runner, context, session)
    return Environment(facts={})


def _context(runner: Runner, label: TargetName) -> Context:
    return runner.context(Visit(block=0, target=label, workload=WorkloadName("")))


def limits_something(target: Target) -> bool:
    """Say whether this is a container with limits that can be set here."""
    return (
        target.technology is Technology.CONTAINERIZATION
        and isinstance(target, Limiter)
        and bool(target.limitable)
    )


def push(runner: Runner, label: TargetName, without: Environment) -> tuple[LimitCheck, ...]:
    """Set all limits that a target can set in a fresh instance, push past each; `without` is how
    far the program came natively.
    """
    context, target = _context(runner, label), runner.targets[label]
    assert isinstance(target, Limiter)
    can = [resource for resource in Resource if resource in target.limitable]
    try:
        limited = target.limited(LIMITS)
        with limited.open(context.of_stage(runner.stage(target))) as session:
            proof = runner.prover.prove_session(context, session)
            if proof.unmet:
                return tuple(_unknown(resource, proof.unmet) for resource in can)
            inside = _pushed(runner, context, session)
    except PluginError as error:
        runner.sink.log(label, error.log.encode(errors="backslashreplace"))
        return tuple(_unknown(resource, f"{error} ({error.hint})") for resource in can)
    except IsobenchError as error:
        return tuple(_unknown(resource, str(error)) for resource in can)
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises is an unknown, not our end
        return tuple(_unknown(resource, f"{type(error).__name__}: {error}") for resource in can)
    found = {check.resource: check for check in judge(inside, without)}
    return tuple(found[resource] for resource in can)


def _pushed(runner: Runner, context: Context, session: Session) -> Environment:
    words = (
        _MILLISECONDS,
        _BEYOND * LIMITS.write_rate,
        _BEYOND * LIMITS.processes,
        _BEYOND * LIMITS.memory // _MEBIBYTE,
    )
    return runner.prover.facts(context, session, PROGRAM, map(str, words), timeout=_TIMEOUT)


# ---- judging: pure -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    unit: str
    limit: float
    fact: str
    scale: float
    """What one of the fact's units is in units of the limit."""
    counter: str = ""
    exact: bool = False
    """What is counted one by one is never passed by a little."""


_RULES: Final[Mapping[Resource, _Rule]] = {
    Resource.CPU: _Rule(
        unit="CPUs",
        limit=LIMITS.cpus,
        fact="limit.cpu.permille",
        scale=1e-3,
        counter="limit.cpu.throttled",
    ),
    Resource.MEMORY: _Rule(
        unit="MiB",
        limit=LIMITS.memory / _MEBIBYTE,
        fact="limit.memory.filled_mib",
        scale=1,
        counter="limit.memory.kills",
        exact=True,
    ),
    Resource.PROCESSES: _Rule(
        unit="processes",
        limit=LIMITS.processes,
        fact="limit.processes.started",
        scale=1,
        counter="limit.processes.refused",
        exact=True,
    ),
    Resource.IO: _Rule(
        unit="MiB/s",
        limit=LIMITS.write_rate / _MEBIBYTE,
        fact="limit.io.bytes_per_second",
        scale=1 / _MEBIBYTE,
    ),
}


def judge(inside: Environment, without: Environment) -> Iterator[LimitCheck]:
    """Yield a check for each limit of LIMITS, from what the program has said with and without."""
    for resource, rule in _RULES.items():
        reached, native = _number(inside, rule.fact), _number(without, rule.fact)
        reached = None if reached is None else reached * rule.scale
        native = None if native is None else native * rule.scale
        held, why = _held(resource, rule, inside, reached, native)
        counted = _number(inside, rule.counter)
        yield LimitCheck(
            resource=resource,
            unit=rule.unit,
            limit=rule.limit,
            reached=reached,
            native=native,
            counted=None if counted is None else int(counted),
            held=held,
            why=why,
        )


def _held(
    resource: Resource,
    rule: _Rule,
    inside: Environment,
    reached: float | None,
    native: float | None,
) -> tuple[bool | None, str]:
    if reached is None:
        return None, "how far the program came was not to be seen"
    if native is None or native < _TELLING * rule.limit:
        return None, "natively the program did not come past the limit either"
    if reached > rule.limit * (1 if rule.exact else _TOLERANCE):
        return False, ""
    stopped = {
        Resource.PROCESSES: _number(inside, "limit.processes.errno") == _AGAIN,
        Resource.MEMORY: _number(inside, "limit.memory.signal") == _KILLED
        or _number(inside, "limit.memory.exit") == _NO_MEMORY,
    }
    if not stopped.get(resource, True):
        return None, "something else than a limit stopped the program"
    return True, ""


def _number(environment: Environment, key: str) -> float | None:
    value = environment.value(key)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _unknown(resource: Resource, why: str) -> LimitCheck:
    rule = _RULES[resource]
    return LimitCheck(
        resource=resource,
        unit=rule.unit,
        limit=rule.limit,
        reached=None,
        native=None,
        counted=None,
        held=None,
        why=why,
    )
