"""Writes commands for the user to paste into a shell."""

import itertools
import os
import re
import shlex
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

_SHORT: Final = {
    "-t": "--targets",
    "-w": "--workloads",
    "-r": "--blocks",
    "-o": "--output",
    "-n": "--dry-run",
    "-q": "--quiet",
    "-h": "--help",
}
_OTHER_NAMES: Final = {"--runs": "--blocks", "--cpu-affinity": "--affinity"}
FLAGS: Final = frozenset(
    ("--quick", "--fast", "--rigorous", "--dry-run", "--confirm", "--redact", "--quiet", "--help")
)
"""The options of `isobench run` that take no value."""
RESUME: Final = "--resume"
FINDING: Final = ("--config", "--workload-folder", "--redact")
"""Options that find targets and workloads, and the one that keeps names out of files: they count
for a run that is resumed as well.
"""
SHAPING: Final = (
    *FINDING,
    *("--margin", "--min-time", "--warmup", "--affinity", "--schedule", "--launch"),
    *("--until", "--seed", "--rigorous"),
)
"""Options that a run of the same kind has as well, whatever it measures and for how long."""
LENGTH: Final = (
    *("--min-blocks", "--max-blocks", "--blocks", "--target-precision"),
    *("--quick", "--fast"),
)
"""Options that say how long a run measures; --budget is another."""
_BUDGET: Final = re.compile(r"([0-9]{1,6})([mh])")
_LONGEST: Final = 2000
"""Characters that are taken over from a command line. It may stand in a stranger's run.json, and
every undecided cell has a command.
"""


def path(name: str | os.PathLike[str]) -> str:
    """Return a path, or any other word that is no option, as a part of a command."""
    text = os.fspath(name)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def resume(folder: str | os.PathLike[str] = "", kept: str = "") -> str:
    """Return the command that resumes the run in a folder; empty: the latest run. `kept` are the
    options that it has, too.
    """
    words = ("isobench run --resume", path(folder) if os.fspath(folder) else "", kept)
    return " ".join(filter(None, words))


def measure(
    argv: Iterable[str] | None,
    options: Mapping[str, str],
    *,
    variations: Iterable[str] = (),
    names: Collection[str] = SHAPING,
) -> str:
    """Return the command that measures as a command line did (None: it is not known), with other
    `options` and other `variations` of targets. `names` are the options that it keeps. An option
    without a value is left out.
    """
    own = kept(argv, [name for name in names if name not in options])
    varied = [_option("--vary", written) for written in variations]
    others = [_option(name, value) for name, value in options.items() if value]
    return " ".join(["isobench run", *filter(None, [own]), *varied, *others])


def variation(base: str, option: str, value: object) -> str:
    """Return a variation of a target as --vary takes it."""
    return f"{base}.{option}={value}"


def kept(argv: Iterable[str] | None, names: Collection[str]) -> str:
    """Return those options of a command line of `isobench run` that have one of the `names`."""
    words = tuple(argv or ())
    if words[:1] != ("run",):
        return ""
    found = [_option(name, value) for name, value in given(words) if name in names]
    text = " ".join(dict.fromkeys(found))
    # What cannot be shown cannot be pasted.
    return text if len(text) <= _LONGEST and text.isprintable() else ""


def _option(name: str, value: str) -> str:
    if name in FLAGS:
        return name
    return shlex.quote(f"{name}={value}") if value.startswith("-") else f"{name} {path(value)}"


def given(argv: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a command line of `isobench run`, each by its long name with its value
    (empty: it has none), as click reads them.
    """
    words = deque(argv)
    while words:
        word = words.popleft()
        if word == "--":  # what follows is a command of the user's
            return
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            name = _OTHER_NAMES.get(name, name)
            yield name, value if equals else _value(name, words)
        elif word.startswith("-"):
            yield from _short(word, words)


def _short(word: str, words: deque[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a word such as -qo, whose last one may have its value in it."""
    for place, letter in enumerate(word[1:], start=2):
        name = _SHORT.get(f"-{letter}")
        if name is None:
            return
        if name not in FLAGS:
            yield name, word[place:] or _value(name, words)
            return
        yield name, ""


def _value(name: str, words: deque[str]) -> str:
    """Take the value of an option from the words after it."""
    is_option = bool(words) and words[0].startswith("-") and words[0] != "-"
    if not words or name in FLAGS or (name == RESUME and is_option):
        return ""
    return words.popleft()


def named_folder(argv: Iterable[str] | None) -> str:
    """Return the folder that a command line names, as it is written there; empty: none."""
    return _last("--output", argv)


def resumed_folder(argv: Iterable[str] | None) -> str:
    """Return the folder that a command line resumes, as it is written there; empty: none."""
    return _last(RESUME, argv)


def _last(option: str, argv: Iterable[str] | None) -> str:
    values = [value for name, value in given(argv or ()) if name == option]
    return values[-1] if values else ""


def resumes(command: str) -> bool:
    """Return whether a command resumes a run."""
    return RESUME in _words(command)


def budget_of(command: str) -> float | None:
    """Return the minutes of a command's --budget, as isobench writes it; None where it has none.
    The text may come from a stranger's file.
    """
    for word, budget in itertools.pairwise(_words(command)):
        if word == "--budget":
            found = _BUDGET.fullmatch(budget)
            return float(found[1]) * (60 if found[2] == "h" else 1) if found else None
    return None


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quotation that does not end
        return []
