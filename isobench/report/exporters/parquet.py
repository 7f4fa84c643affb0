"""The samples of a run as Parquet. It needs the extra `history`."""

from isobench.history import duckdb_door
from isobench.plugins import ownership
from isobench.report.write import Outcome


def export(outcome: Outcome) -> bytes:
    """Return the file. UsageError: DuckDB is not installed."""
    samples = outcome.run().samples
    with (
        ownership.temporary_folder("parquet") as scratch,
        duckdb_door.opened() as database,
    ):
        made = scratch / "samples.parquet"
        database.register("samples", samples)
        duckdb_door.copy(database, "SELECT * FROM samples", made)
        return made.read_bytes()
