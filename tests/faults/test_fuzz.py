"""A short share of each fuzzer; `nox -s fuzz` runs them for longer."""

import itertools

import pytest

from tests.faults import (
    fuzz_bundles,
    fuzz_claims,
    fuzz_configuration,
    fuzz_documents,
    fuzz_records,
    fuzz_wire,
    fuzzing,
)

FUZZERS = [
    module.FUZZER
    for module in (
        fuzz_bundles, fuzz_claims, fuzz_configuration, fuzz_documents, fuzz_records, fuzz_wire,
    )
]  # fmt: skip
INPUTS = 300


@pytest.mark.parametrize("fuzzer", FUZZERS, ids=lambda fuzzer: fuzzer.name)
def test_what_was_a_defect_once_is_none_any_more(fuzzer: fuzzing.Fuzzer) -> None:
    for data in fuzzer.corpus():
        fuzzer.check(data)


@pytest.mark.parametrize("fuzzer", FUZZERS, ids=lambda fuzzer: fuzzer.name)
def test_inputs_by_chance_are_used_or_refused(fuzzer: fuzzing.Fuzzer) -> None:
    for data in itertools.islice(fuzzing.mutations(fuzzer.corpus(), seed=14), INPUTS):
        fuzzer.check(data)


def test_every_corpus_has_a_fuzzer() -> None:
    assert {path.name for path in fuzzing.CORPUS.iterdir()} == {one.name for one in FUZZERS}
