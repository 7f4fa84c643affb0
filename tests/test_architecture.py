"""Who may import whom, and behind which door each library stays. The tables are the rules."""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "isobench"

LEVELS = (
    ("units", "errors", "places", "owner", "spelling", "stdout", "trust"),
    ("model", "tables"),
    ("plugin",),
    (
        *("targets", "testing", "payload", "evidence", "workloads", "store", "stats", "verdict"),
        *("headline", "claims", "plan", "config", "packages", "wish", "elsewhere"),
        *("guard", "untried"),
    ),
    ("registry", "runner", "answers", "report", "selftest", "likeness", "authoring"),
    # The trial that a run begins with, limits it pushes past; what runs tell together, and what a
    # machine can tell apart.
    ("pilot", "enforcement", "duet", "comparison", "resolution", "selection"),
    ("campaign",),  # the sequence of a run: it alone knows the parts of the level below
    ("flags", "screen"),
    ("cli",),
    ("__main__",),
)
EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(importer, imported) -> why a module may import one of its own level or above."""

FENCES = {
    "docker": {"targets.docker"},
    "requests": {"targets.docker"},  # what Docker's SDK raises
    "paramiko": {"targets._ssh", "targets._ssh_host"},
    "cryptography": {"targets._ssh"},  # paramiko makes no Ed25519 keys
    "kubernetes": {"targets._kubernetes"},
    "urllib3": {"targets._kubernetes"},  # what its client sends with, and raises
    "websocket": {"targets._kubernetes"},  # what its client brings for streams
    "psutil": {"targets._process", "evidence.host", "owner"},
    "pandas": {"store", "answers"},
    "scipy": {"stats"},
    "numpy": {"stats", "answers", "selftest", "comparison"},
    "jinja2": {"report.html"},
    "rich": {"report.text", "report.sheet", "screen", "cli"},
    "click": {"cli", "flags"},
    "ziglang": {"payload.build"},
    # every edge, and no noun
    "msgspec": {*LEVELS[3], *LEVELS[4], "campaign", "comparison", "tables"},
}
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def modules() -> dict[str, Path]:
    """Return every module by its dotted name without "isobench"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Return what a file imports, late imports included, as dotted names."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole.removeprefix("isobench.") in MODULES else base


def own(path: Path) -> Iterator[str]:
    """Yield what a file imports of isobench, without "isobench." and without the bare package."""
    for name in imports(path):
        if name.startswith("isobench."):
            yield name.removeprefix("isobench.")


MODULES = modules()
NAMED = [name for name in MODULES if name]


@pytest.mark.parametrize("name", NAMED)
def test_a_module_imports_only_from_lower_levels_or_its_own_package(name: str) -> None:
    package = name.partition(".")[0]
    for imported in own(MODULES[name]):
        other = imported.partition(".")[0]
        allowed = other == package or LEVEL[other] < LEVEL[package]
        assert allowed or (name, imported) in EXCEPTIONS, f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in NAMED if name.startswith("targets.")])
def test_a_target_imports_no_other_target_but_private_helpers(name: str) -> None:
    for imported in own(MODULES[name]):
        if imported.startswith("targets."):
            assert imported.startswith("targets._"), f"{name} imports {imported}"


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "isobench")
def test_a_third_party_library_stays_behind_its_door(name: str) -> None:
    for imported in imports(MODULES[name]):
        library = imported.partition(".")[0]
        if library == "isobench" or library in sys.stdlib_module_names:
            continue
        doors = FENCES.get(library)
        assert doors is not None, f"{name} imports {library}, which the table does not know"
        assert {name, name.partition(".")[0]} & doors, f"{name} imports {library}"


def test_the_tables_name_what_exists_and_nothing_else() -> None:
    assert set(LEVEL) == {name.partition(".")[0] for name in NAMED}
    assert {door for doors in FENCES.values() for door in doors} <= set(NAMED)


def test_every_exception_and_every_door_is_still_used() -> None:
    used = {(name, imported) for name in NAMED for imported in own(MODULES[name])}
    assert set(EXCEPTIONS) <= used
    for library in set(FENCES) - {"msgspec"}:
        for door in FENCES[library]:
            inside = [n for n in NAMED if n == door or n.startswith(f"{door}.")]
            users = [
                n for n in inside for i in imports(MODULES[n]) if i.partition(".")[0] == library
            ]
            assert users, f"the door {door} for {library} is no longer used"


def test_the_package_itself_imports_nothing_so_that_help_answers_at_once() -> None:
    assert imports(MODULES[""]) == ()
