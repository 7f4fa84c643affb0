"""The words of the code: standard terms, and none of the private ones that they have replaced.

docs/glossary.md has the standard terms.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "isobench"
GLOSSARY: Final = ROOT / "docs" / "glossary.md"
MOST_TERMS: Final = 25

OLD_WORDS: Final = {
    "wish": "options",
    "wishes": "options",
    "ear": "output listener",
    "heard": "received",
    "bench": "runner",
    "spoil": "discard",
    "dear": "expensive, slow to open",
    "dearer": "more expensive, slower",
    "likeness": "compatibility",
    "courses": "warm-up profiles",
    "ladder": "start-up phases",
    "ladders": "start-up phases",
    "suite": "class, class mean",
    "suites": "class means",
    "standing": "status",
    "standings": "statuses",
    "promise": "expectation",
    "promises": "expectations",
    "told": "shown, printed, reported",
    "said": "reported, printed",
    "mend": "fix",
    "mended": "fixed",
    "whence": "from where",
    "fares": "is",
    "lest": "so that … not",
    "anew": "again, new",
    "heed": "use, follow",
    "worn": "used",
    "held against": "compared with",
    "all the same": "anyway",
    "comes to": "is, results in",
    "axis of work": "class",
}
"""The words that the code no longer uses, with what to write instead."""

KEYS: Final = (
    *("standing", "promises", "suites", "suite", "courses", "ladders", "ladder", "kept", "asked"),
    *("standings", "dear", "enforcement"),
)
"""Keys and values of files that exist already: run.json, state/*.json, summary.json, claims.toml.

They stay as they are. They are exceptions where they stand alone in quotes or backticks.
"""

_NAMES: Final = re.compile(
    r"tests[/.]bench\b[/.]?\w*(\.py)?|nox -s bench|\"bench\"|(contract|test)[ -]suite"
)
"""Other people's words, and names of things outside: test suites, folders, tasks."""
_JUNIT: Final = Path("isobench/report/exporters/junit.py")
"""Its suites are those of JUnit's format."""
_TEXTS: Final = frozenset(
    {".py", ".html", ".j2", ".md", ".txt", ".css", ".js", ".c", ".h", ".toml"}
)
_QUOTED_KEY: Final = re.compile(rf"""(["'`])(?:{"|".join(KEYS)})\1""")


def old_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and word of each old word in a text; underscores separate words."""
    for number, written in enumerate(text.splitlines(), 1):
        line = _NAMES.sub("", _QUOTED_KEY.sub("", written))
        words = re.sub(r"[\W_]+", " ", line).lower()
        for word in OLD_WORDS:
            if re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", words):
                yield number, word


def files() -> list[Path]:
    folders = (PACKAGE, ROOT / "reports" / "templates", ROOT / "docs")
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in _TEXTS]
    found += [*ROOT.glob("*.md"), *(ROOT / "reports").glob("*.toml")]
    others = {"_shared", "uplot"}  # a copy, and somebody else's library
    relative = (path.relative_to(ROOT) for path in found if not others & {*path.parts})
    return sorted(relative)


@pytest.mark.parametrize("path", files(), ids=str)
def test_no_file_uses_an_old_word(path: Path) -> None:
    found = [
        f"{path}:{number}: {word!r}: write {OLD_WORDS[word]}"
        for number, word in old_words((ROOT / path).read_text(encoding="utf-8"))
        if not (path == _JUNIT and word == "suite")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what a target has told", ["told"]),
        ("def _told_of(wish: Wish) -> None:", ["told", "wish"]),
        ("It is held against\nthe host.", ["held against"]),
        ("dear_targets = 3", ["dear"]),
        ('state["promises"] = summary["standing"]', []),
        ('"the standing of a claim"', ["standing"]),
        ("see tests/bench/bench_dial.py, nox -s bench", []),
        ("a notwithstanding earnest retold bench2", []),
    ],
)
def test_an_old_word_is_found_in_names_and_prose_and_not_in_keys_of_files(
    text: str, expected: list[str]
) -> None:
    assert sorted(word for _, word in old_words(text)) == sorted(expected)


def terms() -> list[list[str]]:
    """Return the cells of each row of the glossary's table."""
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_glossary_has_at_most_25_terms_each_with_one_meaning_and_a_place() -> None:
    rows = terms()
    assert len(rows) <= MOST_TERMS
    assert all(len(row) == len(("term", "meaning", "place")) and all(row) for row in rows)
    assert len({row[0] for row in rows}) == len(rows)


def test_the_places_of_the_glossary_exist() -> None:
    for term, _, place in terms():
        for name in re.findall(r"`([^`]+)`", place):
            module, _, attribute = name.partition(":")
            path = ROOT / module
            assert path.exists(), (term, module)
            assert not attribute or re.search(
                rf"^\s*(class|def) {attribute}\b|^{attribute}\b", path.read_text(), re.MULTILINE
            ), (term, name)


def test_the_glossary_uses_no_old_word() -> None:
    assert [*old_words(GLOSSARY.read_text(encoding="utf-8"))] == []
