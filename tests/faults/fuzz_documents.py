"""Fuzzes the JSON documents of a run: run.json, plan.json, the state of a target, summary.json."""

import json
from pathlib import Path

from tests import whole
from tests.faults import fuzzing

with fuzzing.instrumented():
    from isobench.model.errors import UsageError
    from isobench.storage import documents, reader
    from isobench.storage.schema import RunMetadata, TargetState

METADATA, FORM = reader._metadata(
    json.dumps(
        whole.run(
            {
                "targets": [{"name": name, "class": "native"} for name in ("native", "docker")],
                "workloads": [{"name": "cpu.sieve", "class": "cpu"}],
            }
        )
    ).encode(),
    Path("run"),
)


def check(data: bytes) -> None:
    """Read bytes as each document: they are one, or refused with the place."""
    for read in (
        lambda: reader._metadata(data, Path("run"))[0],
        lambda: reader._plan(data, METADATA, FORM)[0],
        lambda: reader._decoded(data, TargetState, "state/x-pre.json"),
        lambda: documents.summary_of(documents.parsed(data, "summary.json")),
    ):
        try:
            found = read()
        except (ValueError, UsageError) as error:
            fuzzing.printable(str(error))
            continue
        if isinstance(found, RunMetadata):
            fuzzing.printable(f"{found.machine} {found.host} {found.targets}")
        # What was read can be written.
        documents.encoded(found)


FUZZER = fuzzing.Fuzzer("documents", check)
if __name__ == "__main__":
    fuzzing.main(FUZZER)
