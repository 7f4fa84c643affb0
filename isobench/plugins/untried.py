"""Replaces targets whose configuration has commands, unless the user names the target."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isobench.model import (
    Abi,
    Availability,
    Expectation,
    Lack,
    Leftover,
    Stage,
    Technology,
    Unavailable,
)
from isobench.model.commands import path
from isobench.model.errors import SessionError
from isobench.model.units import TargetName
from isobench.plugins.api import Executes, Session, Sweeper, Target


def commands(target: Target, options: Collection[str], *, in_tree: bool) -> list[str]:
    """Return the options of a configuration that make isobench execute something."""
    # A target of another distribution without the ability `Executes` may execute any of them.
    if isinstance(target, Executes):
        return [name for name in options if name in target.executes]
    return [] if in_tree else list(options)


@dataclass(frozen=True, kw_only=True)
class UntriedTarget:
    """A target that is neither probed nor used, because of what its configuration has."""

    name: TargetName
    configured: Target
    """The target as it is configured. Only its attributes are read."""
    optionless: Sweeper | None
    """A target of the same kind without options, to remove what dead runs have left."""
    file: str
    options: Sequence[str]
    """The options that say so."""

    @property
    def technology(self) -> Technology:
        """The column of the report."""
        return self.configured.technology

    @property
    def abi(self) -> Abi | None:
        """What payloads must be built for."""
        return self.configured.abi

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """No expectations, since no session is opened."""
        return ()

    def probe(self) -> Availability:
        """Return that it was not tried, and what to type."""
        return Unavailable(
            lack=Lack.UNTRIED,
            what=f"not tried: {self.file} says what to start or use for it"
            f" ({', '.join(self.options)}), which isobench does only if you name the target",
            hint=f"isobench doctor {self.name}, isobench run --targets {self.name},"
            f" or --config {path(self.file)} with any command",
        )

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Session]:
        """Raise SessionError: nothing of this target may run."""
        raise SessionError(f"{self.name} was not named ({stage.owner})")
        yield  # type: ignore[unreachable]  # makes this a generator, as the interface asks

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove what dead runs have left, as far as that needs no command of the configuration."""
        return [] if self.optionless is None else self.optionless.sweep(alive, cached=cached)


def stand_in(
    name: str,
    target: Target,
    options: Mapping[str, Any],
    *,
    file: str,
    in_tree: bool,
) -> Target:
    """Return a replacement for a target whose configuration has commands; else the target itself.

    `options` is its configuration, `file` the configuration file for messages.
    """
    # An empty value turns an option off, and executes nothing.
    found = commands(target, [key for key, value in options.items() if value], in_tree=in_tree)
    if not found:
        return target
    optionless: object = None
    with contextlib.suppress(Exception):  # a kind with required options, or a broken plug-in
        optionless = type(target)()
    return UntriedTarget(
        name=TargetName(name),
        configured=target,
        optionless=optionless if isinstance(optionless, Sweeper) else None,
        file=file,
        options=found,
    )
