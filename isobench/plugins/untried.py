"""Stands for a target whose configuration has commands that nobody asked to run."""

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
from isobench.model.errors import SessionError
from isobench.model.units import TargetName
from isobench.plugins.api import Executes, Session, Sweeper, Target


def commands(target: Target, options: Collection[str], *, in_tree: bool) -> list[str]:
    """Return which of the options that a configuration sets have isobench execute something.

    A target of another distribution that does not say so may execute what any of them says.
    """
    if isinstance(target, Executes):
        return [name for name in options if name in target.executes]
    return [] if in_tree else list(options)


@dataclass(frozen=True, kw_only=True)
class UntriedTarget:
    """A target that is neither probed nor used, for the commands in its configuration."""

    name: TargetName
    configured: Target
    """The target as it is configured. Only asked what it is."""
    plain: Sweeper | None
    """One of the same kind without options, to remove what dead runs have left."""
    file: str
    options: Sequence[str]
    """The options that hold the commands."""

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
        """Nothing is expected of what is not tried."""
        return ()

    def probe(self) -> Availability:
        """Say that nothing was tried, and what to type."""
        return Unavailable(
            lack=Lack.UNTRIED,
            what=f"not tried: {self.file} has commands for it ({', '.join(self.options)}), which"
            " run only where the target is named",
            hint=f"isobench doctor {self.name}, isobench run --targets {self.name},"
            f" or --config {self.file} with any command",
        )

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Session]:
        """Refuse."""
        raise SessionError(f"{self.name} was not named ({stage.owner})")
        yield  # type: ignore[unreachable]  # makes this a generator, as the interface asks

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove what dead runs have left, as far as no command of the configuration is needed."""
        return [] if self.plain is None else self.plain.sweep(alive, cached=cached)


def held_back(
    name: str,
    target: Target,
    options: Mapping[str, Any],
    *,
    file: str,
    in_tree: bool,
) -> Target:
    """Return what stands for a target whose configured commands nobody asked to run; the target
    itself where it has none.
    """
    found = commands(target, [key for key, value in options.items() if value], in_tree=in_tree)
    if not found:
        return target
    plain: object = None
    with contextlib.suppress(Exception):  # a kind that cannot be without options
        plain = type(target)()
    return UntriedTarget(
        name=TargetName(name),
        configured=target,
        plain=plain if isinstance(plain, Sweeper) else None,
        file=file,
        options=found,
    )
