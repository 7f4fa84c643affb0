"""`isobench verify`: judge claims on a run."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isobench.cli import _ci, run
from isobench.cli._exits import VERIFY_FAILURES, exit_code, refuse_unknown
from isobench.cli._inputs import (
    claims_of,
    note_without_claims,
    refuse_ignored_claims,
    registry_of,
    run_at,
)
from isobench.cli._options import (
    Exporting,
    claims_option,
    color_option,
    config_option,
    export_options,
    fail_on_option,
    output_option,
    run_argument,
)
from isobench.cli._outputs import console_of, export, note_moved, refuse_unwritable
from isobench.cli.report import answer_again
from isobench.config import parameters
from isobench.model import commands
from isobench.model.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from isobench.model import Claim
    from isobench.plugins.registry import Registry
    from isobench.report.write import Outcome


@click.command(cls=Exporting)
@run_argument
@claims_option
@click.option(
    "--measure",
    is_flag=True,
    help="Measure first what the claims need and can run here. Default where there is no run.",
)
@click.option("--budget", type=parameters.Duration(), help="How long to measure (default 5m).")
@output_option
@export_options
@fail_on_option(VERIFY_FAILURES)
@config_option
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Print figures that others have published.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the number of claims by status.")
def verify(path: Path | None, **options: Any) -> None:
    """Judge claims on a run: the sentences of the documents, or your own from a file.

    A claim is supported, refuted, inconclusive or untested. The output gives the figures behind
    each status, and what would change it. Default of RUN: the latest run; without any run, isobench
    measures first. A refuted claim gives exit code 1 only with --fail-on: "claim" means your own
    claims, "documents" the sentences of the documents, which --claims leaves out.
    """
    from rich.markup import escape

    from isobench.report import sections, text

    refuse_unknown(options["fail_on"], VERIFY_FAILURES)
    refuse_unwritable(options)
    if path is not None and (options["measure"] or options["budget"]):
        raise UsageError(
            "--measure and --budget cannot be used with a RUN, which is already measured",
            hint="leave out RUN, or --measure and --budget",
        )
    if options["claims"] and "documents" in options["fail_on"]:
        # With --measure only what the file needs is measured: the sentences would be untested.
        raise UsageError(
            "--fail-on documents has no effect with --claims: a file of claims is judged alone",
            hint="leave out --claims, or documents",
        )
    refuse_ignored_claims(options)
    registry, settings = registry_of(options["config"])
    own = claims_of(options["claims"], settings, options["config"])
    if options["measure"] or options["budget"] or (path is None and not _measured()):
        outcome = _measure_for(own, registry, options)
    else:
        outcome = answer_again(run_at(path), options["output"], own)
    # A file of claims is judged alone. Claims in the configuration are judged together with those
    # of the run and of the documents.
    ids = {claim.id for claim in (own if options["claims"] else outcome.summary.claims)}
    console = console_of(options)
    for line in _unknown_names(own, registry, outcome):
        console.print(f"[yellow]note:[/] {escape(line)}", soft_wrap=True)
    seen = sections.build(outcome.summary)
    text.verification(seen, ids, console, published=options["verbose"], short=options["quiet"])
    console.print(f"report: {outcome.folder / 'report.html'}", markup=False, soft_wrap=True)
    note_moved(outcome)
    unwritten = export(outcome, options)
    _ci.publish(outcome, options["fail_on"])
    judged = [claim for claim in outcome.summary.claims if claim.id in ids]
    note_without_claims(options["fail_on"], found=not all(claim.is_documents for claim in judged))
    sys.exit(exit_code(outcome, options["fail_on"], judged) or unwritten)


def _unknown_names(
    claims: "Sequence[Claim]", registry: "Registry", outcome: "Outcome"
) -> Iterator[str]:
    """Yield a note for each name in claims that no target or workload has: it may be misspelt."""
    from isobench.config.suggestions import suggestion
    from isobench.model import Technology
    from isobench.plugins import workload_folders

    measured = {str(item.name) for item in outcome.summary.targets}
    targets = {*map(str, registry.names()), *measured}
    metrics = {metric.name for row in outcome.summary.workloads for metric in row.metrics}
    known = {*workload_folders.find(), *(str(row.name) for row in outcome.summary.workloads)}
    known |= {name.partition(".")[0] for name in known}
    for claim in claims:
        whom = {*claim.targets, claim.reference} - {*Technology}
        for kind, names, wanted in (
            ("target", targets, whom),
            ("workload", known, set(claim.workloads)),
            ("metric", metrics, {claim.metric}),
        ):
            for name in sorted(wanted - names):
                hint = suggestion(name, sorted(names))
                note = f"claim {claim.id}: no {kind} is called {name!r}"
                yield f"{note}; {hint}" if hint else note


def _measured() -> bool:
    from isobench.config import paths

    return (paths.results() / "latest").exists()


def _measure_for(
    claims: "Sequence[Claim]", registry: "Registry", options: Mapping[str, Any]
) -> "Outcome":
    """Measure the targets and workloads of the claims; without claims, everything."""
    arguments = _selection(claims, registry, options["config"]) if claims else []
    for flag in ("budget", "output", "claims", "config", "color"):
        if options[flag]:
            arguments += [f"--{flag}", str(options[flag])]
    # The options pass through the command line of `run`, which has all defaults and checks. Without
    # its group `run` would not know -h, and click keeps what a command knew first.
    group = click.get_current_context().parent
    context = run.run.make_context("run", arguments, parent=group)
    outcome = run.measure(context.params)
    assert outcome is not None  # only a dry run has no outcome
    return outcome


def _selection(claims: "Sequence[Claim]", registry: "Registry", config: Path | None) -> list[str]:
    """Return the options of `isobench run` that measure what the claims need."""
    from isobench.model import Available
    from isobench.run import selection

    names = [
        name
        for name in registry.names()
        if any(
            name in claim.targets
            or name == claim.reference
            or registry.get(name).technology in {claim.technology, claim.reference}
            for claim in claims
        )
    ]
    # A target that --targets names and that cannot run gives exit code 3. Nobody has named these.
    found = selection.probe_targets({name: registry.get(name) for name in names}, lambda *_: None)
    available = [name for name in names if isinstance(found[name], Available)]
    arguments: list[str] = []
    # A claim without targets and technology is about all targets.
    if all(claim.targets or claim.technology for claim in claims):
        others = [name for name in names if name != "native"]
        if not {*others} & {*available}:
            also = [] if config is None else ["--config", commands.path(config)]
            raise UnavailableError(
                "no target of the claims can run here",
                hint=" ".join(["isobench doctor", *others, *also]),
            )
        arguments += ["--targets", ",".join(available)]
    if all(claim.workloads for claim in claims):
        wanted = dict.fromkeys(name for claim in claims for name in claim.workloads)
        arguments += ["--workloads", ",".join(wanted)]
    return arguments
