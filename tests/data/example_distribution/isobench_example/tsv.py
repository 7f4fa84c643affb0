"""The ratios of a run as tab-separated values: `isobench report --export-tsv FILE`."""

from isobench.report.exporters import Exporter
from isobench.report.write import Outcome


def export(outcome: Outcome) -> str:
    """Return a line for each cell that has a ratio."""
    cells = [cell for cell in outcome.summary.cells if cell.ratio is not None]
    lines = [f"{cell.target}\t{cell.workload}\t{cell.ratio}" for cell in cells]
    return "\n".join(["target\tworkload\tratio", *lines, ""])


TSV = Exporter(
    name="tsv",
    suffix=".tsv",
    summary="Ratios as tab-separated values.",
    function="isobench_example.tsv:export",
)
