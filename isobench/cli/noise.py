"""`isobench noise`: show the smallest effects that this machine can resolve."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isobench.cli import INTERRUPTED, _progress
from isobench.cli._exits import (
    NOISE_FAILURES,
    NOISY,
    exit_code,
    refuse_unknown,
)
from isobench.cli._inputs import refuse_links, registry_of, runs_at, workloads_of
from isobench.cli._options import (
    config_option,
    document_options,
    fail_on_option,
    folder_option,
    workloads_option,
)
from isobench.cli._outputs import announce, leftover_text, publish, refuse_unwritable
from isobench.config import parameters
from isobench.model.bounds import MOST_WANTED
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from isobench.report.write import Outcome


@click.command()
@click.argument("name", metavar="[RUN]", required=False)
@workloads_option
@folder_option
@click.option("--budget", type=parameters.Duration(), help="How long to measure (default 75s).")
# Three blocks are the fewest for an interval.
@click.option(
    "-r",
    "--blocks",
    "--runs",
    type=click.IntRange(3, MOST_WANTED),
    help="Measure exactly so many blocks.",
)
@click.option(
    "--target-precision",
    type=parameters.Share(),
    default="2.5%",
    help="Half-width of intervals to plan for (2.5%).",
)
@click.option(
    "--margin",
    type=parameters.Share(),
    default="5%",
    help="The largest acceptable noise floor (5%).",
)
@click.option(
    "--seed", type=parameters.SEED, envvar="ISOBENCH_SEED", help="Seed of the order of visits."
)
@click.option(
    "-o", "--output", type=parameters.PathName(path_type=Path), help="Folder for this run."
)
@document_options
@fail_on_option(NOISE_FAILURES)
@config_option
def noise(name: str | None, **options: Any) -> None:
    """Show the smallest effects that this machine can resolve, by measuring native twice.

    With RUN (a folder, a zip or "latest"), nothing is measured: the samples of native in that run
    are used.
    """
    from isobench.comparison.noise import machine_noise
    from isobench.report import noise as view

    refuse_unknown(options["fail_on"], NOISE_FAILURES)
    refuse_unwritable(options)
    _refuse_useless(name, options)
    outcome = None
    if name is None:
        outcome = _native_alone(options)
        run = outcome.run()
    else:
        (run,) = runs_at([name])
    shares = {"precision": options["target_precision"], "margin": options["margin"]}
    try:
        found = machine_noise(run, **shares)
    except UsageError:
        # An interruption may come before enough blocks are measured. Then it is the reason, and not
        # a mistake of the user.
        if outcome is None or not outcome.interrupted:
            raise
        sys.exit(INTERRUPTED)
    unwritten = publish(
        view.build(found),
        options,
        document=lambda: view.document(found),
        csv=lambda: view.csv(found),
    )
    code = 0 if outcome is None else exit_code(outcome, ())
    loud = any(one.exceeds for one in found.workloads if one.metric == "time")
    sys.exit(code or (NOISY if "noisy" in options["fail_on"] and loud else unwritten))


def _refuse_useless(name: str | None, options: Mapping[str, Any]) -> None:
    """Check that options of measuring have an effect. UsageError: they have none."""
    given = [
        flag for flag in ("workloads", "folders", "budget", "blocks", "output") if options[flag]
    ]
    if name is not None and given:
        flag = "workload-folder" if given[0] == "folders" else given[0]
        raise UsageError(
            f"--{flag} cannot be used with a RUN, which is already measured",
            hint=f"leave out RUN, or --{flag}",
        )


def _native_alone(options: Mapping[str, Any]) -> "Outcome":
    """Measure native against native."""
    import datetime as dt

    from isobench.config import paths
    from isobench.config.options import UNBOUNDED, RunOptions
    from isobench.run import cleanup, lifecycle, selection

    refuse_links(options["output"] or paths.results())
    registry, _ = registry_of(options["config"])
    blocks = options["blocks"]
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    run_options = RunOptions(
        targets=("native",),
        workloads=options["workloads"],
        folders=tuple(options["folders"]),
        budget=options["budget"] or (UNBOUNDED if blocks else 75.0),
        minimum_blocks=blocks or 10,
        maximum_blocks=blocks or 60,
        precision=0.0,  # never stop early: more blocks estimate the noise better
        margin=options["margin"],
        seed=options["seed"],
        # A folder of its own, so that `latest` stays the last run with targets.
        output=options["output"] or paths.results() / f"noise-{stamp}-{os.getpid()}",
        argv=tuple(sys.argv[1:]),
    )
    shown = _progress.Screen(quiet=options["quiet"], color=options["color"])
    try:
        cleanup.sweep_before(registry, lambda found: shown.say(leftover_text(found)))
        chosen = selection.choose(run_options, registry, workloads_of(run_options), shown)
        announce(run_options, chosen, shown)
        return lifecycle.Lifecycle(run_options, registry, shown).run(chosen)
    finally:
        shown.close()
