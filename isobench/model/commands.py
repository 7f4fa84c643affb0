"""Writes commands for the user to type."""

import itertools
import shlex
from collections.abc import Iterable
from typing import Final

_FOLDER: Final = ("-o", "--output")


def resume(folder: str) -> str:
    """Return the command that resumes the run in a folder; empty: the latest run."""
    return f"isobench run --resume {shlex.quote(folder)}" if folder else "isobench run --resume"


def resume_command(argv: Iterable[str] | None) -> str:
    """Return the command that resumes a run. `argv` is the command line that has begun it; None: it
    is not known.

    Without a folder, --resume takes the latest run of those that have no folder of the user's.
    """
    return resume(named_folder(argv))


def named_folder(argv: Iterable[str] | None) -> str:
    """Return the folder that a command line names, as it is written there; empty: none."""
    found = ""
    words = tuple(argv or ())
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if word == "--":  # what follows is a command of the user's
            break
        if word in _FOLDER:
            found = after
        elif name == _FOLDER[1] and equals:
            found = value
        elif word.startswith(_FOLDER[0]) and not word.startswith("--"):
            found = word.removeprefix(_FOLDER[0])
    return found
