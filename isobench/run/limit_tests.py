"""Tests whether limits hold: sets them in an instance, and runs a program that demands more.

The program (workloads/_limits) does not know the limits. It runs natively first: a limit shows
nothing if the program gets no further than it without one.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

from isobench.model import Environment, LimitCheck, Limits, Resource, Technology, Visit
from isobench.model.errors import IsobenchError, PluginError
from isobench.model.units import TargetName, WorkloadName, seconds
from isobench.payload.build import LIMITS as PROGRAM
from isobench.plugins.api import Limiter, Session, Target
from isobench.run.context import Context
from isobench.run.measure import Runner

LIMITS: Final = Limits(cpus=0.5, memory=64 << 20, processes=64, write_rate=8 << 20)
"""Small enough to be passed within a second, large enough for an engine's own processes."""
# The period of a CPU quota is 100 ms by default (cpu.cfs_period_us), and quota may be exceeded
# within one. Twelve periods average that.
_MILLISECONDS: Final = 1200
_DEMAND_FACTOR: Final = 2
"""The program demands so many times the limit."""
_TIMEOUT: Final = seconds(60)
# The kernel accounts a quota in slices and per period, so that some time beyond it passes:
# https://docs.kernel.org/scheduler/sched-bwc.html
_TOLERANCE: Final = 1.2
_FEWEST_TIMES_NATIVE: Final = 1.5
"""Natively the program must get at least so many times the limit."""
_ALARM_INTERVAL: Final = 11  # EAGAIN
_SIGKILL: Final = 9  # SIGKILL
_ENOMEM: Final = 12  # the program's child exits with this number if it gets no memory
_MEBIBYTE: Final = 1 << 20


def run_natively(runner: Runner, native: TargetName) -> Environment:
    """Return what the program gets without limits; no facts where it cannot run."""
    context, target = _context(runner, native), runner.targets[native]
    with (
        contextlib.suppress(IsobenchError),
        runner.open(context, target) as session,
    ):
        return _run_program(runner, context, session)
    return Environment(facts={})


def _context(runner: Runner, label: TargetName) -> Context:
    return runner.context(Visit(block=0, target=label, workload=WorkloadName("")))


def limits_something(target: Target) -> bool:
    """Return whether this is a container whose limits can be set here, as far as that is known."""
    if target.technology is not Technology.CONTAINERIZATION:
        return False
    try:
        # Before Python 3.12, the first of the two asks the target as well.
        return isinstance(target, Limiter) and bool(target.limitable)
    except Exception:  # noqa: BLE001 - its limits are unknown, whatever a plug-in raises
        return False


def check_limits(runner: Runner, label: TargetName, without: Environment) -> tuple[LimitCheck, ...]:
    """Set all limits of a target in a new instance, and test each. `without` is what the program
    got natively.
    """
    context, target = _context(runner, label), cast("Limiter", runner.targets[label])
    can: list[Resource] = []
    try:
        limitable = target.limitable
        can = [resource for resource in Resource if resource in limitable]
        limited = target.limited(LIMITS)
        with runner.open(context, limited) as session:
            proof = runner.prover.prove_session(context, session)
            # A limit in something that is not the target shows nothing about the target.
            if proof.unmet:
                return tuple(_unknown(resource, proof.unmet) for resource in can)
            inside = _run_program(runner, context, session)
    except PluginError as error:
        runner.sink.log(label, error.log.encode(errors="backslashreplace"))
        return tuple(_unknown(resource, f"{error} ({error.hint})") for resource in can)
    except IsobenchError as error:
        return tuple(_unknown(resource, str(error)) for resource in can)
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises makes it unknown
        return tuple(_unknown(resource, f"{type(error).__name__}: {error}") for resource in can)
    found = {check.resource: check for check in judge(inside, without)}
    return tuple(found[resource] for resource in can)


def _run_program(runner: Runner, context: Context, session: Session) -> Environment:
    words = (
        _MILLISECONDS,
        _DEMAND_FACTOR * LIMITS.write_rate,
        _DEMAND_FACTOR * LIMITS.processes,
        _DEMAND_FACTOR * LIMITS.memory // _MEBIBYTE,
    )
    return runner.prover.facts(context, session, PROGRAM, map(str, words), timeout=_TIMEOUT)


# ---- judging: pure -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    unit: str
    limit: float
    fact: str
    scale: float
    """One unit of the fact, in units of the limit."""
    counter: str = ""
    exact: bool = False
    """Whether no tolerance applies, since the kernel counts the units one by one."""


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
    """Yield a check for each limit of LIMITS, from the facts with limits and without."""
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
        return None, "what the program got is not visible"
    # Where the program alone does not get clearly more than the limit, staying below it shows
    # nothing.
    if native is None or native < _FEWEST_TIMES_NATIVE * rule.limit:
        return None, "natively the program did not get more than the limit either"
    if reached > rule.limit * (1 if rule.exact else _TOLERANCE):
        return False, ""
    # The kernel refuses a process with EAGAIN (fork(2)). It kills a process that exceeds a memory
    # limit with SIGKILL, or a system without overcommit refuses the memory.
    stopped = {
        Resource.PROCESSES: _number(inside, "limit.processes.errno") == _ALARM_INTERVAL,
        Resource.MEMORY: _number(inside, "limit.memory.signal") == _SIGKILL
        or _number(inside, "limit.memory.exit") == _ENOMEM,
    }
    if not stopped.get(resource, True):
        return None, "something other than a limit stopped the program"
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
