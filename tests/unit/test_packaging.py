"""What the installed program needs is in what is installed."""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from isobench.payload import ship
from isobench.payload._wheel import PayloadHook

ROOT = Path(__file__).parents[2]
RESULTS = [ROOT / "reports" / name for name in ("examples", "dial")]
"""What was measured: the program reads none of it."""


def test_all_data_of_the_program_are_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert all(
        inside == f"isobench/_shared/{path}" and (ROOT / path).exists()
        for path, inside in included.items()
    )
    data = [path for path in (ROOT / "reports").rglob("*") if path.is_file()]
    wanted = [path for path in data if not any(map(path.is_relative_to, RESULTS))]
    left_out = [
        str(path.relative_to(ROOT))
        for path in wanted
        if not any(path.is_relative_to(ROOT / each) for each in included)
    ]
    assert wanted
    assert left_out == []


def test_the_compiler_is_needed_for_building_alone_and_is_of_one_version() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    (pinned,) = project["optional-dependencies"]["build"]
    assert pinned.startswith("ziglang==")
    assert pinned in settings["build-system"]["requires"]
    assert pinned in project["optional-dependencies"]["dev"]
    assert not [line for line in project["dependencies"] if "zig" in line]
    hook = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["path"]
    assert (ROOT / hook).is_file()


ALONE = """
import sys
allowed = {*sys.stdlib_module_names, *sys.argv[2:]}

class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import isobench.payload.ship
print(len(isobench.payload.ship.jobs()))
"""
"""What the hook imports, where nothing but the named modules can be found."""


def test_what_builds_the_wheel_needs_no_more_than_the_build_requires() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [re.split(r"[=<>]", line)[0] for line in settings["build-system"]["requires"]]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT), "isobench", *names],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@pytest.mark.parametrize(
    ("version", "kind"),
    [("standard", "force_include"), ("editable", "force_include_editable")],
)
def test_every_kind_of_wheel_gets_the_payloads_and_nothing_stays_behind(
    version: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ship, "make", lambda folder: (folder / "manifest.json").write_text("{}"))
    root = str(ROOT)
    hook = PayloadHook(root, {}, None, None, root, "wheel")  # type: ignore[arg-type]
    packed: dict[str, Any] = {"force_include": {}, "force_include_editable": {}}
    hook.initialize(version, packed)
    ((folder, place),) = packed[kind].items()
    assert place == "isobench/_shared/payloads"
    assert (Path(folder) / "manifest.json").is_file()
    assert sum(map(len, packed.values())) == 1
    hook.finalize(version, packed, "isobench.whl")
    assert list(tmp_path.iterdir()) == []
