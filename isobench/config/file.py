"""isobench.toml, [tool.isobench] of pyproject.toml, the user's own file, and the environment ->
Settings.

A file that is named (--config, ISOBENCH_CONFIG) is the user's own word. One that is found is obeyed
only where nobody else can have written it: see `trust`.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from isobench.config import paths, toml, trust
from isobench.model.errors import UsageError

FILE: Final = "isobench.toml"


class Blocks(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[run] blocks."""

    min: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    max: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


class RunTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[run]: what the flags of `isobench run` are when they are not given."""

    targets: list[str] = []
    workloads: list[str] = []
    blocks: Blocks = Blocks()
    budget: str | None = None
    target_precision: str | None = None
    margin: str | None = None
    affinity: str | None = None
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A whole configuration."""

    run: RunTable = RunTable()
    targets: dict[str, dict[str, Any]] = {}
    claims: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A file that was found and is not obeyed."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The settings in force, and where they are from."""

    file: str
    """The file that decides, as it is called here; where there is none, the one there should be."""
    settings: Settings
    text: str = ""
    """What the file says, for the lines of what is wrong in it."""
    named: bool = False
    """The user named the file, and so vouches for the commands in it."""
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def source(self) -> toml.Source:
        """The file, to point into."""
        prefix = _TABLE if Path(self.file).name == _PROJECT else ()
        return toml.Source(origin=self.file, text=self.text, prefix=prefix)


_HINT: Final = "correct the file, or name another with --config"
_TABLE: Final = ("tool", "isobench")
"""Where the settings are in a pyproject.toml."""
_PROJECT: Final = "pyproject.toml"


def _source(path: Path, text: str) -> toml.Source:
    """Return a file, to point into."""
    prefix = _TABLE if path.name == _PROJECT else ()
    return toml.Source(origin=_called(path), text=text, prefix=prefix, hint=_HINT)


def _settings(path: Path, data: bytes) -> Settings | None:
    """Return the settings in a file; None for a pyproject.toml without any."""
    try:
        source = _source(path, data.decode())
        document: Any = source.document()
    except (UnicodeDecodeError, UsageError) as error:
        if path.name == _PROJECT and b"tool.isobench" not in data:
            return None  # broken, and not for isobench
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{_called(path)}: it is not text in UTF-8", hint=_HINT) from None
    for key in source.prefix:
        if not isinstance(document, dict):
            raise UsageError(f"{source.origin}: {'.'.join(_TABLE)} is no table", hint=_HINT)
        document = document.get(key)
        if document is None:
            return None
    return source.convert(document, Settings)


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: {error.strerror}", hint="name a readable file")


def _named(path: Path) -> Configuration:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    settings = _settings(path, data) or Settings()
    return Configuration(
        file=str(path), settings=settings, text=data.decode(errors="replace"), named=True
    )


def _candidates() -> Iterator[Path]:
    """Yield the files that may decide, the nearest first, the user's own last."""
    with contextlib.suppress(FileNotFoundError):  # the folder that this process is in is gone
        here = Path.cwd()
        for folder in (here, *here.parents):
            yield from (folder / name for name in (FILE, "pyproject.toml"))
    yield paths.user_configuration()


def _concerns(path: Path, data: bytes) -> bool:
    """Say whether a file that is not obeyed would have been meant for isobench."""
    return path.name != "pyproject.toml" or b"isobench" in data


def find(
    explicit: Path | None = None, *, environment: Mapping[str, str] = os.environ
) -> Configuration:
    """Return the configuration in force: of the file that was named, else of the nearest one that
    may be obeyed, else of the user's own, else the defaults.
    """
    named = explicit or (
        Path(environment["ISOBENCH_CONFIG"]) if environment.get("ISOBENCH_CONFIG") else None
    )
    if named is not None:
        return _named(named)
    passed: list[PassedOver] = []
    for path in _candidates():
        try:
            content = trust.read(path)
        except OSError as error:
            raise _unreadable(path, error) from None
        if content is None:
            continue
        if content.distrust:
            if _concerns(path, content.data):
                passed.append(PassedOver(path=path, why=content.distrust))
            continue
        settings = _settings(path, content.data)
        if settings is not None:
            return Configuration(
                file=_called(path),
                settings=settings,
                text=content.data.decode(errors="replace"),
                passed_over=tuple(passed),
            )
    return Configuration(file=FILE, settings=Settings(), passed_over=tuple(passed))


def _called(path: Path) -> str:
    """Return a file by its name alone where it is in this folder."""
    with contextlib.suppress(FileNotFoundError):
        return path.name if path.parent == Path.cwd() else str(path)
    return str(path)


def load(explicit: Path | None = None, *, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in force."""
    return find(explicit, environment=environment).settings
