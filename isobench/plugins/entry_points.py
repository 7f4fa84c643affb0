"""What other distributions add to isobench: their entry points, found, loaded behind the guard, and
named with their distribution where something is wrong.

There is a group for each kind of plug-in: `isobench.targets`, `isobench.workloads`,
`isobench.exporters` and `isobench.sections`. isobench's own targets are entry points too. Each room
checks what it has loaded itself: targets in `registry`, workloads in `workload_folders`, exporters
and sections in `report`.
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
"""The distribution whose plug-ins are isobench's own."""
RESERVED: Final = ("all", "auto")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""What files and flags can carry."""
_PLAIN_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_UNUSABLE: Final = "unusable-"
_UNREADABLE: Final = "entry_points.txt cannot be read"

_T = TypeVar("_T")


class Kind(StrEnum):
    """What a plug-in adds."""

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
    """An entry point, and what has gone wrong with it in this process."""

    kind: Kind
    name: str
    """What users see: the entry point's name, or what stands for an unusable one."""
    point: EntryPoint
    distribution: str
    version: str
    refused: str = ""
    """Why it is not used at all, since its name is taken; empty where it is not."""
    faults: list[SessionError] = field(default_factory=list)

    @property
    def is_own(self) -> bool:
        """Say whether it comes with isobench."""
        return self.distribution == OWN

    @property
    def origin(self) -> str:
        """Its distribution and version, as in "isobench-mine 1.0"."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def maker(self) -> guard.Maker:
        """Whose fault it is when it breaks."""
        noun = "plug-in" if self.kind is Kind.TARGET else self.kind.value
        return guard.Maker(
            name=self.name, distribution=self.distribution, version=self.version, noun=noun
        )

    def load(self) -> object:
        """Import it and return the object that its entry point names.

        What goes wrong is raised as it is, so that the caller's guard sees it.
        """
        if self.point.value == _UNREADABLE:
            raise ValueError(_UNREADABLE)
        if self.point.name != self.name:
            raise ValueError(
                f"its name {self.point.name!r} cannot be that of {_ARTICLES[self.kind]}: small"
                f" letters, digits{' and dashes' if self._is_plain else ', dots and dashes'},"
                f" as in {_EXAMPLES[self.kind]}"
            )
        return self.point.load()

    @property
    def _is_plain(self) -> bool:
        return self.kind in _PLAIN

    def attempt(self, place: str, limit: float, call: Callable[[], _T]) -> _T:
        """Return what `call` returns, which runs code of the plug-in for `limit` seconds at most.

        Whatever goes wrong is a `SessionError` that names the distribution. It is noted among the
        faults, and reported by whoever takes them next.
        """
        if not self.is_own:
            stdout.protect()
        try:
            with self.maker.calling(place, limit):
                return call()
        except (SessionError, NotApplicableError) as error:
            fault = self.note(error)
        raise fault

    def note(self, error: SessionError | NotApplicableError) -> SessionError:
        """Note a fault once, and return it with the plug-in's distribution in its hint."""
        known = next((fault for fault in self.faults if str(fault) == str(error)), None)
        if known is not None:
            return known
        blame = self.maker.blame
        hint = error.hint if blame in error.hint else "; ".join(filter(None, [error.hint, blame]))
        fault = SessionError(str(error), hint=hint, log=getattr(error, "log", ""))
        self.faults.append(fault)
        _unreported.append((self, fault))
        return fault


_PLAIN: Final = frozenset({Kind.EXPORTER, Kind.SECTION})
"""Kinds whose names become flags and anchors: no dots."""
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


@functools.cache
def every(kind: Kind, reserved: frozenset[str] = frozenset()) -> tuple[Plugin, ...]:
    """Return all plug-ins of a kind, isobench's own first, those that are refused among them.

    A name in `reserved`, or one that another distribution has taken, is refused.
    """
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
    """Return the faults that nobody has reported yet, once."""
    taken = list(_unreported)
    _unreported.clear()
    return taken


def forget() -> None:
    """Look for entry points anew: a distribution has come or gone."""
    every.cache_clear()
    _unreported.clear()


def _taken(name: str, reserved: frozenset[str], found: dict[str, Plugin]) -> str:
    """Return why a name cannot be used once more; empty where it can."""
    if name in reserved or (name in found and found[name].is_own):
        return f"the name {name} is isobench's own"
    if name in found:
        return f"the name {name} is taken by {found[name].origin}"
    return ""


def distribution_of(point: EntryPoint) -> str:
    """Return the distribution's name; one whose metadata is broken may have none."""
    with contextlib.suppress(Exception):
        if point.dist is not None and point.dist.name:
            return point.dist.name
    return point.name.removeprefix(_UNUSABLE) if point.dist is None else "without a name"


def _version(point: EntryPoint) -> str:
    with contextlib.suppress(Exception):
        return (point.dist.version if point.dist is not None else "") or ""
    return ""


def _points(group: str) -> Iterator[EntryPoint]:
    """Yield the entry points of a group. A distribution whose list of them cannot be read must not
    cost the others: one that says so stands for it.
    """
    with contextlib.suppress(Exception):
        yield from entry_points(group=group)
        return
    for dist in distributions():
        try:
            yield from dist.entry_points.select(group=group)
        except Exception:  # noqa: BLE001 - what a broken file makes the parser raise differs
            folder = Path(str(getattr(dist, "_path", "unknown"))).name
            name = folder.removesuffix(".dist-info")
            yield EntryPoint(name=_UNUSABLE + name, value=_UNREADABLE, group=group)


def _usable(kind: Kind, name: str) -> str:
    """Return the name of an entry point, or what stands for one that no file or flag can carry."""
    pattern = _PLAIN_NAME if kind in _PLAIN else NAME
    if pattern.fullmatch(name) and name not in RESERVED:
        return name
    return _UNUSABLE + (re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "name")
