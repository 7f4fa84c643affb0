"""Types of command-line parameters: durations, shares, CPUs, lists of names."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from isobench.model.bounds import LARGEST_SEED, LEAST_SHARE, MOST_WANTED
from isobench.model.units import parse_duration
from isobench.model.wording import time_text

# More than any kernel is built for (CONFIG_NR_CPUS is 8192 at most on x86). Without a bound,
# "--affinity 0-999999999999" would fill the memory before the kernel refuses it.
_MOST_CPUS = 1 << 16
_LONGEST_CPU = 20
"""Digits. Python reads thousands of them only as an error."""
SEED = click.IntRange(0, LARGEST_SEED)
BLOCKS = click.IntRange(1, MOST_WANTED)


class PathName(click.Path):
    """A path, which must not be empty: `-o "$FOLDER"` with an unset variable is an oversight, and
    would mean the working directory. "-" is a standard stream where the option allows it, and
    nowhere a file by accident.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if not os.fspath(value):
            self.fail("the path is empty", param, ctx)
        if os.fspath(value) == "-" and not self.allow_dash:
            self.fail(
                '"-" is a standard stream, and a path is needed here; ./- is a file of this name',
                param, ctx,
            )  # fmt: skip
        return super().convert(value, param, ctx)


class Duration(click.ParamType[float]):
    """Seconds from "50ms", "90s", "10m", "1h30m" or plain seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, int | float):  # a default, which click converts as well
            return float(value)
        try:
            return parse_duration(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Since(click.ParamType[str]):
    """A time in UTC (ISO 8601) from a date, or from how long ago it was: "90d"."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the time as runs have it: 2026-08-01T00:00:00Z."""
        text = str(value).strip()
        try:
            if text.endswith("d") and text[:-1].isdecimal():
                return time_ago(timedelta(days=int(text[:-1])))
            then = datetime.fromisoformat(text)
            then = then.astimezone(UTC) if then.tzinfo else then.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no date: write 2026-08-01, or 90d for 90 days ago", param, ctx)
        return time_text(then)


def time_ago(ago: timedelta) -> str:
    """Return the time so long ago as runs have it. OverflowError: there is none."""
    return time_text(datetime.now(UTC) - ago)


class Cpus(click.ParamType[frozenset[int]]):
    """CPUs from "2", "0,2" or "2-5"."""

    name = "cpus"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[int]:
        """Return the numbers."""
        if isinstance(value, frozenset):
            return value
        found: set[int] = set()
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            ends = (first, last if dash else first)
            is_list = all(end.isdecimal() and len(end) <= _LONGEST_CPU for end in ends)
            if not is_list or int(ends[0]) > int(ends[1]):
                self.fail(f"{value!r} is not a list of CPUs: write 2, 0,2 or 2-5", param, ctx)
            if int(ends[1]) > _MOST_CPUS:
                self.fail(f"no machine has a CPU {ends[1]}", param, ctx)
            found |= set(range(int(ends[0]), int(ends[1]) + 1))
        return frozenset(found)


class Share(click.ParamType[float]):
    """A fraction from "5%" (or "0.05")."""

    name = "percent"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return a fraction above 0 and below 1."""
        text = str(value).strip()
        number = _float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        if not LEAST_SHARE < number < 1:
            self.fail(
                f"{value!r} is not a share between 0% and 100%: write it with its sign, as in 5%",
                param,
                ctx,
            )
        return number


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def names_of(
    _context: click.Context, _param: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    """Return names given with commas, with repeated options, or both. BadParameter: the list is
    empty.
    """
    names = tuple(name.strip() for value in values for name in value.split(",") if name.strip())
    # An empty list usually comes from an empty variable of a script: --targets "$TARGETS". It must
    # not mean the same as no option, which measures everything.
    if values and not names:
        raise click.BadParameter("the list of names is empty")
    return names
