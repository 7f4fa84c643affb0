"""What comes back from inside is untrusted: it is a whole reply, or an error that says why not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobench.model import Evidence
from isobench.model.bounds import MOST_FACTS
from isobench.payload import wire

NONCE = "feed0123"


def reply(*between: object, **end: object) -> bytes:
    """Return a good reply of two iterations with more lines in its middle and its end changed."""
    last = {"end": 2, "check": "00ff", "steady": True, "nonce": NONCE, "clock_ns": 900}
    lines: list[object] = [
        {"isobench": 1, "nonce": NONCE, "clock_ns": 100},
        *between,
        {"warmup_ns": 70},
        {"i": 0, "ns": 50, "ops": 4},
        {"i": 1, "ns": 60, "ops": 4},
        last | end,
    ]
    return b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in lines)


def read(stdout: bytes, iterations: int = 2) -> wire.Reply:
    return wire.read(stdout, nonce=NONCE, iterations=iterations)


def test_a_whole_reply_is_read() -> None:
    fact = {"fact": "io.filesystem", "value": "0x0000ef53", "source": "statfs"}
    found = read(reply(fact))
    assert [(each.nanoseconds, each.operations) for each in found.iterations] == [(50, 4), (60, 4)]
    assert (found.warmup, found.check, found.steady, found.span) == (70, "00ff", True, 800)
    assert found.facts == (Evidence(key="io.filesystem", value="0x0000ef53", source="statfs"),)


@pytest.mark.parametrize("end", [0, 99, 279])
def test_a_clock_that_ran_backwards_gives_no_reply(end: int) -> None:
    # Warm-up and iterations take 180 ns by its own account, from 100 on.
    with pytest.raises(wire.WireError, match="ran backwards: 180 ns of work in"):
        read(reply(clock_ns=end))
    assert read(reply(clock_ns=280)).span == 180


@pytest.mark.parametrize("value", [None, True, False, 0, 7, -3, "", "text"])
def test_a_fact_keeps_its_value_and_its_type(value: Any) -> None:
    (fact,) = read(reply({"fact": "key", "value": value})).facts
    assert fact.value == value
    assert type(fact.value) is type(value)


def test_a_zero_byte_and_blanks_at_the_ends_of_a_fact_are_dropped() -> None:
    (fact,) = read(reply({"fact": "kernel.cmdline", "value": " quiet\x00 "})).facts
    assert fact.value == "quiet"


def test_control_characters_in_a_fact_cannot_reach_the_terminal() -> None:
    (fact,) = read(reply({"fact": "security.label", "value": "a\x1b[31mred\x07"})).facts
    assert fact.value == "a\\x1b[31mred\\x07"


def test_more_facts_than_the_limit_are_dropped() -> None:
    many = [{"fact": f"key.{number}", "value": number} for number in range(MOST_FACTS + 5)]
    assert len(read(reply(*many)).facts) == MOST_FACTS


def test_a_long_text_is_cut_and_the_cut_shows() -> None:
    (fact,) = read(reply({"fact": "key", "value": "x" * 9000})).facts
    assert fact.value == "x" * wire.MOST_TEXT + "…"


def test_empty_lines_and_unknown_keys_are_ignored() -> None:
    assert read(reply(b"\n  \n", {"news": [1, {"deep": None}]})) == read(reply())


def test_an_error_line_is_quoted_with_its_number() -> None:
    line = json.dumps({"error": "open of the file", "errno": 13}).encode()
    with pytest.raises(wire.WireError, match=r"open of the file: Permission denied \(errno 13\)"):
        read(json.dumps({"isobench": 1, "nonce": NONCE}).encode() + b"\n" + line + b"\n")


@pytest.mark.parametrize("number", [-1, 1 << 70])
def test_a_number_that_is_no_error_of_the_kernels_is_quoted_as_it_is(number: int) -> None:
    with pytest.raises(wire.WireError, match=rf"^it failed \(errno {number}\)$"):
        read(json.dumps({"error": "it failed", "errno": number}).encode() + b"\n")


def test_an_error_line_without_a_number_is_quoted_alone() -> None:
    with pytest.raises(wire.WireError, match=r"^no scratch directory$"):
        read(b'{"error":"no scratch directory","errno":0}\n')


@pytest.mark.parametrize(
    ("stdout", "why"),
    [
        (b"", "did not print its first line"),
        (b"Segmentation fault\n", "not a line of the protocol: 'Segmentation fault'"),
        (b"\xff\xfe\n", "not a line of the protocol"),
        (b"[1,2]\n", "not a line of the protocol"),
        (b'{"isobench":2,"nonce":"feed0123"}\n', "uses version 2 of the protocol, not 1"),
        (b'{"isobench":1,"nonce":"feed0123"}\n', "stopped before its last line"),
        (reply()[:-20], "not a line of the protocol"),
        (reply() + b" " * wire.MOST_BYTES, "more than 1048576 bytes"),
        (reply({"i": 0, "ns": -1, "ops": 1}), "not a line of the protocol"),
        (reply({"i": 0, "ns": 1, "ops": 0}), "line 2 of its output is not a line of the protocol"),
        (reply({"i": 0, "ns": 1, "ops": -4}), "line 2 of its output is not a line of the protocol"),
        (reply({"i": 0, "ns": 1, "ops": 1 << 63}), "not a line of the protocol"),
        (reply(b'{"i":0,"ns":NaN,"ops":1}\n'), "not a line of the protocol"),
        (reply(b'{"i":0,"ns":1e3,"ops":1.5}\n'), "not a line of the protocol"),
        (
            reply({"i": 1, "ns": 9, "ops": 4}, end=3),
            "line 2 of its output is iteration 1 instead of 0",
        ),
        (reply({"i": 0}, end=3), "line 2 of its output: iteration 0 lacks ns or ops"),
        (reply({"i": 0, "ns": 1 << 63, "ops": 1}), "not a line of the protocol"),
        (reply({"fact": "key", "value": 1.5}), "not a line of the protocol"),
    ],
)
def test_what_is_no_reply_is_refused_with_the_reason(stdout: bytes, why: str) -> None:
    with pytest.raises(wire.WireError, match=why):
        read(stdout, 3 if b'"end": 3' in stdout else 2)


@pytest.mark.parametrize(
    ("stdout", "iterations", "why"),
    [
        (reply().replace(NONCE.encode(), b"deadbeef"), 2, "nonce"),
        (reply(nonce="deadbeef"), 2, "nonce"),
        (reply(), 3, "returned 2 iterations instead of 3"),
        (reply(end=3), 2, "iterations"),
        (reply({"i": 2, "ns": 1, "ops": 1}), 2, "returned 3 iterations"),
    ],
)
def test_an_answer_to_another_question_is_a_wrong_answer(
    stdout: bytes, iterations: int, why: str
) -> None:
    with pytest.raises(wire.WrongAnswerError, match=why):
        read(stdout, iterations)


def test_a_line_nested_a_hundred_thousand_deep_is_refused_like_any_other() -> None:
    with pytest.raises(wire.WireError):
        read(reply(b'{"x":' + b"[" * 100_000 + b"\n"))


def test_a_number_that_no_column_could_hold_is_refused() -> None:
    with pytest.raises(wire.WireError):
        read(reply({"fact": "io.cached_percent", "value": 10**30}))


@given(st.binary(max_size=300))
def test_noise_before_and_after_a_reply_never_raises_anything_but_the_two_errors(
    noise: bytes,
) -> None:
    for stdout in (noise, noise + reply(), reply() + noise, reply(noise)):
        try:
            read(stdout)
        except (wire.WireError, wire.WrongAnswerError) as error:
            assert str(error)  # noqa: PT017 - either outcome is right; silence would not be


@given(st.text(max_size=50))
def test_printable_text_holds_no_control_character(text: str) -> None:
    shown = wire.printable(text, 20)
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_the_hello_that_is_waited_for_is_how_a_reply_begins() -> None:
    assert reply().replace(b": ", b":").replace(b", ", b",").startswith(wire.hello(NONCE))
