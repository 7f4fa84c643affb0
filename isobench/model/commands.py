"""Writes commands for the user to type."""

import itertools
import shlex
from collections.abc import Iterable
from typing import Final

_FOLDER: Final = ("-o", "--output")
_CONFIG: Final = ("", "--config")
_WORKLOADS: Final = ("", "--workload-folder")


def resume(folder: str, argv: Iterable[str] = ()) -> str:
    """Return the command that resumes the run in a folder; empty: the latest run of those that have
    no folder of the user's.

    A run does not keep the workloads of a folder of the user's, so that the command names those of
    `argv`. It is the user's own command line: whoever has sent a run must not choose them.
    """
    words = ["isobench run --resume", *([shlex.quote(folder)] if folder else [])]
    return " ".join([*words, *_again(argv, _WORKLOADS)])


def named_folder(argv: Iterable[str] | None) -> str:
    """Return the folder that a command line names, as it is written there; empty: none."""
    return next(reversed(_values(argv, _FOLDER)), "")


def definitions(argv: Iterable[str] | None) -> list[str]:
    """Return the options of a command line without which another command does not know the same
    targets and workloads, as the user types them.
    """
    return [*_again(argv, _CONFIG), *_again(argv, _WORKLOADS)]


def _again(argv: Iterable[str] | None, option: tuple[str, str]) -> list[str]:
    """Return the words that give an option as a command line has it."""
    return [f"{option[1]} {shlex.quote(value)}" for value in _values(argv, option) if value]


def _values(argv: Iterable[str] | None, option: tuple[str, str]) -> list[str]:
    """Return the values that a command line gives an option, whose short and long form these are;
    without a short form the first is empty.
    """
    short, long = option
    found = []
    words = tuple(argv or ())
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if word == "--":  # what follows is a command of the user's
            break
        if word in option and word:
            found.append(after)
        elif name == long and equals:
            found.append(value)
        elif short and word.startswith(short) and not word.startswith("--"):
            found.append(word.removeprefix(short))
    return found
