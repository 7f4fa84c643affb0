"""Chooses what a run measures: targets that can run here, as many as fit into the budget."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from isobench.analysis import headline
from isobench.config.options import Observer, RunOptions
from isobench.evidence import host
from isobench.model import (
    Availability,
    Available,
    Lack,
    Need,
    Unavailable,
    Workload,
    commands,
)
from isobench.model.errors import (
    NothingToRunError,
    SessionError,
    UnavailableError,
)
from isobench.model.units import TargetName, WorkloadName
from isobench.model.wording import duration_text
from isobench.payload import build, compiler
from isobench.plugins import guard, packages
from isobench.plugins.api import Preparer, Target
from isobench.plugins.registry import Registry
from isobench.run import budget_room, cleanup
from isobench.storage.schema import LeftOut

_MOST_OFFERED: Final = 3
"""An error suggests at most so many targets in place of those that cannot run."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The targets and workloads of a run, and whether each target can run here."""

    targets: Mapping[TargetName, Target]
    answers: Mapping[TargetName, Availability]
    workloads: Mapping[WorkloadName, Workload]
    requested: frozenset[TargetName] = frozenset()
    """The targets that were requested by name, including native."""
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def able(self) -> dict[TargetName, Target]:
        """The targets that can run here."""
        return {n: t for n, t in self.targets.items() if isinstance(self.answers[n], Available)}


def probe_targets(
    targets: Mapping[TargetName, Target],
    on_answer: Callable[[TargetName, Availability], None],
    say: Callable[[str], None] = lambda _: None,
) -> dict[TargetName, Availability]:
    """Probe all targets in parallel. `on_answer` is called with each result.

    Probes start something: after an interruption it is removed, and `say` hears what is not.
    """
    answers: dict[TargetName, Availability] = {}

    def take(name: TargetName, answer: Availability) -> None:
        answers[name] = _for_this_user(_with_payloads(targets[name], answer))
        on_answer(name, answers[name])

    with cleanup.swept_if_interrupted(targets, say):
        guard.probe(targets, take)
    return answers


def _with_payloads(target: Target, answer: Availability) -> Availability:
    """Return an answer, which is Unavailable if no payload can be built for the target."""
    if isinstance(answer, Available) and (why := build.without_toolchain(target.abi)):
        return Unavailable(
            lack=Lack.PLUGIN,
            what=f"{why}, which {target.name} needs",
            hint=compiler.ADD_TOOLCHAIN,
        )
    return answer


def _for_this_user(answer: Availability) -> Availability:
    """Return an answer with a hint that this user can type (with sudo only where it is needed)."""
    if isinstance(answer, Unavailable):
        return replace(answer, hint=packages.for_this_user(answer.hint))
    return answer


def choose(
    options: RunOptions,
    registry: Registry,
    workloads: Mapping[WorkloadName, Workload],
    observer: Observer,
) -> Chosen:
    """Return what will run: of the targets that can run, those that fit into the budget.

    A target that was requested by name and cannot run is reported, and becomes a gap.
    UnavailableError: a required target cannot run, or none of the requested ones can.
    NothingToRunError: no workload is left.
    """
    targets, explicit = registry.select(options.targets)
    native = TargetName("native")
    # A required target need not be measured: --require docker makes a missing engine an error.
    required = {TargetName(name): registry.get(name) for name in options.require}
    # They are collected first, since an error lists all of them at once.
    unavailable: dict[TargetName, Unavailable] = {}

    def on_answer(name: TargetName, answer: Availability) -> None:
        if isinstance(answer, Unavailable) and name in {native, *explicit, *required}:
            unavailable[name] = answer
        else:
            observer.probed(name, answer)

    answers = probe_targets({**targets, **required}, on_answer, observer.say)
    lacking = {n: why for n, why in unavailable.items() if n == native or n in required}
    if lacking:
        raise _cannot_run(lacking)
    named = explicit - {native}
    others = targets.keys() - explicit - {native}
    # If only some of the requested targets cannot run, the others are measured.
    if named and named <= unavailable.keys() and not others:
        raise _cannot_run(unavailable, _can_run(registry, answers, options))
    for name, answer in unavailable.items():
        observer.probed(name, answer)
    if not workloads:
        raise NothingToRunError(
            "no workload is left to run", hint="isobench workloads lists them all"
        )
    _demand_possible(workloads, host.lacks(options.affinity))
    chosen = Chosen(
        targets=targets,
        answers={name: answers[name] for name in targets},
        workloads=workloads,
        requested=frozenset({native, *explicit, *(required.keys() & targets.keys())}),
    )
    return _with_room(chosen, options, observer)


def _demand_possible(workloads: Mapping[WorkloadName, Workload], lacks: Mapping[Need, str]) -> None:
    """Raise NothingToRunError if no workload can run on this host, in any target."""
    reasons = {name: workload.lack(lacks) for name, workload in workloads.items()}
    if all(reasons.values()):
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise NothingToRunError(
            f"no workload is left to run: {listed}",
            hint="widen --affinity, or name other workloads: isobench workloads",
        )


def _cannot_run(lacking: Mapping[TargetName, Unavailable], instead: str = "") -> UnavailableError:
    """Return the error that lists every target that cannot run, and what to type."""
    if len(lacking) == 1:
        ((name, why),) = lacking.items()
        hints = [why.hint, *([instead] if instead else [])]
        return UnavailableError(f"{name} cannot run here: {why.reason}", hint="\n".join(hints))
    lines = [f"  {name}: {why.reason}\n    → {why.hint}" for name, why in lacking.items()]
    title = f"{len(lacking)} of the requested targets cannot run here"
    return UnavailableError("\n".join([title, *lines]), hint=instead)


def _can_run(
    registry: Registry, known: Mapping[TargetName, Availability], options: RunOptions
) -> str:
    """Return a command that measures other targets, which can run here; empty where none can."""
    others = {name: registry.get(name) for name in registry.names() if name not in known}
    answers = probe_targets(others, lambda _name, _answer: None)
    able = [name for name, answer in answers.items() if isinstance(answer, Available)]
    able = budget_room.by_interest(able)[:_MOST_OFFERED]
    if not able:
        return ""
    command = commands.measure(
        options.argv,
        {"--targets": ",".join(able), "--workloads": ",".join(options.workloads)},
        names=(*commands.SHAPING, *commands.LENGTH, "--budget"),
    )
    return f"what can run here: {command}"


def _with_room(chosen: Chosen, options: RunOptions, observer: Observer) -> Chosen:
    """Leave out what does not fit into the budget, and show that."""
    cpus = len(os.sched_getaffinity(0))
    room = budget_room.Room(
        options=options,
        kinds={name: target.name for name, target in chosen.targets.items()},
        technologies={name: target.technology for name, target in chosen.targets.items()},
        requested=chosen.requested,
        # The load average counts waiting processes; measuring adds one.
        busy=max(1.0, (os.getloadavg()[0] + 1) / cpus),
    )
    # Before anything is prepared, which may take minutes for a target that then has no room.
    names, kept = room.choose(list(chosen.able), chosen.workloads)
    targets = [name for name in chosen.able if name not in names]
    dropped = [name for name in chosen.workloads if name not in kept]
    command = room.command(list(chosen.able), chosen.workloads)
    if targets or dropped:
        observer.say(headline.left_out_sentence(targets, dropped, command))
    answers = {
        name: Unavailable(
            lack=Lack.TIME,
            what=f"left out: a budget of {duration_text(options.budget)} has no room for it",
            hint=commands.measure(options.argv, {"--targets": name}),
        )
        for name in targets
    }
    return replace(
        chosen,
        answers={**chosen.answers, **answers},
        workloads={name: chosen.workloads[name] for name in kept},
        left_out=LeftOut(targets=tuple(targets), workloads=tuple(dropped), command=command),
    )


def prepare(chosen: Chosen, options: RunOptions, say: Callable[[str], None]) -> Chosen:
    """Make the files that targets keep between runs. A target for which that fails cannot run.

    UnavailableError: it is required, or no requested target is left.
    """
    answers = dict(chosen.answers)
    lost: dict[TargetName, Unavailable] = {}
    # A failure here is an Unavailable as from a probe, and ends the run only for required targets.
    for name, target in chosen.able.items():
        if not isinstance(target, Preparer):
            continue
        try:
            with (
                cleanup.swept_if_interrupted({name: target}, say),
                guard.within(target, "prepare", guard.PREPARE_LIMIT),
            ):
                target.prepare(say)
        except SessionError as error:
            lost[name] = Unavailable(
                lack=Lack.RUNTIME, what=f"it cannot be prepared: {error}", hint=error.hint
            )
            say(f"{name} cannot be prepared: {error}")
    required = {name: why for name, why in lost.items() if name in options.require}
    left = chosen.able.keys() - lost.keys() - {"native"}
    if required or (lost.keys() & chosen.requested and not left):
        raise _cannot_run(required or lost)
    return replace(chosen, answers={**answers, **lost})
