"""`isobench compare`: compare what isolation costs in two runs."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from isobench.cli._exits import COMPARISON_FAILURES, NOISY, REGRESSED, refuse_unknown
from isobench.cli._inputs import runs_at
from isobench.cli._options import (
    document_options,
    fail_on_option,
    workloads_option,
)
from isobench.cli._outputs import publish, refuse_unwritable
from isobench.config import parameters
from isobench.model.errors import CellFailedError, UsageError
from isobench.model.units import TargetName

if TYPE_CHECKING:
    from isobench.comparison.result import Comparison


# Named here, since importing the module that has them takes the time of pandas and SciPy. The test
# of the help compares them.
_COLUMNS: Final = (
    *("target", "workload", "base", "head", "change", "interval", "p", "noise", "blocks", "runs"),
    "standing",
)


@click.command()
@click.argument("names", nargs=-1, metavar="[BASE HEAD | RUN]")
@click.option("--base", "bases", multiple=True, metavar="RUN", help="A run of BASE; repeatable.")
@click.option("--head", "heads", multiple=True, metavar="RUN", help="A run of HEAD; repeatable.")
@click.option("--confirm", metavar="RUN", help="Another run of HEAD. It must show a change again.")
@click.option(
    "-t", "--targets", multiple=True, callback=parameters.names_of, metavar="NAMES",
    help="Compare only these targets. With one RUN: the two targets to compare, BASE,HEAD.",
)  # fmt: skip
@workloads_option
@click.option(
    "--min-effect", type=parameters.Share(), default="5%",
    help="The smallest change that matters (5%).",
)  # fmt: skip
@click.option(
    "--anyway", "--force", is_flag=True, help="Compare even different machines and programs."
)
@click.option("--only-changed", is_flag=True, help="Show only cells that changed.")
@click.option(
    "--group-by", type=click.Choice(["target", "workload", "class", "none"]), default="target",
    help="Group the rows by this column (target).",
)  # fmt: skip
@click.option(
    "--columns", multiple=True, callback=parameters.names_of, metavar="NAMES",
    help=f"Columns to show: {', '.join(_COLUMNS)}.",
)  # fmt: skip
@document_options
@fail_on_option(COMPARISON_FAILURES)
def compare(**options: Any) -> None:
    """Compare what isolation costs in two runs, HEAD and BASE.

    A run is a folder, a zip or "latest". For several runs on one side, use --base and --head. With
    one RUN and two --targets, these two targets are compared; neither is native, with which
    `isobench report RUN` compares each target.
    """
    from isobench.report import comparison as view

    refuse_unknown(options["fail_on"], COMPARISON_FAILURES)
    refuse_unknown(options["columns"], view.COLUMNS, "--columns")
    refuse_unwritable(options)
    comparison = _compared(options)
    chosen = {"columns": options["columns"]} if options["columns"] else {}
    sheet = view.build(
        comparison, group_by=options["group_by"], only_changed=options["only_changed"], **chosen
    )
    # The exports are written before the exit code can end the program.
    unwritten = publish(
        sheet,
        options,
        document=lambda: view.document(comparison),
        csv=lambda: view.csv(comparison),
    )
    sys.exit(_exit_code(comparison, options["fail_on"]) or unwritten)


def _exit_code(comparison: "Comparison", fail_on: tuple[str, ...]) -> int:
    """Return the exit code of the most severe finding that --fail-on names."""
    from isobench.comparison import gate

    codes = {"regression": REGRESSED, "error": CellFailedError.exit_code, "noisy": NOISY}
    found = gate.failures(comparison)
    # In the order of severity: a confirmed regression is the finding that the command exists for.
    return next((code for kind, code in codes.items() if kind in fail_on and kind in found), 0)


def _compared(options: Mapping[str, Any]) -> "Comparison":
    """Return the comparison that the arguments select. UsageError: they select none."""
    from isobench.comparison import changes
    from isobench.comparison.result import ComparisonOptions

    names, targets = options["names"], options["targets"]
    chosen = ComparisonOptions(
        minimum_effect=options["min_effect"],
        workloads=options["workloads"],
        anyway=options["anyway"],
    )
    further = next(iter(runs_at([options["confirm"]])), None) if options["confirm"] else None
    if len(names) == 1 and len(targets) == 2 and not options["bases"] + options["heads"]:  # noqa: PLR2004 - a pair
        (run,), (base, head) = runs_at(names), map(TargetName, targets)
        return changes.compare_targets(run, base, head, chosen, confirmation=further)
    bases, heads = options["bases"], options["heads"]
    if len(names) == 2 and not bases + heads:  # noqa: PLR2004 - a pair
        bases, heads = names[:1], names[1:]
    elif names or not bases or not heads:
        raise UsageError(
            "compare needs two runs, or --base and --head, or one run and two --targets",
            hint="isobench compare isobench-results/OLD latest",
        )
    chosen = dataclasses.replace(chosen, targets=targets)
    return changes.compare(runs_at(bases), runs_at(heads), chosen, confirmation=further)
