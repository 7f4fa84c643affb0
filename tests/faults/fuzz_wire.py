"""Fuzzes what a payload prints."""

from tests.faults import fuzzing

with fuzzing.instrumented():
    from isobench.payload import wire


def check(data: bytes) -> None:
    """Read a reply: it is valid, or refused in printable words."""
    try:
        reply = wire.read(data, nonce="abc", iterations=2)
    except (wire.WireError, wire.WrongAnswerError) as error:
        fuzzing.printable(str(error))
        return
    assert len(reply.iterations) == 2
    assert all(one.nanoseconds >= 0 and one.operations >= 1 for one in reply.iterations)
    assert sum(one.nanoseconds for one in reply.iterations) <= reply.span
    for fact in reply.facts:
        for text in (fact.key, fact.source, str(fact.value)):
            fuzzing.printable(text)


FUZZER = fuzzing.Fuzzer("wire", check)
if __name__ == "__main__":
    fuzzing.main(FUZZER)
