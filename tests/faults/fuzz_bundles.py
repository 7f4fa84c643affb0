"""Fuzzes zips of runs."""

import warnings

from tests.faults import fuzzing

with fuzzing.instrumented():
    from isobench.model.errors import UsageError
    from isobench.storage import reader

PLACE = fuzzing.scratch("bundles") / "run.zip"


def check(data: bytes) -> None:
    """Load a zip: it is a run, or refused with what to type."""
    PLACE.write_bytes(data)
    try:
        # zipfile warns of overlapping members.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            run = reader.load(PLACE)
    except UsageError as error:
        fuzzing.clear(error, str(PLACE))
        return
    fuzzing.printable(str(run.metadata.machine))
    assert not {gap.target for gap in run.gaps} - {one.name for one in run.metadata.targets}


FUZZER = fuzzing.Fuzzer("bundles", check)
if __name__ == "__main__":
    fuzzing.main(FUZZER)
