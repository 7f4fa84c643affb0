"""Who may import whom, and behind which door each library stays. The tables are the rules."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "isobench"

FLOORS = (
    ("model",),
    ("config",),
    ("stats", "storage", "evidence", "claims", "workloads"),
    ("plugins", "analysis"),
    ("payload", "targets", "comparison", "selftest"),
    ("history",),
    ("report",),
    ("run",),
    ("api",),
    ("cli", "pytest_isobench"),
    ("__main__",),
)
"""The rooms, from the ground up; CONTRIBUTING.md draws the same."""
KINDS = ("containers", "sandboxes", "machines", "translation")
"""The rooms of targets, within `targets`."""
EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(importer, imported) -> why a module may import one of its own floor or above."""

FENCES = {
    "docker": {"targets.containers.docker", "targets.containers._docker_client"},
    "requests": {"targets.containers._docker_client"},  # what Docker's SDK raises
    "paramiko": {"targets.machines._ssh", "targets.machines._ssh_host"},
    "cryptography": {"targets.machines._ssh"},  # paramiko makes no Ed25519 keys
    "kubernetes": {"targets.containers._kubernetes"},
    "urllib3": {"targets.containers._kubernetes"},  # what its client sends with, and raises
    "websocket": {"targets.containers._kubernetes"},  # what its client brings for streams
    "psutil": {"targets.shared.processes", "evidence.host", "plugins.ownership"},
    "re2": {"claims.patterns"},  # the one place where a stranger's pattern is run
    "pandas": {"storage.records", "storage.kept", "storage.reader", "analysis", "api"},
    "scipy": {"stats"},
    "numpy": {
        "storage.records",
        "storage.kept",
        "stats",
        "analysis",
        "selftest",
        "comparison",
        "history",
    },
    "pytest": {"pytest_isobench"},
    "duckdb": {"history.duckdb_door"},
    "ruptures": {"stats.change_points"},
    "jinja2": {"report.html"},
    "rich": {"report.text", "report.sheet", "report.console", "cli"},
    "click": {"cli", "config.parameters", "pytest_isobench"},
    "ziglang": {"payload.compiler"},
    "hatchling": {"payload._wheel"},  # what builds the wheel
    # every edge, and no noun
    "msgspec": {name for floor in FLOORS[1:] for name in floor} - {"api", "cli", "__main__"},
}
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


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
def test_a_module_imports_only_from_lower_floors_or_its_own_room(name: str) -> None:
    room = name.partition(".")[0]
    for imported in own(MODULES[name]):
        other = imported.partition(".")[0]
        allowed = other == room or FLOOR[other] < FLOOR[room]
        assert allowed or (name, imported) in EXCEPTIONS, f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in NAMED if name.startswith("targets.")])
def test_a_target_imports_only_helpers_of_its_own_room_and_what_is_shared(name: str) -> None:
    room, _, leaf = name.removeprefix("targets.").rpartition(".")
    for imported in own(MODULES[name]):
        if not imported.startswith("targets."):
            continue
        other, _, helper = imported.removeprefix("targets.").rpartition(".")
        private = other == room and helper.startswith("_") and room in KINDS
        assert private or other == "shared", f"{name} imports {imported}"
    assert room in {*KINDS, "shared", ""} or leaf in KINDS, f"{name} is in no room"


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "isobench")
def test_a_third_party_library_stays_behind_its_door(name: str) -> None:
    for imported in imports(MODULES[name]):
        library = imported.partition(".")[0]
        if library == "isobench" or library in sys.stdlib_module_names:
            continue
        doors = FENCES.get(library)
        assert doors is not None, f"{name} imports {library}, which the table does not know"
        assert {name, name.partition(".")[0]} & doors, f"{name} imports {library}"


def test_no_python_that_is_started_imports_from_the_working_folder() -> None:
    """`-m` and `-c` put it first, and somebody else may have put a file into it."""
    started = r"(?:executable|/bin/python3\"), (\"-\w\")"
    found = [flag for path in MODULES.values() for flag in re.findall(started, path.read_text())]
    assert found
    assert {*found} <= {'"-I"', '"-P"'}


def test_the_tables_name_what_exists_and_nothing_else() -> None:
    assert set(FLOOR) == {name.partition(".")[0] for name in NAMED}
    assert {door for doors in FENCES.values() for door in doors} <= set(NAMED)


def test_contributing_draws_these_floors() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    drawing = text.partition("## The house\n\n```\n")[2].partition("```")[0]
    drawn: list[set[str]] = []
    for line in drawing.splitlines():
        found = re.match(r"(?:floor (?P<floor>\d+))? +(?P<room>\w+)  ", line)
        assert found, line
        if found["floor"]:
            drawn.append(set())
            assert int(found["floor"]) == len(FLOORS) + 1 - len(drawn), line
        drawn[-1].add(found["room"])
    assert list(reversed(drawn)) == [set(names) for names in FLOORS]


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


def test_the_package_itself_imports_its_interface_alone_and_only_when_it_is_used() -> None:
    assert {one.partition(".")[0] for one in imports(MODULES[""])} <= {"isobench", "typing"}
    assert set(own(MODULES[""])) == {"api"}
    code = "import sys, isobench; print(isobench.__version__, 'isobench.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" False\n")
