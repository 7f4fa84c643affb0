"""Puts the programs into the wheel: the hook that hatchling calls (pyproject.toml names it).

It runs where isobench is not installed, only what `build-system.requires` lists. An editable wheel
gets the programs alone: all else lies in the checkout.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PayloadHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the programs before the wheel is packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build them in a temporary folder, and have it packed; `version` is "editable" for such
        a wheel.
        """
        sys.path.insert(0, self.root)
        from isobench.payload import ship  # noqa: PLC0415 - found by the line above

        # Should the build fail, the object takes the folder with it when this process ends.
        self._folder = tempfile.TemporaryDirectory(prefix="isobench-payloads-")
        ship.make(Path(self._folder.name))
        kind = "force_include_editable" if version == "editable" else "force_include"
        build_data[kind][self._folder.name] = "isobench/_shared/payloads"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder when the wheel is packed."""
        del version, build_data, artifact_path
        self._folder.cleanup()
