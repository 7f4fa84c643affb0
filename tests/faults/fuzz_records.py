"""Fuzzes records.jsonl."""

from tests.faults import fuzzing

with fuzzing.instrumented():
    from isobench.model import Clock
    from isobench.model.units import Unit
    from isobench.storage import records

KNOWN = records.Known(
    targets={"native", "docker"}, workloads={"cpu.sieve", "startup.cold"}, blocks={1, 2, 3}
)


def check(data: bytes) -> None:
    """Read records: what is returned is plausible, and each other line is counted."""
    try:
        found = records.read(data, KNOWN)
    except ValueError as error:
        fuzzing.printable(str(error))
        return
    samples = found.samples
    assert set(samples["block"].unique()) <= {0, 1, 2, 3}
    assert set(samples["workload"].unique()) <= {*KNOWN.workloads}
    assert all(KNOWN.knows(label) for label in samples["target"].unique())
    assert set(samples["unit"].unique()) <= {*Unit}
    assert set(samples["clock"].unique()) <= {*Clock}
    assert (samples["operations"] >= 1).all()
    assert not samples.duplicated([*records.KEY]).any()
    complete = data.count(b"\n")
    assert len(samples) + len(found.gaps) + len(found.leavings) <= complete
    assert all(1 <= line <= complete for line in found.damage.reasons)
    texts = [*found.damage.first(), *samples["metric"].unique()]
    texts += [text for gap in found.gaps for text in (gap.target, gap.workload, gap.detail)]
    for text in texts:
        fuzzing.printable(text)


FUZZER = fuzzing.Fuzzer("records", check)
if __name__ == "__main__":
    fuzzing.main(FUZZER)
