"""`isobench compare`: what isolation costs in one run and in another."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from isobench.cli._exits import (
    COMPARISON_FAILURES,
    FAILED_CAUSES,
    NOISY,
    REGRESSED,
    refuse_unknown,
)
from isobench.cli._inputs import runs_at
from isobench.cli._options import (
    document_options,
    workloads_option,
)
from isobench.cli._outputs import publish
from isobench.config import parameters
from isobench.model.errors import CellFailedError, UsageError
from isobench.model.units import TargetName

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("names", nargs=-1, metavar="[BASE HEAD | RUN]")
@click.option("--base", "bases", multiple=True, metavar="RUN", help="Runs of BASE; repeat it.")
@click.option("--head", "heads", multiple=True, metavar="RUN", help="Runs of HEAD; repeat it.")
@click.option("--confirm", metavar="RUN", help="A further run of HEAD that must show it again.")
@click.option(
    "-t", "--targets", multiple=True, callback=parameters.names_of, metavar="NAMES",
    help="Only these; of one RUN, the two to compare: BASE,HEAD.",
)  # fmt: skip
@workloads_option
@click.option(
    "--min-effect", type=parameters.Share(), default="5%", help="The smallest that matters (5%)."
)
@click.option("--anyway", "--force", is_flag=True, help="Also of different machines and programs.")
@click.option("--only-changed", is_flag=True, help="Leave out what is the same or open.")
@click.option(
    "--group-by", type=click.Choice(["target", "workload", "class", "none"]), default="target",
    help="What rows stand together by.",
)  # fmt: skip
@click.option(
    "--columns", multiple=True, callback=parameters.names_of, metavar="NAMES",
    help="Of: target, workload, base, head, change, interval, p, noise, blocks, runs, standing.",
)  # fmt: skip
@document_options
@click.option(
    "--fail-on", multiple=True, callback=parameters.names_of, metavar="KINDS",
    help=f"Of: {', '.join(COMPARISON_FAILURES)}.",
)  # fmt: skip
def compare(**options: Any) -> None:
    """Hold two runs against each other: what isolation costs in HEAD and in BASE.

    Runs are folders, zips or "latest"; several a side by --base and --head. With one RUN and two
    --targets, one target of it is held against the other.
    """
    from isobench.report import comparison as view

    refuse_unknown(options["fail_on"], COMPARISON_FAILURES)
    refuse_unknown(options["columns"], view.COLUMNS, "--columns")
    document = _compared(options)
    chosen = {"columns": options["columns"]} if options["columns"] else {}
    sheet = view.build(
        document, group_by=options["group_by"], only_changed=options["only_changed"], **chosen
    )
    publish(sheet, document, options, csv=view.csv)
    cells, fail_on = document["cells"], options["fail_on"]
    if "regression" in fail_on and any(
        cell["standing"] == "regression" and cell["confirmed"] for cell in cells
    ):
        sys.exit(REGRESSED)
    lost = [one for one in document["absent"] if one["lacking"] == "head"]
    if "error" in fail_on and any(one["cause"] in FAILED_CAUSES for one in lost):
        sys.exit(CellFailedError.exit_code)
    if "noisy" in fail_on and any(cell["standing"] == "unproven" for cell in cells):
        sys.exit(NOISY)


def _compared(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the comparison that the arguments ask for."""
    from isobench.comparison import changes

    names, targets = options["names"], options["targets"]
    asked = changes.Asked(
        minimum_effect=options["min_effect"],
        workloads=options["workloads"],
        anyway=options["anyway"],
    )
    confirm = next(iter(runs_at([options["confirm"]])), None) if options["confirm"] else None
    if len(names) == 1 and len(targets) == 2 and not options["bases"] + options["heads"]:  # noqa: PLR2004 - a pair
        (run,), (base, head) = runs_at(names), map(TargetName, targets)
        return changes.compare_targets(run, base, head, asked, confirm=confirm)
    bases, heads = options["bases"], options["heads"]
    if len(names) == 2 and not bases + heads:  # noqa: PLR2004 - a pair
        bases, heads = names[:1], names[1:]
    elif names or not bases or not heads:
        raise UsageError(
            "compare takes two runs, or --base and --head, or one run and two --targets",
            hint="isobench compare isobench-results/OLD latest",
        )
    asked = dataclasses.replace(asked, targets=targets)
    return changes.compare(runs_at(bases), runs_at(heads), asked, confirm=confirm)
