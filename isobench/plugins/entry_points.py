"""Finds and loads plug-ins from entry points. Errors name the distribution.

There is a group for each kind of plug-in: `isobench.targets`, `isobench.workloads`,
`isobench.exporters` and `isobench.sections`. isobench's own targets are entry points too. The
loaded objects are checked where they are used: targets in `registry`, workloads in
`workload_folders`, exporters and sections in `report`.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Final, TypeVar

from isobench.model.errors import NotApplicableError, SessionError
from isobench.plugins import guard, stdout

OWN: Final = "isobench"
"""The distribution of isobench itself."""
# These select several targets: `isobench run --targets auto`.
RESERVED: Final = ("all", "auto")
# A name becomes a part of file names, labels and options: no separators but these, no capitals.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PLAIN_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_UNUSABLE: Final = "unusable-"
_UNREADABLE: Final = "entry_points.txt cannot be read"

_T = TypeVar("_T")


class Kind(StrEnum):
    """The kinds of plug-ins."""

    TARGET = "target"
    WORKLOAD = "workload"
    EXPORTER = "exporter"
    SECTION = "section"

    @property
    def group(self) -> str:
        """The group of its entry points."""
        return f"isobench.{self.value}s"


@dataclass(frozen=True, kw_only=True, eq=False)
class Plugin:
    """An entry point, and the errors of it in this process."""

    kind: Kind
    name: str
    """The name for users: that of the entry point, or a replacement where that is invalid."""
    point: EntryPoint
    distribution: str
    version: str
    refused: str = ""
    """Why it is not used: another plug-in has its name. Empty: it is used."""
    faults: list[SessionError] = field(default_factory=list)

    @property
    def is_own(self) -> bool:
        """Whether it is a part of isobench."""
        return self.distribution == OWN

    @property
    def origin(self) -> str:
        """Its distribution and version, as in "isobench-mine 1.0"."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def info(self) -> guard.PluginInfo:
        """Its name and distribution for errors."""
        noun = "plug-in" if self.kind is Kind.TARGET else self.kind.value
        return guard.PluginInfo(
            name=self.name, distribution=self.distribution, version=self.version, noun=noun
        )

    def load(self) -> object:
        """Import it and return the object of its entry point. It may raise anything: call it within
        a guard.
        """
        if self.point.value == _UNREADABLE:
            raise ValueError(_UNREADABLE)
        if self.point.name != self.name:
            raise ValueError(
                f"its name {self.point.name!r} is not valid for {_ARTICLES[self.kind]}: use small"
                f" letters, digits{' and dashes' if self._is_plain else ', dots and dashes'},"
                f" as in {_EXAMPLES[self.kind]}"
            )
        return self.point.load()

    @property
    def _is_plain(self) -> bool:
        return self.kind in _PLAIN

    def attempt(self, place: str, limit: float, call: Callable[[], _T]) -> _T:
        """Return what `call` returns, which runs code of the plug-in for `limit` seconds at most.

        SessionError: it failed; the error names the distribution, and is added to `faults`.
        """
        if not self.is_own:
            stdout.protect()
        try:
            with self.info.calling(place, limit):
                return call()
        except (SessionError, NotApplicableError) as error:
            fault = self.note(error)
        raise fault

    def note(self, error: SessionError | NotApplicableError) -> SessionError:
        """Add an error to `faults` once, and return it with the distribution in its hint."""
        # The same error may occur at every command that loads the plug-in; it is shown once.
        known = next((fault for fault in self.faults if str(fault) == str(error)), None)
        if known is not None:
            return known
        blame = self.info.blame
        hint = error.hint if blame in error.hint else "; ".join(filter(None, [error.hint, blame]))
        fault = SessionError(str(error), hint=hint, log=getattr(error, "log", ""))
        self.faults.append(fault)
        _unreported.append((self, fault))
        return fault


_PLAIN: Final = frozenset({Kind.EXPORTER, Kind.SECTION})
"""Kinds whose names become options and anchors, and so have no dots."""
_ARTICLES: Final = {
    Kind.TARGET: "a target",
    Kind.WORKLOAD: "a folder of workloads",
    Kind.EXPORTER: "an exporter",
    Kind.SECTION: "a section",
}
_EXAMPLES: Final = {
    Kind.TARGET: "docker-crun",
    Kind.WORKLOAD: "mine",
    Kind.EXPORTER: "my-table",
    Kind.SECTION: "my-section",
}
_unreported: Final[list[tuple[Plugin, SessionError]]] = []


# Cached, since it reads the metadata of every installed distribution.
@functools.cache
def every(kind: Kind, reserved: frozenset[str] = frozenset()) -> tuple[Plugin, ...]:
    """Return all plug-ins of a kind, isobench's own first, including those that are refused.

    A plug-in is refused if its name is in `reserved` or is used by an earlier one.
    """
    # isobench's own come first, so that another distribution cannot replace one by its name.
    points = sorted(_points(kind.group), key=lambda point: distribution_of(point) != OWN)
    found: dict[str, Plugin] = {}
    listed: list[Plugin] = []
    for point in points:
        name = _usable(kind, point.name)
        refused = _taken(name, reserved, found)
        plugin = Plugin(
            kind=kind,
            name=name,
            point=point,
            distribution=distribution_of(point),
            version=_version(point),
            refused=refused,
        )
        listed.append(plugin)
        if refused:
            plugin.note(SessionError(refused, hint=f"uninstall {plugin.distribution}"))
        else:
            found[name] = plugin
    return tuple(listed)


def announced(kind: Kind, reserved: frozenset[str] = frozenset()) -> dict[str, Plugin]:
    """Return the plug-ins of a kind by name, without those that are refused."""
    return {plugin.name: plugin for plugin in every(kind, reserved) if not plugin.refused}


def take_unreported() -> list[tuple[Plugin, SessionError]]:
    """Return the errors that were not reported yet. Each is returned once."""
    taken = list(_unreported)
    _unreported.clear()
    return taken


def forget() -> None:
    """Forget the entry points, since a distribution was installed or removed."""
    every.cache_clear()
    _unreported.clear()


def _taken(name: str, reserved: frozenset[str], found: dict[str, Plugin]) -> str:
    """Return why a name cannot be used; empty where it can."""
    if name in reserved or (name in found and found[name].is_own):
        return f"the name {name} is isobench's own"
    if name in found:
        return f"the name {name} is already used by {found[name].origin}"
    return ""


def distribution_of(point: EntryPoint) -> str:
    """Return the name of the distribution, or a replacement where its metadata is broken."""
    with contextlib.suppress(Exception):
        if point.dist is not None and point.dist.name:
            return point.dist.name
    return point.name.removeprefix(_UNUSABLE) if point.dist is None else "without a name"


def _version(point: EntryPoint) -> str:
    with contextlib.suppress(Exception):
        return (point.dist.version if point.dist is not None else "") or ""
    return ""


def _points(group: str) -> Iterator[EntryPoint]:
    """Yield the entry points of a group. One that cannot be loaded replaces those of a distribution
    whose entry_points.txt is broken.
    """
    # `entry_points` raises for all distributions if one file is broken: then each is read by
    # itself.
    with contextlib.suppress(Exception):
        yield from entry_points(group=group)
        return
    for dist in distributions():
        try:
            yield from dist.entry_points.select(group=group)
        except Exception:  # noqa: BLE001 - the parser raises various errors for a broken file
            # A Distribution has no public attribute for its folder.
            folder = Path(str(getattr(dist, "_path", "unknown"))).name
            name = folder.removesuffix(".dist-info")
            yield EntryPoint(name=_UNUSABLE + name, value=_UNREADABLE, group=group)


def _usable(kind: Kind, name: str) -> str:
    """Return the name of an entry point, or a valid replacement where it is not valid."""
    pattern = _PLAIN_NAME if kind in _PLAIN else NAME
    if pattern.fullmatch(name) and name not in RESERVED:
        return name
    return _UNUSABLE + (re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "name")
