"""docs/claims.md matches the program."""

import dataclasses
import re
from pathlib import Path

import pytest

from isobench.claims.condition import NAMES
from isobench.model import Claim, ClaimKind

DOCS = Path(__file__).parents[2] / "docs"
CLAIMS = (DOCS / "claims.md").read_text()


def rows(text: str) -> list[str]:
    """Return the first cells of all rows of all tables, without headings."""
    cells = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return [cell for cell in cells if cell not in ("---", "key", "kind", "term")]


def test_every_key_of_a_claim_is_explained() -> None:
    explained = {name for cell in rows(CLAIMS) for name in re.findall(r"`(\w+)`", cell)}
    keys = {field.name for field in dataclasses.fields(Claim)} - {"origin"}
    assert explained == keys | set(ClaimKind)


def test_every_name_of_a_condition_is_explained() -> None:
    assert all(f"`{name}`" in CLAIMS.partition("## Conditions")[2] for name in NAMES)


@pytest.mark.parametrize("link", re.findall(r"\]\((\.\./[^)#]+)\)", CLAIMS))
def test_every_link_has_a_target(link: str) -> None:
    assert (DOCS / link).exists(), link
