"""Writes commands for the user to type."""

import itertools
import shlex
from collections.abc import Iterable

_FOLDER = ("-o", "--output")


def resume_command(argv: Iterable[str] | None) -> str:
    """Return the command that resumes a run. `argv` is the command line that has begun it; None: it
    is not known.

    Without a folder, --resume takes the latest run of those that have no folder of the user's.
    """
    folder = _named_folder(tuple(argv or ()))
    return f"isobench run --resume {shlex.quote(folder)}" if folder else "isobench run --resume"


def _named_folder(argv: tuple[str, ...]) -> str:
    """Return the folder that a command line names, as it is written there; empty: none."""
    found = ""
    for word, after in itertools.zip_longest(argv, argv[1:], fillvalue=""):
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
