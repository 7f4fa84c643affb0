"""A mistake in a TOML file is told with its file, its line, what is wrong and what to type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobench import claims
from isobench.config import file
from isobench.config.toml import Source, line_of
from isobench.model.errors import UsageError
from isobench.workloads import loader
from tests.unit.command import Done

Run = Callable[..., Done]
pytestmark = pytest.mark.usefixtures("somewhere")

TEXT = """\
# targets = nothing
[run]
seed = 1
blocks = { min = 3, max = 9 }
note = '''
[targets.x]
pids = 3
'''

[targets."my.own"]
kind = "docker"

[[claims]]
id = "a"
[claims.evidence]
"ns.pid" = "unlike"
[[claims]]
id = "b"
assert.kind = "order"
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("run",), 2),
        (("run", "seed"), 3),
        (("run", "blocks", "min"), 4),
        (("run", "absent"), 2),
        (("targets", "my.own"), 10),
        (("targets", "my.own", "kind"), 11),
        (("targets", "x"), None),
        (("claims", 0, "id"), 14),
        (("claims", 0, "evidence", "ns.pid"), 16),
        (("claims", 1), 17),
        (("claims", 1, "id"), 18),
        (("claims", 1, "assert", "kind"), 19),
        (("absent",), None),
    ],
)
def test_a_key_is_found_by_its_line(path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(TEXT, path) == line


@given(st.text(max_size=200), st.lists(st.text(max_size=5) | st.integers(0, 3), max_size=4))
def test_no_text_and_no_path_crash_the_search(text: str, path: list[str | int]) -> None:
    found = line_of(text, path)
    assert found is None or 1 <= found <= len(text.splitlines())


def told(text: str, tmp_path: Path, name: str = "given.toml") -> tuple[str, str]:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        file.load(path, environment={})
    return str(caught.value).replace(f"{tmp_path}/", ""), caught.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("\n[run]\nblcoks = 3\n", "given.toml:3: [run] blcoks: there is no such key", "did you"),
        ("[rnu]\nseed = 1\n", "given.toml:1: rnu: there is no such key", "did you mean run?"),
        (
            "[run]\nseed = 'one'\n",
            "given.toml:2: [run] seed: takes a whole number, and not text",
            "correct the file",
        ),
        (
            "[run]\nbudget = 10\n",
            "given.toml:2: [run] budget: takes text, and not a whole number",
            'write budget = "10m"',
        ),
        (
            "[run]\nmargin = 5\n",
            "given.toml:2: [run] margin: takes text, and not a whole number",
            'write margin = "5%"',
        ),
        (
            "[run]\nblocks = { min = 0 }\n",
            "given.toml:2: [run] blocks.min: takes a whole number of at least 1, and not 0",
            "correct the file",
        ),
        (
            "[run]\ntargets = ['a', 3]\n",
            "given.toml:2: [run] targets: takes text, and not a whole number",
            "correct the file",
        ),
        (
            "[targets.good]\n[targets]\nfast = 3\n",
            "given.toml:3: [targets] fast: takes a table, and not a whole number",
            "correct the file",
        ),
        ("a = 1\n\nb = [\n", "given.toml:3: not TOML", "--config"),
        ("a = 1\nb = = 2\nc = 3\n", "given.toml:2: not TOML", "--config"),
    ],
)
def test_a_mistake_in_a_configuration_has_its_line(
    text: str, message: str, hint: str, tmp_path: Path
) -> None:
    said, way_out = told(text, tmp_path)
    assert said.startswith(message)
    assert hint in way_out
    assert "--config" in way_out


def test_a_mistake_in_a_project_is_found_in_its_own_table(tmp_path: Path) -> None:
    text = "[run]\nseed = 3\n[tool.isobench.run]\nsede = 3\n"
    said, hint = told(text, tmp_path, "pyproject.toml")
    assert said == "pyproject.toml:4: [run] sede: there is no such key"
    assert "did you mean seed?" in hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[run]\nbudget = "10x"\n', ("isobench.toml:2: [run] budget: '10x'", "90s, 10m")),
        ('[targets.fast]\nkind = "dokcer"\n', ("isobench.toml:2: [targets.fast]", "mean docker?")),
        (
            "[targets.docker]\n\nmemroy = '1g'\n",
            ("isobench.toml:3: [targets.docker]: no such option: memroy", "did you mean memory?"),
        ),
        (
            "[targets.docker]\npids = 'many'\n",
            ("isobench.toml:2: [targets.docker] pids", "pids takes a whole number"),
        ),
        ("[targets.docker]\npids = -4\n", ("isobench.toml:2: [targets.docker]: pids = -4",)),
    ],
)
def test_a_mistake_in_a_table_of_a_target_has_its_line(
    text: str, words: tuple[str, ...], isobench: Run
) -> None:
    Path("isobench.toml").write_text(text)
    done = isobench("doctor", "docker")
    if "budget" in text:
        done = isobench("run", "-n", "-q")
    assert done.code == 2
    for word in words:
        assert word in done.words


CLAIM = '[[claims]]\nid = "a"\nquote = "x"\ntechnology = "sandbox"\nkind = "order"\n'


@pytest.mark.parametrize(
    ("old", "new", "words", "near"),
    [
        (
            '"order"',
            '"evidnce"',
            (
                "kind must be one of evidence, equivalent, order, bound, checksum, enforcement, not"
                " 'evidnce': did you mean evidence?"
            ),
            "",
        ),
        (
            '"order"',
            '"order"\ndirection = "fastr"',
            "mine.toml:6: claim a: direction must be one of",
            "",
        ),
        ('"sandbox"', '"sandbocks"', "technology must be one of native, ", ""),
        ("quote", "qoute", "mine.toml:3: claim a: qoute is not a key of a claim", "mean quote?"),
    ],
)
def test_a_mistake_in_a_claim_lists_what_there_is(
    old: str, new: str, words: str, near: str
) -> None:
    with pytest.raises(UsageError) as caught:
        claims.load(CLAIM.replace(old, new), origin="mine.toml")
    assert words in str(caught.value)
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('scope = "loop"', 'scope = "lop"'), "scope: 'lop' is not one of loop, exec, session"),
        (('summary = "s"', 'sumary = "s"'), "sumary: there is no such key"),
        (('summary = "s"', "summary = 3"), "summary: takes text, and not a whole number"),
        (('summary = "s"', "summary = "), "not TOML"),
        (('unit = "x"', "timeout_s = -1"), "timeout_s: takes a number above 0"),
    ],
)
def test_a_mistake_in_a_workload_has_its_line(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    text = 'name = "app.x"\nsummary = "s"\nscope = "loop"\nmetrics = { time = "ns" }\nunit = "x"\n'
    path = tmp_path / "workload.toml"
    path.write_text(text.replace(*change).replace('unit = "x"\n', ""))
    with pytest.raises(UsageError) as caught:
        loader.read(path)
    line = 1 + text.splitlines().index(change[0])
    assert str(caught.value).startswith(f"{path}:{line}: {message}")
    assert caught.value.hint


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "workload.toml").write_text('name = "app.x"\n')
    with pytest.raises(UsageError, match="lacks summary"):
        loader.read(tmp_path / "workload.toml")


@given(st.recursive(st.integers() | st.text(max_size=4) | st.booleans() | st.floats(), st.lists))
def test_whatever_a_key_holds_is_an_answer_and_no_crash(value: Any) -> None:
    source = Source(origin="x.toml", text="[run]\nblocks = 1\n")
    for document in ({"run": {"blocks": value}}, {"targets": {"a": value}}, {"claims": value}):
        said = "x.toml"
        try:
            source.convert(document, file.Settings)
        except UsageError as error:
            said = str(error)
        assert said.startswith("x.toml")
