"""The condition of a claim."""

import pytest

from isobench.claims.condition import holds

SIEVE = {"workload": "cpu.sieve", "class": "cpu", "target": "docker"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("", True),
        ("  ", True),
        (r"workload =~ '^cpu\.' and target == 'docker'", True),
        (r"workload =~ '^cpu\.' and target == 'podman'", False),
        ('class == "io"', False),
        ("class != 'io' and workload !~ 'matmul'", True),
        ("target=='docker'", True),
        ("workload == 'cpu.sieve and more'", False),
        ("technology == 'sandbox'", True),  # not known here
    ],
)
def test_a_condition_holds_as_its_comparisons_do(condition: str, *, expected: bool) -> None:
    assert holds(condition, SIEVE) is expected


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("workload", "from 'workload' on"),
        ("workload = 'cpu'", "from \"workload = 'cpu'\" on"),
        ("workload == 'cpu' or target == 'docker'", "from"),
        ("workload == 'cpu' and", "from '' on"),
        ("workload == cpu", "from"),
        ("engine == 'docker'", "compares 'engine', which is not one of workload, class"),
        ("workload =~ '('", "invalid regular expression"),
        ("__import__('os')", "from"),
    ],
)
def test_what_is_no_condition_is_reported_from_where_on(condition: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"condition|compares|expression") as caught:
        holds(condition, SIEVE)
    assert said in str(caught.value)
