"""Fuzzes files of claims, and applies the claims that are valid."""

from tests.faults import fuzzing

with fuzzing.instrumented():
    from isobench import claims
    from isobench.claims.condition import holds
    from isobench.model.errors import UsageError

FACTS = {
    "workload": "cpu.sieve" + "a" * 5000, "class": "cpu", "target": "docker",
    "technology": "containerization",
}  # fmt: skip


def check(data: bytes) -> None:
    """Read claims: they are valid, or refused with the file and what to type."""
    try:
        found = claims.load(data.decode(errors="replace"), origin="mine.toml")
    except UsageError as error:
        fuzzing.clear(error, "mine.toml")
        return
    for claim in found:
        fuzzing.printable(f"{claim.id} {claim.quote} {claim.needs} {claim.targets}")
        holds(claim.when, FACTS)
    again = claims.of_table(claims.to_table(found), origin="mine.toml")
    assert again == found


FUZZER = fuzzing.Fuzzer("claims", check)
if __name__ == "__main__":
    fuzzing.main(FUZZER)
