"""Distributions with targets, installed for one process and its children: a folder with
pyproject.toml and modules becomes a folder on sys.path that importlib.metadata reads.
"""

import os
import shutil
import sys
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path

from isobench.plugins import entry_points, registry
from isobench.plugins.api import GROUP

ONLY: list[str] = []
"""The targets that the contract suite is held to; none named: all that are announced."""


def lay_out(source: Path, site: Path, but: Collection[str] = ()) -> tuple[str, ...]:
    """Copy a distribution's modules and metadata into `site`, `but` for some of its targets; return
    the names of the others.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    points = {k: v for k, v in project["entry-points"][GROUP].items() if k not in but}
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    for module in source.glob("*.py"):
        shutil.copy(module, site)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    return tuple(points)


def install(source: Path, site: Path) -> None:
    """Let this process and its children find a distribution, and test its targets alone."""
    ONLY.extend(lay_out(source, site))
    sys.path.insert(0, str(site))
    known = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *known])
    entry_points.forget()


def under_test(among: Sequence[str] = ()) -> list[str]:
    """Return the targets that the contract suite is held to, `among` these where some are named."""
    names = among or list(registry.announced())
    return [name for name in names if not ONLY or name in ONLY]
