"""Distributions with plug-ins, installed for one process and its children: a folder with
pyproject.toml, modules and packages becomes a folder on sys.path that importlib.metadata reads.
"""

import os
import shutil
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from isobench.plugins import entry_points, registry
from isobench.plugins.entry_points import Kind

ONLY: list[str] = []
"""The targets that the contract suite is held to; none named: all that are announced."""


def lay_out(source: Path, site: Path, but: Collection[str] = ()) -> tuple[str, ...]:
    """Copy a distribution's modules, packages and metadata into `site`, `but` for some of its
    targets; return the names of the others.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    groups: dict[str, dict[str, str]] = project["entry-points"]
    groups[Kind.TARGET.group] = {k: v for k, v in groups[Kind.TARGET.group].items() if k not in but}
    site.mkdir(parents=True, exist_ok=True)
    for part in source.iterdir():
        if part.suffix == ".py":
            shutil.copy(part, site)
        elif (part / "__init__.py").is_file():
            shutil.copytree(part, site / part.name, ignore=shutil.ignore_patterns("__pycache__"))
    announce(site, name, groups, version)
    return tuple(groups[Kind.TARGET.group])


def announce(
    site: Path, name: str, groups: Mapping[str, Mapping[str, str]], version: str = "1.0"
) -> None:
    """Write the metadata of a distribution with these entry points into `site`."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))


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
