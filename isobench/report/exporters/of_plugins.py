"""Exporters of plug-ins. One is loaded when it is used, or when its help is shown."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from isobench.model.cleaning import cleaned
from isobench.model.errors import SessionError
from isobench.plugins import entry_points, guard
from isobench.plugins.entry_points import Kind, Plugin
from isobench.report.exporters import EXPORTERS, Exporter

if TYPE_CHECKING:
    from isobench.report.write import Outcome

PATIENCE: Final = 120.0
"""Seconds for an exporter to return its text."""
MOST: Final = 64 << 20
"""The most characters of one file."""
_LONGEST_SUMMARY: Final = 200


def exporters() -> dict[str, "PluginExporter"]:
    """Return the exporters of plug-ins by name. None of them is loaded yet."""
    announced = entry_points.announced(Kind.EXPORTER, frozenset(EXPORTERS))
    return {name: PluginExporter(plugin=plugin) for name, plugin in announced.items()}


@dataclass(frozen=True, kw_only=True)
class PluginExporter:
    """An exporter of a plug-in, with the option --export-NAME."""

    plugin: Plugin

    @property
    def name(self) -> str:
        """The end of its option."""
        return self.plugin.name

    @property
    def summary(self) -> str:
        """The help text of its option; where it does not load, the reason."""
        try:
            text = self.load().summary
        except SessionError as error:
            text = f"Does not load: {error}."
        return f"{cleaned(text, longest=_LONGEST_SUMMARY)} ({self.plugin.distribution})"

    def load(self) -> Exporter:
        """Return the exporter. SessionError: it does not load, or is not an exporter."""
        return self.plugin.attempt("loading it", guard.LOAD_LIMIT, self._checked)

    def check(self) -> bool:
        """Return whether it loads. If it does not, the faults of the plug-in say why."""
        with contextlib.suppress(SessionError):
            self.load()
            return True
        return False

    def _checked(self) -> Exporter:
        found = self.plugin.load()
        if not isinstance(found, Exporter):
            raise TypeError(f"it is {type(found).__name__}, not an Exporter")
        if found.name != self.name:
            raise ValueError(f"it calls itself {found.name!r}, and its entry point {self.name!r}")
        return found

    def __call__(self, outcome: "Outcome") -> str:
        """Return the text of the file. SessionError: it failed, or the text cannot be written."""
        exporter = self.load()
        return self.plugin.attempt("exporting", PATIENCE, lambda: _text(exporter(outcome)))


def _text(made: object) -> str:
    if not isinstance(made, str):
        raise TypeError(f"what came back is {type(made).__name__}, not a str")
    if len(made) > MOST:
        raise ValueError(f"the text has {len(made):,} characters, and {MOST:,} are the most")
    made.encode()  # a lone surrogate cannot be written: it raises here, where the fault is known
    return made
