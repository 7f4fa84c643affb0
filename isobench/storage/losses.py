"""Lines of a run's files that cannot be used, and the blocks that do not count because of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

_MOST_SHOWN: Final = 3
_LONGEST_REASON: Final = 200
MOST_DAMAGED: Final = 100_000
"""Damaged lines of one file. One with more is refused: nothing of it can be trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What a damaged run has lost."""

    lines: int = 0
    """Lines that cannot be read, or that contradict others or the plan."""
    first: tuple[str, ...] = ()
    """The first of them: file, line and reason."""
    blocks: frozenset[int] = frozenset()
    """The blocks that they belong to, or may belong to. These do not count: which of their samples
    are missing may depend on the values, and an interval from the others could be too narrow.
    """
    may_hide_leavings: bool = False
    """A lost line may have recorded that a cell left the run early, so that its interval needs the
    level of an interim analysis.
    """

    def __bool__(self) -> bool:
        """Return whether anything was lost."""
        return bool(self.lines)


@dataclass(slots=True)
class Collector:
    """Collects the damaged lines of one file."""

    file: str
    reasons: dict[int, str] = field(default_factory=dict)
    blocks: set[int] = field(default_factory=set)
    may_hide_leavings: bool = False

    def add(self, lines: Iterable[int], why: str, blocks: Iterable[int] = ()) -> None:
        """Count damaged lines. A line that was counted before keeps its first reason.

        ValueError: they are too many.
        """
        self.blocks.update(blocks)
        for line in lines:
            self.reasons.setdefault(line, why[:_LONGEST_REASON])
        if len(self.reasons) > MOST_DAMAGED:
            message = f"{next(iter(self.first()))}; more than {MOST_DAMAGED} lines are damaged"
            raise ValueError(message)

    def first(self) -> Iterator[str]:
        """Yield file, line and reason of the first damaged lines."""
        for line in sorted(self.reasons)[:_MOST_SHOWN]:
            yield f"{self.file}:{line}: {self.reasons[line]}"


def together(*found: Collector) -> Losses:
    """Return the losses of several files."""
    return Losses(
        lines=sum(len(one.reasons) for one in found),
        first=tuple(text for one in found for text in one.first())[:_MOST_SHOWN],
        # Block 0 is the trial, which never counts.
        blocks=frozenset().union(*(one.blocks for one in found)) - {0},
        may_hide_leavings=any(one.may_hide_leavings for one in found),
    )
