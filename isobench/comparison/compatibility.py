"""Whether runs may be compared: what differs in machines, tools, programs and targets. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from isobench.evidence import parity, prove
from isobench.model.plan import actual
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.reader import Run
from isobench.storage.schema import PayloadEntry, RunMetadata, TargetState

MOST_OTHER_WORK: Final = 2.0
"""Each run chooses its loops from the times of its own trial: up to this factor they count as the
same.
"""
_STARTS: Final = "_startup"
"""What starts execute: older runs do not name the program of a workload."""
_PROCESSOR: Final = "machine"
"""The instruction set, in `host` of run.json: without the same one, no program is the same."""
_MACHINE: Final = ("cpu", "cpus", "virtualization")
"""What makes a machine. Its kernel may change, its frequency and load are what it does just now."""
_CONDITIONS: Final = (
    "kernel", "kernel_version", "microcode", "os", "clock_source", "frequency_governor", "turbo",
    "smt", "cpu_limit", "memory_limit", "huge_pages", "cgroups", "filesystem", "root",
)  # fmt: skip
_MITIGATION: Final = "mitigation."
_MITIGATED: Final = "mitigation of "
_MOMENTARY: Final = frozenset({"cost of reading the clock", "cgroup that gets the CPU"})
"""What sessions see that is other in each run: what is measured, and names of instances."""
_NO_TARGET: Final = ("machine", "run")


class Gravity(StrEnum):
    """What a difference does to a comparison."""

    REFUSED = "refused"  # nothing of the runs is comparable
    MACHINE = "machine"  # only ratios to native are comparable
    WARNED = "warned"  # it may explain what is found
    LISTED = "listed"  # it is what one wants to compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not alike in two sides; several values of a side are joined."""

    what: str
    where: str
    """"machine", "run" or the name of a target."""
    base: str
    head: str
    gravity: Gravity


def differences(base: Sequence[Run], head: Sequence[Run]) -> tuple[Difference, ...]:
    """Return what is not alike in all runs of both sides, in a fixed order.

    What a run does not know is no difference. Programs are compared cell by cell:
    `other_program`.
    """
    distinct: dict[tuple[str, str, str], Difference] = {}
    for found in (
        *_machine(base, head),
        *_circumstances(base, head),
        *(one for name in _targets(base, head) for one in _target(name, base, head)),
    ):
        # What all targets share (a kernel, a clock) is reported once, for the first that shows it.
        distinct.setdefault((found.what, found.base, found.head), found)
    return tuple(distinct.values())


def descriptions(found: Iterable[Difference]) -> Iterator[str]:
    """Yield differences in words; of mitigations, which are many, only the names."""
    mitigations = []
    for one in found:
        if one.what.startswith(_MITIGATED):
            mitigations.append(one.what.removeprefix(_MITIGATED))
        else:
            where = "" if one.where in _NO_TARGET else f"{one.where}: "
            yield f"{where}{one.what}: {one.base} -> {one.head}"
    if mitigations:
        yield f"mitigations: {', '.join(mitigations)}"


def other_program(
    runs: Iterable[Run], workload: WorkloadName, targets: Sequence[TargetName]
) -> str:
    """Return how the programs of a cell differ among runs, natively or inside; empty: they do not,
    or nothing is known of them.
    """
    made = list(runs)
    for name in targets:
        hashes = dict.fromkeys(
            payload for run in made if (payload := program_of(run, workload, actual(name)))
        )
        if len(hashes) > 1:
            compilers = dict.fromkeys(compiler for _, compiler in hashes)
            by = f", by {' and '.join(compilers)}" if len(compilers) > 1 else ""
            return f"not every run has the same program in {name}{by}"
    return ""


def other_work(runs: Iterable[Run], workload: WorkloadName) -> str:
    """Return how unlike the work of one iteration is among runs; empty: it is alike."""
    loops = [item.loops for run in runs for item in run.plan.work if item.workload == workload]
    if not loops or max(loops) <= MOST_OTHER_WORK * min(loops):
        return ""
    return f"an iteration has {min(loops)} loops in one run and {max(loops)} in another"


# ---- what is looked at


def _values(runs: Iterable[Run], value: Callable[[Run], object]) -> list[str]:
    """Return the values of a side, each once; what is unknown is left out."""
    found = (value(run) for run in runs)
    return list(dict.fromkeys(str(each) for each in found if each is not None))


def _differ(
    base: Sequence[Run],
    head: Sequence[Run],
    value: Callable[[Run], object],
    *,
    what: str,
    where: str,
    gravity: Gravity,
) -> Iterator[Difference]:
    first, second = _values(base, value), _values(head, value)
    if first and second and len({*first, *second}) > 1:
        yield Difference(
            what=what,
            where=where,
            base=" and ".join(first),
            head=" and ".join(second),
            gravity=gravity,
        )


def _host(key: str) -> Callable[[Run], object]:
    def value(run: Run) -> object:
        return run.metadata.host.get(key)

    return value


def _of_run(value: Callable[[RunMetadata], object]) -> Callable[[Run], object]:
    return lambda run: value(run.metadata)


def _machine(base: Sequence[Run], head: Sequence[Run]) -> Iterator[Difference]:
    hosts = [run.metadata.host for run in (*base, *head)]
    mitigations = sorted({key for facts in hosts for key in facts if key.startswith(_MITIGATION)})
    weights = {_PROCESSOR: Gravity.REFUSED} | dict.fromkeys(_MACHINE, Gravity.MACHINE)
    for key in (*weights, *_CONDITIONS, *mitigations):
        what = key.removeprefix(_MITIGATION).replace("_", " ")
        what = f"{_MITIGATED}{what}" if key in mitigations else what
        gravity = weights.get(key, Gravity.WARNED)
        yield from _differ(base, head, _host(key), what=what, where="machine", gravity=gravity)


def _circumstances(base: Sequence[Run], head: Sequence[Run]) -> Iterator[Difference]:
    kinds = (
        ("isobench", _of_run(lambda it: it.tool_version), Gravity.WARNED),
        ("compiler", _of_run(lambda it: it.compiler), Gravity.LISTED),
        ("flags", _of_run(lambda it: it.flags), Gravity.LISTED),
        ("launch", _of_run(lambda it: it.launch), Gravity.WARNED),
        ("schedule", lambda run: run.plan.schedule, Gravity.WARNED),
        # Versions that do not say had no other way.
        ("spawner", _of_run(lambda it: it.spawner or "subprocess"), Gravity.WARNED),
        ("completeness", _completeness, Gravity.WARNED),
    )
    for what, value, gravity in kinds:
        yield from _differ(base, head, value, what=what, where="run", gravity=gravity)
    yield from _own_programs(base, head)


def _completeness(run: Run) -> str:
    return "complete" if run.metadata.complete else "cut short"


def _own_programs(base: Sequence[Run], head: Sequence[Run]) -> Iterator[Difference]:
    """Yield the programs that stand between target and workload, where they are not alike."""

    def built(run: Run) -> dict[str, str]:
        own = [
            item
            for item in run.metadata.payloads
            if item.program.startswith("_") and item.program != _STARTS
        ]
        # All ABIs are made from one source: the first tells enough.
        return {one.program: one.sha256[:12] for one in own if one.abi == own[0].abi}

    def of(name: str) -> Callable[[Run], object]:
        return lambda run: built(run).get(name)

    for name in sorted({name for run in (*base, *head) for name in built(run)}):
        yield from _differ(
            base, head, of(name),
            what=f"isobench's own {name}", where="run", gravity=Gravity.WARNED,
        )  # fmt: skip


def _targets(base: Sequence[Run], head: Sequence[Run]) -> list[TargetName]:
    """Return the targets that both sides know something of, in the order of the first."""
    known = [{name for run in side for name in run.states} for side in (base, head)]
    ordered = dict.fromkeys(name for run in base for name in run.states)
    return [name for name in ordered if name in known[0] & known[1]]


def _target(name: TargetName, base: Sequence[Run], head: Sequence[Run]) -> Iterator[Difference]:
    kinds: tuple[tuple[str, Callable[[TargetState], object], Gravity], ...] = (
        ("version", lambda state: state.version, Gravity.LISTED),
        ("class", lambda state: state.technology, Gravity.WARNED),
        ("abi", lambda state: state.abi, Gravity.WARNED),
    )

    def of(value: Callable[[TargetState], object]) -> Callable[[Run], object]:
        return lambda run: value(run.state(name))

    for what, value, gravity in kinds:
        yield from _differ(base, head, of(value), what=what, where=name, gravity=gravity)
    yield from _seen_inside(name, base, head)


def _seen_inside(
    name: TargetName, base: Sequence[Run], head: Sequence[Run]
) -> Iterator[Difference]:
    """Yield what sessions of a target saw otherwise than those of the first run: storage, seccomp,
    CPUs, limits.
    """
    first, *others = [
        prove.gather(facts) for run in (*base, *head) if (facts := run.state(name).facts)
    ] or [prove.gather(())]
    shown: dict[tuple[str, str, str], None] = {}
    for other in others:
        for one in parity.differences(first, other):
            if one.label in _MOMENTARY:
                continue
            shown.setdefault((one.label, one.native, one.target))
    for label, before, after in shown:
        yield Difference(what=label, where=name, base=before, head=after, gravity=Gravity.WARNED)


def program_of(run: Run, workload: WorkloadName, target: TargetName) -> tuple[str, str] | None:
    """Return hash and compiler of what a cell runs, or None where it is not known."""
    payloads: Sequence[PayloadEntry] = run.metadata.payloads
    named = next((one.program for one in run.metadata.workloads if one.name == workload), None)
    programs = {item.program for item in payloads}
    program = named or (workload if workload in programs else _STARTS)
    abi = run.state(target).abi or next((item.abi for item in payloads), None)
    found = (item for item in payloads if (item.program, item.abi) == (program, abi))
    return next(((item.sha256, item.compiler) for item in found), None)
