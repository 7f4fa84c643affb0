"""The examples under reports/examples follow from their records: nothing in them is hand-made."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from isobench.analysis import summary as analysis
from isobench.config import paths
from isobench.report import html, markdown, sections
from isobench.storage import documents, reader

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/summary.json"))


def run_of(folder: Path) -> Path:
    """Return the run of an example, which is packed where it is large."""
    packed = folder / "run.zip"
    return packed if packed.exists() else folder


def same(one: Any, other: Any) -> bool:
    """Equal, floats to nine digits: another version of SciPy may round elsewhere."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        case list(), list():
            return len(one) == len(other) and all(map(same, one, other))
        case float() | int(), float() | int():
            return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def test_there_is_an_example() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_summary_is_computed_from_the_records(folder: Path) -> None:
    fresh = analysis.summarise(reader.load(run_of(folder)), analysis.documents_claims())
    kept = json.loads((folder / "summary.json").read_text())
    assert same(json.loads(documents.encoded(fresh)), kept)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_page_and_markdown_are_rendered_from_the_summary(folder: Path) -> None:
    seen = sections.build(documents.read_summary(folder))
    page = html.render(seen, paths.shared("reports") / "templates")
    assert page == (folder / "report.html").read_text()
    assert markdown.markdown(seen) == (folder / "summary.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_no_secret_of_a_machine_is_in_an_example(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".png":
            assert "/root/" not in path.read_text(errors="replace"), path
