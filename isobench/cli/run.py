"""`isobench run`: flags over environment over configuration over defaults, then a campaign."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from isobench.cli import _complete, _progress
from isobench.cli._errors import heed_termination
from isobench.cli._exits import exit_code, refuse_unknown
from isobench.cli._inputs import (
    claims_of,
    configured_as_before,
    latest,
    registry_of,
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
    targets_option,
    workloads_option,
)
from isobench.cli._outputs import announce, cleared, exports_asked, refuse_unwritable, show
from isobench.config import parameters
from isobench.model.errors import NothingToRunError, UsageError
from isobench.model.wording import duration_text

if TYPE_CHECKING:
    from isobench.config.options import Launch, RunOptions
    from isobench.plugins.registry import Registry, Variation
    from isobench.report.write import Outcome
    from isobench.storage.reader import Run

_T = TypeVar("_T")

_SETTLED: Final = {
    "targets": "targets",
    "workloads": "workloads",
    "vary": "variations",
    "min_time": "iterations",
    "warmup": "warm-up",
    "affinity": "CPUs",
    "margin": "margin",
    "quick": "kind",
    "fast": "kind",
    "rigorous": "kind",
}
"""Flags that say what a run is, and what they settle: an earlier run has its own."""


@click.command(cls=Exporting)
@targets_option
@workloads_option
@folder_option
@click.option("--quick", is_flag=True, help="About a minute; ratios, no verdicts.")
@click.option("--fast", is_flag=True, help="Ten blocks at most.")
@click.option("--rigorous", is_flag=True, help="Half an hour, intervals of 1 %.")
@click.option(
    "--budget",
    type=parameters.Duration(),
    help="How long to measure (default 5m); programs and guests are made before.",
)
@click.option(
    "-r", "--blocks", "--runs", type=click.IntRange(1, 1000), help="Exactly so many blocks."
)
@click.option(
    "--min-blocks", type=click.IntRange(1, 1000), help="Fewest blocks for verdicts (default 10)."
)
@click.option("--max-blocks", type=click.IntRange(1, 1000), help="Most blocks (default 60).")
@click.option(
    "--target-precision",
    type=parameters.Share(),
    help="Stop when all intervals are this narrow (2.5%).",
)
@click.option("--margin", type=parameters.Share(), help="What counts as near-native (5%).")
@click.option(
    "--min-time",
    type=parameters.Duration(),
    help="Length of one native iteration, for example 0.05s.",
)
@click.option(
    "--warmup", type=click.IntRange(1, 1000), metavar="PASSES",
    help="Passes before the timed ones of each visit (default 1).",
)  # fmt: skip
@click.option(
    "--affinity", "--cpu-affinity", type=parameters.Cpus(), metavar="CPUS",
    help="Confine the run to these CPUs, as in 0,2-3: native and all targets alike.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), envvar="ISOBENCH_SEED", help="Replay an order.")
@click.option(
    "--schedule",
    type=click.Choice(["blocks", "duet", "sequential"]),
    default="blocks",
    help="Order of visits; duet: native at the same time as each target, on half of the CPUs each.",
)
@click.option(
    "--launch",
    type=click.Choice(["auto", "fresh", "reuse"]),
    default="auto",
    help="Sessions: opened anew in every block, or reused (auto: where opening takes over 1 s).",
)
@click.option(
    "--timeout",
    type=parameters.Duration(),
    help="End the whole run then, with exit code 124.",
)
@click.option(
    "--require",
    multiple=True,
    callback=parameters.names_of,
    shell_complete=_complete.targets,
    metavar="NAMES",
    help="Fail unless these can run.",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value="latest",
    metavar="[RUN]",
    help="Go on with an interrupted run (the latest).",
)
@click.option(
    "--vary",
    multiple=True,
    metavar="TARGET.OPTION=VALUE",
    help="Measure a target with one option changed beside it: docker.seccomp=unconfined.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would run; measure nothing.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of this run.")
@export_options
@fail_on_option
@claims_option
@config_option
@color_option
@click.option("-q", "--quiet", is_flag=True, help="Only the closing sentence.")
def run(**options: Any) -> None:
    """Measure: the same workloads natively and under each target."""
    outcome = measure(options)
    if outcome is None:
        return
    show(outcome, options)
    sys.exit(exit_code(outcome, options["fail_on"]))


def measure(options: Mapping[str, Any]) -> "Outcome | None":
    """Measure what the options of `isobench run` ask for; None where they ask for nothing more than
    to say it.
    """
    from isobench.run import choose, cleanup, lifecycle

    heed_termination()
    if options["dry_run"] and exports_asked(options):
        raise UsageError(
            "--dry-run measures nothing: there is nothing to export",
            hint="leave out --dry-run, or the --export flags",
        )
    registry, settings = registry_of(options["config"])
    run_options = _wish(options, settings)
    refuse_unknown(options["fail_on"])
    earlier = _earlier(options["resume"])
    if earlier is not None:
        run_options = _same_again(run_options, earlier, options)
        if options["config"] is None:
            registry = configured_as_before(registry, earlier)
    registry.permit([*run_options.targets, *run_options.require])
    varied = [registry.vary(written) for written in options["vary"]]
    if varied:
        registry, run_options = _with_variations(registry, run_options, varied)
    workloads = workloads_of(run_options)
    registry.select(
        [*run_options.targets, *run_options.require]
    )  # a misspelt name is reported before all else
    refuse_unwritable(options)
    shown = _progress.Screen(quiet=options["quiet"], color=options["color"])
    try:
        cleanup.sweep(registry, everything=False, observer=lambda found: shown.say(cleared(found)))
        shown.say("Looking for targets:")
        chosen = choose.choose(run_options, registry, workloads, shown)
        if options["dry_run"]:
            _show_plan(run_options, chosen)
            return None
        announce(run_options, chosen, shown, earlier)
        chosen = choose.prepare(chosen, run_options, shown.say)
        return lifecycle.Lifecycle(run_options, registry, shown).run(chosen, earlier)
    finally:
        shown.close()


def _with_variations(
    registry: "Registry", run_options: "RunOptions", varied: "Sequence[Variation]"
) -> "tuple[Registry, RunOptions]":
    """Return a registry that knows the variations, and a wish for them and what they vary."""
    names = dict.fromkeys(name for one in varied for name in (one.base, one.name))
    registry = registry.with_tables({one.name: one.table for one in varied})
    registry.permit(names)
    targets = tuple(dict.fromkeys([*(run_options.targets or ("auto",)), *names]))
    rows = [{"name": v.name, "base": v.base, "option": v.option, "value": v.value} for v in varied]
    return registry, dataclasses.replace(run_options, targets=targets, variations=tuple(rows))


def _earlier(name: str | None) -> "Run | None":
    """Return the run to resume: a folder, or "latest"."""
    if name is None:
        return None
    from isobench.storage import lock, reader

    path = latest() if name == "latest" else Path(name)
    lock.check_idle(path)
    earlier = reader.load(path)
    if not earlier.path.is_dir():
        raise UsageError(
            f"{earlier.path} is a file: records cannot be added to it", hint="unpack it first"
        )
    if not earlier.plan.blocks:
        raise UsageError(
            f"{earlier.path} ended before it had a plan", hint="measure anew with isobench run"
        )
    return earlier


def _same_again(
    run_options: "RunOptions", earlier: "Run", options: Mapping[str, Any]
) -> "RunOptions":
    """Return a wish for what an earlier run was, and for what it had not come to."""
    from isobench.config.options import UNBOUNDED

    for flag, what in _SETTLED.items():
        if options[flag]:
            raise UsageError(
                f"--resume goes on with the {what} of the earlier run",
                hint=f"leave out --{flag.replace('_', '-')}",
            )
    if options["schedule"] not in {"blocks", earlier.plan.schedule}:
        raise UsageError(
            f"--resume goes on with the schedule of the earlier run, {earlier.plan.schedule}",
            hint="leave out --schedule",
        )
    before = earlier.metadata
    longer = bool(options["budget"] or options["blocks"] or options["max_blocks"])
    if not longer and before.complete:
        raise NothingToRunError(
            f"{earlier.path} is complete",
            hint="--budget 10m measures more blocks of its plan; without --resume a new run begins",
        )
    if not longer:
        left = (before.budget_seconds or UNBOUNDED) - (before.elapsed_seconds or 0.0)
        run_options = dataclasses.replace(
            run_options,
            budget=max(left, 0.0),
            maximum_blocks=before.blocks_wanted or run_options.maximum_blocks,
        )
    cpus = frozenset(before.affinity)
    _refuse_unusable(cpus)
    labels = dict.fromkeys(visit.target for visit in earlier.plan.blocks[0].visits)
    return dataclasses.replace(
        run_options,
        targets=tuple(label for label in labels if "#" not in label),
        workloads=tuple(item.workload for item in earlier.plan.work),
        seed=earlier.plan.seed,
        quick=before.quick,
        schedule=earlier.plan.schedule,
        affinity=cpus,
    )


def _wish(options: Mapping[str, Any], settings: Any) -> "RunOptions":
    """Return flags over environment over configuration over defaults."""
    from isobench.config.options import QUICK, UNBOUNDED, RunOptions
    from isobench.model import Schedule

    table = settings.run
    preset: dict[str, Any] = {}
    if sum(bool(options[name]) for name in ("quick", "fast", "rigorous")) > 1:
        raise UsageError(
            "--quick, --fast and --rigorous exclude each other", hint="give one of them"
        )
    if options["quick"]:
        preset = dict(QUICK)
    elif options["fast"]:
        preset = {"maximum_blocks": 10}
    elif options["rigorous"]:
        preset = {"budget": 1800.0, "precision": 0.01, "minimum_blocks": 20}
    configured = {
        "budget": _read(parameters.Duration(), "budget", table, options["config"]),
        "precision": _read(parameters.Share(), "target_precision", table, options["config"]),
        "margin": _read(parameters.Share(), "margin", table, options["config"]),
        "minimum_blocks": table.blocks.min,
        "maximum_blocks": table.blocks.max,
        "seed": table.seed,
        "affinity": _read(parameters.Cpus(), "affinity", table, options["config"]),
    }
    given = {
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
    values = dict(preset)
    for layer in (configured, given):
        values |= {key: value for key, value in layer.items() if value is not None}
    if options["blocks"] and not options["budget"]:
        values["budget"] = UNBOUNDED  # so many blocks were asked for: however long they take
    if options["blocks"] and not options["target_precision"]:
        values["precision"] = 0.0  # and however precise they are
    fewest, most = values.get("minimum_blocks", 10), values.get("maximum_blocks", 60)
    if given["minimum_blocks"] and given["maximum_blocks"] and fewest > most:
        raise UsageError(
            f"at least {fewest} and at most {most} blocks cannot be", hint="mend one of the two"
        )
    if fewest > most:  # one of the two is a default, and gives way
        values["maximum_blocks" if given["minimum_blocks"] else "minimum_blocks"] = (
            fewest if given["minimum_blocks"] else most
        )
    _refuse_unusable(values.get("affinity", frozenset()))
    from_environment = tuple(
        n.strip() for n in os.environ.get("ISOBENCH_TARGETS", "").split(",") if n.strip()
    )
    return RunOptions(
        targets=options["targets"] or from_environment or tuple(table.targets),
        workloads=options["workloads"] or tuple(table.workloads),
        folders=tuple(options["folders"]),
        require=options["require"],
        launch=_launch(options, values.get("affinity", frozenset())),
        schedule=Schedule(options["schedule"]),
        claims=claims_of(options["claims"], settings, options["config"]),
        argv=tuple(sys.argv[1:]),
        **values,
    )


def _launch(options: Mapping[str, Any], cpus: "frozenset[int]") -> "Launch":
    """Return whose sessions serve several blocks: in a duet none, whose CPUs are swapped."""
    from isobench.config.options import Launch

    if options["schedule"] != "duet":
        return Launch(options["launch"])
    if len(cpus or os.sched_getaffinity(0)) == 1:
        raise UsageError(
            "--schedule duet takes two CPUs, and one can be used here",
            hint="leave out --schedule duet, or widen --affinity",
        )
    if options["launch"] == "reuse":
        raise UsageError(
            "--schedule duet swaps CPUs from block to block, which no open session can",
            hint="leave out --launch reuse",
        )
    return Launch.FRESH


def _read(kind: "click.ParamType[_T]", key: str, table: Any, config: Path | None) -> "_T | None":
    """Return an option of [run] that is written as its flag is."""
    from isobench.config import file as configuration

    text = getattr(table, key)
    try:
        return kind.convert(text, None, None) if text else None
    except click.BadParameter as error:
        source = configuration.find(config).source
        raise UsageError(
            f"{source.place('run', key)}: [run] {key}: {error.message}",
            hint=f"fix it in {source.origin}",
        ) from None


def _refuse_unusable(cpus: "frozenset[int]") -> None:
    usable = os.sched_getaffinity(0)
    if cpus - usable:
        raise UsageError(
            f"--affinity: CPU {', '.join(map(str, sorted(cpus - usable)))} cannot be used here",
            hint=f"usable are {', '.join(map(str, sorted(usable)))}",
        )


def _show_plan(run_options: "RunOptions", chosen: Any) -> None:
    from isobench.model import Available

    click.echo(f"targets:   {', '.join(chosen.able)}")
    for name, answer in chosen.answers.items():
        if not isinstance(answer, Available):
            click.echo(f"  skipped: {name}: {answer.reason}")
    click.echo(f"workloads: {', '.join(chosen.workloads)}")
    fewest, most = run_options.minimum_blocks, run_options.maximum_blocks
    blocks = f"{most}" if fewest == most else f"{fewest} to {most}"
    click.echo(f"blocks:    {blocks}, native twice in each")
    click.echo(f"budget:    {duration_text(run_options.budget)}")
