"""Expectations held against what was seen."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from isobench.evidence import prove
from isobench.model import Command, Environment, Evidence, Expectation, Fact, Relation
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import Completed
from isobench.run.proving import Prover

SAME, UNLIKE, EQUALS = Relation.SAME_AS_HOST, Relation.UNLIKE_HOST, Relation.EQUALS


def environment(**facts: Fact) -> Environment:
    return prove.gather(Evidence(key=key, value=value, source="") for key, value in facts.items())


def kept(expectation: Expectation, host: Fact, inside: Fact) -> bool:
    (check,) = prove.check(
        [expectation], host=environment(key=host), inside=environment(key=inside)
    )
    return check.met


@pytest.mark.parametrize(
    ("relation", "host", "inside", "expected"),
    [
        (SAME, "a", "a", True),
        (SAME, "a", "b", False),
        (UNLIKE, "a", "b", True),
        (UNLIKE, "a", "a", False),
        (SAME, None, None, False),
        (SAME, "a", None, False),
        (UNLIKE, None, "b", False),
        (UNLIKE, "a", None, False),
        (UNLIKE, None, None, False),
        (SAME, 0, 0, True),
        (SAME, False, False, True),
        (SAME, "", "", True),
    ],
)
def test_a_relation_is_kept_only_by_facts_that_were_read_on_both_sides(
    relation: Relation, host: Fact, inside: Fact, expected: bool
) -> None:
    assert kept(Expectation(key="key", relation=relation), host, inside) is expected


@pytest.mark.parametrize(
    ("value", "inside", "expected"),
    [
        ("KVMKVMKVM", "KVMKVMKVM", True),
        ("KVMKVMKVM", "TCGTCGTCGTCG", False),
        (False, False, True),
        (False, True, False),
        (False, None, False),
        (None, None, False),
    ],
)
def test_a_value_that_is_expectationd_must_be_seen_inside(
    value: Fact, inside: Fact, expected: bool
) -> None:
    expectation = Expectation(key="key", relation=EQUALS, value=value)
    assert kept(expectation, "whatever the host has", inside) is expected


def test_a_fact_that_nobody_reported_breaks_its_expectation() -> None:
    expectation = Expectation(key="ns.pid", relation=UNLIKE)
    (check,) = prove.check([expectation], host=environment(), inside=environment())
    assert not check.met
    assert (check.host, check.inside) == (None, None)


def test_the_first_of_two_facts_with_one_key_stands() -> None:
    facts = [Evidence(key="k", value=value, source="") for value in ("first", "second")]
    assert prove.gather(facts).value("k") == "first"


def test_broken_expectations_are_reported_with_both_sides() -> None:
    expectations = [
        Expectation(key="ns_pid", relation=UNLIKE),
        Expectation(key="boot", relation=SAME),
        Expectation(key="canary", relation=EQUALS, value=False),
        Expectation(key="machine", relation=SAME),
    ]
    host = environment(ns_pid="pid:[1]", boot="abc", canary=True, machine="x86_64")
    inside = environment(ns_pid="pid:[1]", boot="xyz", canary=True, machine="x86_64")
    assert prove.unmet(prove.check(expectations, host=host, inside=inside)) == (
        "ns_pid should be unlike the host's, but is 'pid:[1]' inside (host: 'pid:[1]'); "
        "boot should be the host's, but is 'xyz' inside (host: 'abc'); "
        "canary should be False, but is True inside (host: True)"
    )


def test_met_expectations_leave_nothing_to_report() -> None:
    expectations = [Expectation(key="boot", relation=SAME)]
    same = environment(boot="abc")
    assert prove.unmet(prove.check(expectations, host=same, inside=same)) == ""
    assert prove.unmet(()) == ""


def test_relations_cover_what_was_seen_inside_and_say_unknown_where_a_side_is_missing() -> None:
    host = environment(boot="abc", pid="1", only_host="x")
    inside = environment(boot="abc", pid="2", hidden=None, only_inside="y")
    assert prove.relations(host, inside) == {
        "boot": "same",
        "pid": "unlike",
        "hidden": "unknown",
        "only_inside": "unknown",
    }


@pytest.mark.parametrize(
    ("relation", "value", "inside", "expected"),
    [
        (Relation.CONTAINS, "microsoft", "5.15-microsoft-standard-WSL2", True),
        (Relation.CONTAINS, "microsoft", "4.4.0-19041-Microsoft", False),
        (Relation.CONTAINS, "microsoft", None, False),
        (Relation.OTHER_THAN, "TCGTCGTCGTCG", "KVMKVMKVM", True),
        (Relation.OTHER_THAN, "TCGTCGTCGTCG", "TCGTCGTCGTCG", False),
        (Relation.OTHER_THAN, "TCGTCGTCGTCG", None, False),
    ],
)
def test_a_part_that_must_be_there_and_a_value_that_must_not_be(
    relation: Relation, value: str, inside: Fact, expected: bool
) -> None:
    expectation = Expectation(key="key", relation=relation, value=value)
    assert kept(expectation, "whatever the host has", inside) is expected


@pytest.mark.parametrize("relation", list(Relation))
def test_every_relation_can_be_reported_when_it_is_broken(relation: Relation) -> None:
    expectation = Expectation(key="key", relation=relation, value="wanted")
    told = prove.unmet(prove.check([expectation], host=environment(), inside=environment()))
    assert told.startswith("key should be ")


def test_an_instance_without_a_witness_must_meet_what_it_can_say_itself() -> None:
    inside = environment(**{"kernel.boot_id": "x", "host.canary_readable": False})
    keys = ("kernel.boot_id", "ns.pid", "host.canary_readable", "host.runtime")
    expectations = [Expectation(key=key, relation=SAME) for key in keys]
    held = prove.from_inside(expectations, inside)
    assert [expectation.key for expectation in held] == [*keys[:3]]


class _Session:
    """An instance whose payload also tells what only the host sees."""

    interactive = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        del timeout
        lines = (
            f'{{"isobench":1,"nonce":"{command.argv[1]}","clock_ns":1}}',
            '{"fact":"host.limit.memory","value":512,"source":"forged"}',
            '{"fact":"host.canary_readable","value":false,"source":"/canary"}',
            f'{{"end":0,"nonce":"{command.argv[1]}","clock_ns":2}}',
        )
        return Completed(exit_code=0, stdout="\n".join(lines).encode() + b"\n", stderr=b"")

    def witness(self) -> Iterator[Evidence]:
        yield Evidence(key="host.limit.memory", value=9999, source="the host")


def test_what_only_the_host_sees_is_never_taken_from_inside() -> None:
    limit = Expectation(key="host.limit.memory", relation=EQUALS, value=512)
    canary = Expectation(key="host.canary_readable", relation=EQUALS, value=False)
    label: Any = TargetName("liar")
    target: Any = SimpleNamespace(expectations=(limit, canary))
    prover = Prover(targets={label: target}, canary="/canary", sink=mock.Mock())
    context: Any = SimpleNamespace(
        timer=mock.Mock(),
        visit=SimpleNamespace(target=label),
        command=lambda *words: Command(argv=words),
    )
    session: Any = _Session()
    proof = prover.prove_session(context, session)
    assert [(one.inside, one.met) for one in proof.checks] == [(9999, False), (False, True)]
    # Without the host's word it stays open, as for an instance that was launched.
    launched = prover.prove(context, lambda command: session.run(command, timeout=1))
    assert [one.expectation.key for one in launched.checks] == ["host.canary_readable"]
