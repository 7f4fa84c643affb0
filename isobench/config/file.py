"""Reads the configuration: isobench.toml, [tool.isobench] of pyproject.toml, or the user's file.

A file that the user names (--config, ISOBENCH_CONFIG) is always used. A file that isobench finds is
used only if nobody else can have written it: see `trust`.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from isobench.config import bounded, paths, redaction, toml, trust
from isobench.model.bounds import LARGEST_SEED, MOST_WANTED
from isobench.model.errors import UsageError

FILE: Final = "isobench.toml"


# Unknown keys are errors, since a misspelt option must not be ignored silently.


class Blocks(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[run] blocks."""

    min: Annotated[int, msgspec.Meta(ge=1, le=MOST_WANTED)] | None = None
    max: Annotated[int, msgspec.Meta(ge=1, le=MOST_WANTED)] | None = None


class RunTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[run]: the defaults of the options of `isobench run`."""

    targets: list[str] = []
    workloads: list[str] = []
    blocks: Blocks = Blocks()
    # Texts, because they have units. The examples are shown where somebody writes a bare number.
    budget: Annotated[str, msgspec.Meta(examples=["10m"])] | None = None
    target_precision: Annotated[str, msgspec.Meta(examples=["2.5%"])] | None = None
    margin: Annotated[str, msgspec.Meta(examples=["5%"])] | None = None
    affinity: Annotated[str, msgspec.Meta(examples=["0,2-3"])] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SEED)] | None = None


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A whole configuration."""

    run: RunTable = RunTable()
    targets: dict[str, dict[str, Any]] = {}
    claims: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredFile:
    """A configuration file that was found and is not used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The settings in force, and their origin."""

    file: str
    """The name of the file for messages. Without a file: the name of the one to create."""
    settings: Settings
    text: str = ""
    """The content of the file, to find the lines of errors."""
    named: bool = False
    """Whether the user named the file, and thereby accepts the commands in it."""
    ignored: tuple[IgnoredFile, ...] = ()

    @property
    def source(self) -> toml.Source:
        """The file, for messages with line numbers."""
        prefix = _TABLE if Path(self.file).name == _PROJECT else ()
        return toml.Source(origin=self.file, text=self.text, prefix=prefix)

    def warn_of_ignored(self) -> None:
        """Warn of each file that is ignored, as the command line does."""
        for one in self.ignored:
            warn_ignored(str(one.path), one.reason)


@functools.cache
def warn_ignored(path: str, why: str) -> None:
    """Warn, once in a process, that a configuration is ignored."""
    warnings.warn(redaction.bare(f"isobench: {path} is ignored: {why}"), stacklevel=2)


_READABLE: Final = "name a readable file"
_HINT: Final = "correct the file, or name another with --config"
# Where tools keep their settings in a pyproject.toml:
# https://packaging.python.org/en/latest/specifications/pyproject-toml/#arbitrary-tool-configuration-the-tool-table
_TABLE: Final = ("tool", "isobench")
_PROJECT: Final = "pyproject.toml"


def _source(path: Path, text: str) -> toml.Source:
    """Return a file, for messages with line numbers."""
    prefix = _TABLE if path.name == _PROJECT else ()
    return toml.Source(origin=_display_name(path), text=text, prefix=prefix, hint=_HINT)


def _settings(path: Path, data: bytes) -> Settings | None:
    """Return the settings in a file; None for a pyproject.toml without any."""
    try:
        source = _source(path, data.decode())
        document: Any = source.document()
    except (UnicodeDecodeError, UsageError) as error:
        if path.name == _PROJECT and b"tool.isobench" not in data:
            # A broken pyproject.toml of some project must not stop isobench, which it does not
            # concern. The bytes are searched, since the text cannot be parsed.
            return None
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{_display_name(path)}: not UTF-8 text", hint=_HINT) from None
    for key in source.prefix:
        if not isinstance(document, dict):
            raise UsageError(f"{source.origin}: {'.'.join(_TABLE)} is not a table", hint=_HINT)
        document = document.get(key)
        if document is None:
            return None
    return source.convert(document, Settings)


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: {error.strerror}", hint=_READABLE)


def _from_named_file(path: Path) -> Configuration:
    try:
        data = bounded.read(path, most=trust.MOST_BYTES, hint=_READABLE, pipes=True)
    except OSError as error:
        raise _unreadable(path, error) from None
    settings = _settings(path, data) or Settings()
    # The settings have been decoded strictly; this text only serves to find lines.
    return Configuration(
        file=str(path), settings=settings, text=data.decode(errors="replace"), named=True
    )


def _candidates() -> Iterator[Path]:
    """Yield the files to look for, the nearest first, the user's own last."""
    with contextlib.suppress(FileNotFoundError):  # the working directory was deleted
        here = Path.cwd()
        for folder in (here, *here.parents):
            yield from (folder / name for name in (FILE, "pyproject.toml"))
    yield paths.user_configuration()


def _is_for_isobench(path: Path, data: bytes) -> bool:
    """Return whether a file that is not used was meant for isobench; else it needs no message."""
    return path.name != "pyproject.toml" or b"isobench" in data


def find(
    explicit: Path | None = None, *, environment: Mapping[str, str] = os.environ
) -> Configuration:
    """Return the configuration: of the named file; else of the nearest file that can be trusted;
    else of the user's own file; else the defaults.

    UsageError: a file cannot be read, or its content is invalid.
    """
    named = explicit or (
        Path(environment["ISOBENCH_CONFIG"]) if environment.get("ISOBENCH_CONFIG") else None
    )
    if named is not None:
        return _from_named_file(named)
    ignored_files: list[IgnoredFile] = []
    for path in _candidates():
        try:
            content = trust.read(path)
        except OSError as error:
            raise _unreadable(path, error) from None
        if content is None:
            continue
        if content.distrust:
            if _is_for_isobench(path, content.data):
                ignored_files.append(IgnoredFile(path=path, reason=content.distrust))
            continue
        settings = _settings(path, content.data)
        if settings is not None:
            return Configuration(
                file=_display_name(path),
                settings=settings,
                text=content.data.decode(errors="replace"),
                ignored=tuple(ignored_files),
            )
    return Configuration(file=FILE, settings=Settings(), ignored=tuple(ignored_files))


def _display_name(path: Path) -> str:
    """Return the path of a file; only its name where it is in the working directory."""
    with contextlib.suppress(FileNotFoundError):
        return path.name if path.parent == Path.cwd() else str(path)
    return str(path)


def load(explicit: Path | None = None, *, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in force; UsageError as in `find`."""
    return find(explicit, environment=environment).settings
