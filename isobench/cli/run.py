"""`isobench run`: measure. Options override the environment, the configuration and defaults."""

import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from isobench.cli import _ci, _complete, _gate, _progress
from isobench.cli._exits import exit_code, refuse_unknown
from isobench.cli._inputs import (
    claims_of,
    configuration_of,
    configured_as_before,
    note_without_claims,
    refuse_ignored_claims,
    refuse_links,
    registry_of,
    run_at,
    store_at,
    workloads_of,
)
from isobench.cli._options import (
    Exporting,
    claims_option,
    color_option,
    config_option,
    export_options,
    fail_on_option,
    folder_option,
    store_option,
    targets_option,
    workloads_option,
)
from isobench.cli._outputs import (
    announce,
    console_of,
    export,
    leftover_text,
    refuse_unwritable,
    requested_exports,
    show,
)
from isobench.config import parameters, paths
from isobench.model import commands
from isobench.model.errors import NothingToRunError, UsageError
from isobench.model.wording import duration_text

if TYPE_CHECKING:
    from isobench.config.options import Launch, RunOptions
    from isobench.plugins.registry import Registry, Variation
    from isobench.report.write import Outcome
    from isobench.run.selection import Chosen
    from isobench.storage.reader import Run

_T = TypeVar("_T")

# What an earlier run has fixed, by option: --resume refuses them. Blocks that were measured in
# another way are no blocks of the same experiment.
DECIDED_BUDGET: Final = 1800.0
"""Seconds that a run until everything is decided takes at most, unless --budget says otherwise."""
_FIXED: Final = {
    "targets": "targets",
    "workloads": "workloads",
    "vary": "variations",
    "min_time": "iterations",
    "warmup": "warm-up",
    "affinity": "CPUs",
    "margin": "margin",
    "output": "folder",
    "quick": "kind",
    "fast": "kind",
    "rigorous": "kind",
}


@click.command(cls=Exporting)
@targets_option
@workloads_option
@folder_option
@click.option("--quick", is_flag=True, help="Measure for about a minute: ratios, no verdicts.")
@click.option("--fast", is_flag=True, help="Measure ten blocks at most.")
@click.option("--rigorous", is_flag=True, help="Measure for half an hour, to intervals of 0.1 %.")
@click.option(
    "--budget",
    type=parameters.Duration(),
    help="How long to measure (default 5m). Building programs and guests is not included.",
)
@click.option(
    "-r", "--blocks", "--runs", type=parameters.BLOCKS, help="Measure exactly so many blocks."
)
@click.option(
    "--min-blocks",
    type=parameters.BLOCKS,
    help="Fewest blocks (default 10): narrow intervals end no run before.",
)
@click.option("--max-blocks", type=parameters.BLOCKS, help="Most blocks (default 200).")
@click.option(
    "--target-precision",
    type=parameters.Share(),
    help="Stop when all intervals have this half-width or less (default 0.25%).",
)
@click.option(
    "--until",
    type=click.Choice(["precise", "decided"]),
    default="precise",
    help="When to stop before the budget ends: at narrow intervals, or as soon as every cell is"
    " decided. Then the budget is half an hour, unless --budget sets it.",
)
@click.option("--margin", type=parameters.Share(), help="Margin of near-native (5%).")
@click.option(
    "--min-time",
    type=parameters.Duration(),
    help="Duration of one native iteration, for example 0.05s.",
)
@click.option(
    "--warmup", type=click.IntRange(1, 1000), metavar="PASSES",
    help="Warm-up passes at the beginning of each visit (default 1).",
)  # fmt: skip
@click.option(
    "--affinity", "--cpu-affinity", type=parameters.Cpus(), metavar="CPUS",
    help="Confine native and all targets to these CPUs, for example 0,2-3.",
)  # fmt: skip
@click.option(
    "--seed", type=parameters.SEED, envvar="ISOBENCH_SEED", help="Seed of the order of visits."
)
@click.option(
    "--schedule",
    type=click.Choice(["rounds", "blocks", "duet", "sequential"]),
    default="rounds",
    help="How the targets of a block take turns. rounds: short turns of programs that wait; blocks:"
    " one visit each, in random order; duet: native and a target run at the same time, on half of"
    " the CPUs each.",
)
@click.option(
    "--launch",
    type=click.Choice(["auto", "fresh", "reuse"]),
    default="auto",
    help="Open sessions in every block (fresh) or keep them open (reuse). auto: reuse where opening"
    " takes over 1 s.",
)
@click.option(
    "--timeout",
    type=parameters.Duration(),
    help="End the whole run after this time, with exit code 124.",
)
@click.option(
    "--require",
    multiple=True,
    callback=parameters.names_of,
    shell_complete=_complete.targets,
    metavar="NAMES",
    help="Exit with code 3, before measuring, if one of these targets cannot run.",
)
@click.option(
    "--resume",
    # With both, click makes the value of the option optional.
    is_flag=False,
    flag_value="latest",
    metavar="[RUN]",
    help="Continue an interrupted run (default: the latest).",
)
@click.option(
    "--vary",
    multiple=True,
    metavar="TARGET.OPTION=VALUE",
    help="Also measure a target with one option changed, for example docker.seccomp=unconfined.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Print what would run; measure nothing.")
@click.option(
    "-o", "--output", type=parameters.PathName(path_type=Path), help="Folder for this run."
)
@export_options
@fail_on_option()
@store_option
@click.option(
    "--confirm", is_flag=True,
    help="With --fail-on regression: measure cells that have changed again. Only what changes twice"
    " is a regression.",
)  # fmt: skip
@claims_option
@config_option
@color_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the closing sentence.")
def run(**options: Any) -> None:
    """Measure the same workloads natively and under each target."""
    began = time.monotonic()
    outcome = measure(options)
    if outcome is None:
        return
    found = None
    try:
        show(outcome, options)
        if "regression" in options["fail_on"]:
            beside = _beside_history(outcome, options, time.monotonic() - began)
            if beside is not None:
                found = beside.found
                outcome = _answered_again(outcome, beside)
    finally:  # after the history, which JUnit shows too; and whatever became of it
        unwritten = export(outcome, options)
    _ci.publish(outcome, options["fail_on"], found)
    alarmed = found is not None and found.is_alarm
    # What was found matters more than an export that could not be written.
    sys.exit(exit_code(outcome, options["fail_on"], alarmed=alarmed) or unwritten)


def _answered_again(outcome: "Outcome", beside: "_gate.BesideHistory") -> "Outcome":
    """Return a run whose summary and page show how it compares with the history."""
    from isobench.report import write

    again = write.answer(outcome.source, outcome.folder, outcome.claims, folder=outcome.held_folder)
    return dataclasses.replace(again, interrupted=beside.interrupted, timed_out=beside.timed_out)


def _beside_history(
    outcome: "Outcome", options: Mapping[str, Any], spent: float
) -> "_gate.BesideHistory | None":
    """Print and return how a run compares with the history; None for one that did not end. The
    command has `spent` so many seconds already.
    """
    if outcome.interrupted or outcome.timed_out:
        return None
    from isobench.report import history as view

    console = console_of(options)

    def say(text: str) -> None:
        if not options["quiet"]:
            console.print(text, markup=False)

    beside = _gate.beside_history(outcome, options, measure, say, spent)
    console.print(view.findings_headline(beside.found), markup=False)
    return beside


def measure(options: Mapping[str, Any]) -> "Outcome | None":
    """Measure what the options of `isobench run` select; None for a dry run.

    Raises an IsobenchError where options are wrong, or nothing can be measured.
    """
    if options["dry_run"] and requested_exports(options):
        raise UsageError(
            "--dry-run measures nothing: there is nothing to export",
            hint="leave out --dry-run, or the --export flags",
        )
    registry, settings = registry_of(options["config"])
    run_options = _run_options(options, settings)
    refuse_unknown(options["fail_on"])
    _refuse_useless(options)
    earlier = _earlier(options["resume"])
    of_run = () if earlier is None else earlier.metadata.claims
    refuse_ignored_claims(options)
    note_without_claims(options["fail_on"], found=bool(run_options.claims or of_run))
    if earlier is not None:
        run_options = _resumed(run_options, earlier, options)
        if options["config"] is None:
            registry = configured_as_before(registry, earlier)
    # Not those in [run] of the file: whoever has written the commands has written that line too.
    registry.permit([*_named(options), *options["require"]])
    varied = [registry.vary(written) for written in dict.fromkeys(options["vary"])]
    if varied:
        registry, run_options = _with_variations(registry, run_options, varied)
    # All names and paths are checked before the slow part begins: cleaning up and probing.
    workloads = workloads_of(run_options)
    registry.select([*run_options.targets, *run_options.require])
    refuse_unwritable(options)
    refuse_links(run_options.output or paths.results())
    if earlier is None:
        from isobench.storage import writer

        if run_options.output is None:
            writer.check_results(paths.results())
        else:
            writer.refuse_used(run_options.output)
    return _measured(run_options, registry, workloads, earlier, options)


def _refuse_useless(options: Mapping[str, Any]) -> None:
    """Check that options of the history have an effect. UsageError: they have none."""
    if "regression" in options["fail_on"]:
        # A history that cannot be read must not end a run that took minutes.
        store = store_at(options["store"])
        if store.exists:
            store.check()
        elif options["store"]:  # the first run of a history has none, and a misspelt name neither
            _progress.note(
                f"--store {commands.path(store.folder)}: no history is there, so no regression can"
                " be found",
                hint=store.command("add"),
            )
        return
    for flag in ("confirm", "store"):
        if options[flag]:
            raise UsageError(
                f"--{flag} has no effect without --fail-on regression",
                hint=f"add --fail-on regression, or leave out --{flag}",
            )


def _measured(
    run_options: "RunOptions",
    registry: "Registry",
    workloads: Any,
    earlier: "Run | None",
    options: Mapping[str, Any],
) -> "Outcome | None":
    from isobench.run import cleanup, lifecycle, selection
    from isobench.run.time_limit import TimeLimit

    shown = _progress.Screen(quiet=options["quiet"], color=options["color"])
    try:
        with TimeLimit(run_options.time_limit) as limit:
            cleanup.sweep_before(registry, lambda found: shown.say(leftover_text(found)))
            shown.say("Looking for targets:")
            chosen = selection.choose(run_options, registry, workloads, shown)
            if "regression" in options["fail_on"]:
                _refuse_native_alone(chosen)
            if options["dry_run"]:
                _show_plan(run_options, chosen)
                return None
            announce(run_options, chosen, shown, earlier)
            chosen = selection.prepare(chosen, run_options, shown.say)
            run = lifecycle.Lifecycle(run_options, registry, shown, limit)
            return run.run(chosen, earlier)
    finally:
        shown.close()


def _refuse_native_alone(chosen: "Chosen") -> None:
    """Check that a run has something to compare with the history. UsageError: it has not."""
    if not {*chosen.able, *chosen.requested} - {"native"}:
        raise UsageError(
            "--fail-on regression compares ratios to native, and native alone would be measured",
            hint="name a target with --targets NAME",
        )


def _with_variations(
    registry: "Registry", run_options: "RunOptions", varied: "Sequence[Variation]"
) -> "tuple[Registry, RunOptions]":
    """Return a registry with the variations as targets, and options that select them.

    UsageError: two would have one name.
    """
    for name, times in Counter(one.name for one in varied).items():
        if times > 1:
            raise UsageError(
                f"--vary: {times} variations would be called {name}", hint="leave out one of them"
            )
    # A variation means nothing without the target that it varies, so that one is measured as well.
    names = dict.fromkeys(name for one in varied for name in (one.base, one.name))
    registry = registry.with_tables({one.name: one.table for one in varied})
    registry.permit(names)
    targets = tuple(dict.fromkeys([*(run_options.targets or ("auto",)), *names]))
    rows = [{"name": v.name, "base": v.base, "option": v.option, "value": v.value} for v in varied]
    return registry, dataclasses.replace(run_options, targets=targets, variations=tuple(rows))


def _earlier(name: str | None) -> "Run | None":
    """Return the run to resume: a folder, or "latest"; None where none is resumed.

    UsageError: the run cannot be resumed.
    """
    if name is None:
        return None
    from isobench.storage import lock, reader

    path = run_at(Path(name))
    lock.check_idle(path)
    earlier = reader.load(path)
    if not earlier.path.is_dir():
        raise UsageError(
            f"{earlier.path} is a zip: no records can be added to it", hint="unpack it first"
        )
    if not earlier.plan.blocks:
        raise UsageError(
            f"{earlier.path} ended before it had a plan", hint="begin a new run: isobench run"
        )
    _refuse_lost_evidence(earlier)
    return earlier


def _refuse_lost_evidence(earlier: "Run") -> None:
    """Refuse a run that has numbers of a target and no evidence of it: what a further part sees
    shows nothing of its earlier blocks. UsageError: it is one.
    """
    from isobench.model.plan import actual

    for name in dict.fromkeys(map(actual, earlier.samples["target"].unique())):
        fault = earlier.evidence_fault(name)
        if fault:
            raise UsageError(
                f"{earlier.path} cannot be resumed: {fault}, and {name} was measured",
                hint="use the whole folder of the run, or measure again: isobench run",
            )


def _resumed(run_options: "RunOptions", earlier: "Run", options: Mapping[str, Any]) -> "RunOptions":
    """Return options that continue an earlier run. UsageError: an option contradicts it."""
    from isobench.config.options import Until

    _refuse_fixed(earlier, options)
    run_options = _with_remaining_budget(run_options, earlier, options)
    before = earlier.metadata
    precision = run_options.precision
    if before.precision is not None and not options["target_precision"]:
        precision = before.precision
    cpus = frozenset(before.affinity)
    _refuse_unusable(cpus)
    labels = dict.fromkeys(visit.target for visit in earlier.plan.blocks[0].visits)
    return dataclasses.replace(
        run_options,
        # "native#2" is native's second visit of a block, and no target.
        targets=tuple(label for label in labels if "#" not in label),
        workloads=tuple(item.workload for item in earlier.plan.work),
        seed=earlier.plan.seed,
        quick=before.quick,
        precision=precision,
        until=Until.DECIDED if before.until == Until.DECIDED else run_options.until,
        schedule=earlier.plan.schedule,
        affinity=cpus,
    )


def _refuse_fixed(earlier: "Run", options: Mapping[str, Any]) -> None:
    for option, what in _FIXED.items():
        if options[option]:
            hint = f"leave out --{option.replace('_', '-')}"
            if option == "targets":
                hint += "; --require NAME permits the commands in a target's configuration"
            raise UsageError(f"--resume keeps the {what} of the earlier run", hint=hint)
    kept: dict[str, Any] = {"schedule": earlier.plan.schedule, "launch": earlier.metadata.launch}
    # A seed of the environment is a default.
    if _is_typed("seed"):
        kept["seed"] = earlier.plan.seed
    usual = {"schedule": "rounds", "launch": "auto"}
    for option, before in kept.items():
        if options[option] not in {usual.get(option), before}:
            raise UsageError(
                f"--resume keeps the {option} of the earlier run, {before}",
                hint=f"leave out --{option}",
            )


def _is_typed(option: str) -> bool:
    """Return whether the user has typed an option on the command line."""
    context = click.get_current_context(silent=True)
    source = None if context is None else context.get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _with_remaining_budget(
    run_options: "RunOptions", earlier: "Run", options: Mapping[str, Any]
) -> "RunOptions":
    """Return options with the time and blocks that the earlier run had left, or else with those
    that the user gives. NothingToRunError: the run is complete.
    """
    from isobench.config.options import UNBOUNDED

    before = earlier.metadata
    wants_more = options["budget"] or options["blocks"] or options["max_blocks"]
    has_more = earlier.begun < len(earlier.plan.blocks)
    if before.complete and not (wants_more and has_more):
        more = "--budget 10m measures more blocks; " if has_more else ""
        planned = "" if has_more else f": its plan has {earlier.begun} blocks"
        raise NothingToRunError(
            f"{earlier.path} is complete{planned}", hint=f"{more}without --resume a new run begins"
        )
    if wants_more:
        return run_options
    # A run without a budget has all the time in the world, however much of it has passed.
    budget = before.budget_seconds
    left = UNBOUNDED if budget is None else budget - (before.elapsed_seconds or 0.0)
    return dataclasses.replace(
        run_options,
        budget=max(left, 1.0),
        maximum_blocks=before.blocks_wanted or run_options.maximum_blocks,
    )


def _preset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that --quick, --fast or --rigorous stand for."""
    from isobench.config.options import QUICK

    if sum(bool(options[name]) for name in ("quick", "fast", "rigorous")) > 1:
        raise UsageError(
            "--quick, --fast and --rigorous exclude each other", hint="use one of them"
        )
    if options["quick"]:
        return dict(QUICK)
    if options["fast"]:
        return {"maximum_blocks": 10}
    if options["rigorous"]:
        return {"budget": 1800.0, "precision": 0.001, "minimum_blocks": 20, "maximum_blocks": 1000}
    return {}


def _configured(settings: Any, config: Path | None) -> dict[str, Any]:
    """Return the options in the table [run] of the configuration; None where one is not set."""
    table = settings.run
    return {
        "budget": _read(parameters.Duration(), "budget", table, config),
        "precision": _read(parameters.Share(), "target_precision", table, config),
        "margin": _read(parameters.Share(), "margin", table, config),
        "minimum_blocks": table.blocks.min,
        "maximum_blocks": table.blocks.max,
        "seed": table.seed,
        "affinity": _read(parameters.Cpus(), "affinity", table, config),
    }


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the command line; None where one is not given."""
    return {
        "budget": options["budget"],
        "precision": options["target_precision"],
        "margin": options["margin"],
        "minimum_blocks": options["min_blocks"] or options["blocks"],
        "maximum_blocks": options["max_blocks"] or options["blocks"],
        "seed": options["seed"],
        "affinity": options["affinity"],
        "minimum_time": options["min_time"],
        "warmups": options["warmup"],
        "time_limit": options["timeout"],
        "output": options["output"],
    }


def _values(options: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    """Return the values of RunOptions that are set: the command line overrides the configuration,
    which overrides presets.
    """
    from isobench.config.options import UNBOUNDED, RunOptions

    given = _given(options)
    values = _preset(options)
    for layer in (_configured(settings, options["config"]), given):
        values |= {key: value for key, value in layer.items() if value is not None}
    # --blocks means exactly so many: neither the time nor narrow intervals end such a run, unless
    # the user sets them too.
    if options["blocks"] and not options["budget"]:
        values["budget"] = UNBOUNDED
    if options["blocks"] and not options["target_precision"]:
        values["precision"] = 0.0
    if options["blocks"]:
        values["leave_width"] = None
    if options["until"] == "decided":
        _demand_free_blocks(options)
        values = {"maximum_blocks": 1000, "budget": DECIDED_BUDGET} | values
    fewest, most = (
        values.get("minimum_blocks", 10),
        values.get("maximum_blocks", RunOptions.maximum_blocks),
    )
    if given["minimum_blocks"] and given["maximum_blocks"] and fewest > most:
        raise UsageError(
            f"at least {fewest} and at most {most} blocks contradict each other",
            hint="change one of the two",
        )
    if fewest > most:
        # The user has set one of the two; the other is a default, which must not contradict it.
        if given["minimum_blocks"]:
            values["maximum_blocks"] = fewest
        else:
            values["minimum_blocks"] = most
    return values


def _demand_free_blocks(options: Mapping[str, Any]) -> None:
    if options["blocks"] or options["quick"]:
        other = "--blocks" if options["blocks"] else "--quick"
        raise UsageError(
            f"{other} does not go with --until decided: such a run decides nothing before its end",
            hint=f"leave out {other}; --max-blocks sets how many blocks there are at most",
        )


def _run_options(options: Mapping[str, Any], settings: Any) -> "RunOptions":
    """Return the options of a run. UsageError: some contradict each other."""
    from isobench.config.options import RunOptions, Until
    from isobench.model import Schedule

    table = settings.run
    values = _values(options, settings)
    _refuse_unusable(values.get("affinity", frozenset()))
    return RunOptions(
        targets=_named(options) or tuple(table.targets),
        workloads=options["workloads"] or tuple(table.workloads),
        folders=tuple(options["folders"]),
        require=options["require"],
        launch=_launch(options, values.get("affinity", frozenset())),
        schedule=Schedule(options["schedule"]),
        until=Until(options["until"]),
        claims=claims_of(options["claims"], settings, options["config"]),
        confirms=options.get("confirms"),
        argv=tuple(sys.argv[1:]),
        **values,
    )


def _named(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the targets that the user names, on the command line or in the environment."""
    words = os.environ.get("ISOBENCH_TARGETS", "").split(",")
    return options["targets"] or tuple(word.strip() for word in words if word.strip())


def _launch(options: Mapping[str, Any], cpus: "frozenset[int]") -> "Launch":
    """Return which sessions stay open for several blocks. UsageError: a duet is not possible."""
    from isobench.config.options import Launch

    if options["schedule"] != "duet":
        return Launch(options["launch"])
    if len(cpus or os.sched_getaffinity(0)) == 1:
        raise UsageError(
            "--schedule duet needs two CPUs, and one can be used here",
            hint="leave out --schedule duet, or widen --affinity",
        )
    if options["launch"] == "reuse":
        raise UsageError(
            "--schedule duet swaps the CPUs in every block, and an open session cannot change its"
            " CPUs",
            hint="leave out --launch reuse",
        )
    return Launch.FRESH


def _read(kind: "click.ParamType[_T]", key: str, table: Any, config: Path | None) -> "_T | None":
    """Return an option of the table [run] that is written like its option of the command line;
    None where it is not set. UsageError: it cannot be read.
    """
    text = getattr(table, key)
    try:
        return kind.convert(text, None, None) if text else None
    except click.BadParameter as error:
        source = configuration_of(config).source
        raise UsageError(
            f"{source.place('run', key)}: [run] {key}: {error.message}",
            hint=f"fix it in {source.origin}",
        ) from None


def _refuse_unusable(cpus: "frozenset[int]") -> None:
    """Check that CPUs can be used. UsageError: some cannot."""
    # A CPU may be offline, or excluded for this process by a cpuset or by taskset(1).
    usable = os.sched_getaffinity(0)
    if cpus - usable:
        raise UsageError(
            f"--affinity: CPU {', '.join(map(str, sorted(cpus - usable)))} cannot be used here",
            hint=f"usable CPUs: {', '.join(map(str, sorted(usable)))}",
        )


def _show_plan(run_options: "RunOptions", chosen: Any) -> None:
    from isobench.model import Available

    _progress.say(f"targets:   {', '.join(chosen.able)}")
    for name, answer in chosen.answers.items():
        if not isinstance(answer, Available):
            _progress.say(f"  skipped: {name}: {answer.reason}")
    _progress.say(f"workloads: {', '.join(chosen.workloads)}")
    fewest, most = run_options.minimum_blocks, run_options.maximum_blocks
    blocks = f"{most}" if fewest == most else f"{fewest} to {most}"
    _progress.say(f"blocks:    {blocks}, native twice in each")
    _progress.say(f"budget:    {duration_text(run_options.budget)}")
