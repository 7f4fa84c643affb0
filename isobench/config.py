"""isobench.toml, [tool.isobench] of pyproject.toml, the user's own file, and the environment ->
Settings.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from isobench import places
from isobench.errors import UsageError

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


class _PyProject(msgspec.Struct):
    tool: dict[str, Any] = {}


def _decode(path: Path) -> Settings | None:
    """Return the settings in a file; None for a pyproject.toml without any."""
    try:
        document = msgspec.toml.decode(path.read_bytes())
        if path.name == "pyproject.toml":
            document = msgspec.convert(document, type=_PyProject).tool.get("isobench")
            if document is None:
                return None
        return msgspec.convert(document, type=Settings, strict=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="name a readable file") from None
    except (msgspec.DecodeError, ValueError) as error:
        ours = isinstance(error, msgspec.ValidationError) or b"tool.isobench" in path.read_bytes()
        if path.name == "pyproject.toml" and not ours:
            return None  # broken, and none of our business
        raise UsageError(
            f"{path}: {error}", hint="mend the file, or name another with --config"
        ) from None


def _nearest(start: Path) -> tuple[Path, Settings] | None:
    for folder in (start, *start.parents):
        for name in (FILE, "pyproject.toml"):
            path = folder / name
            if path.is_file() and (settings := _decode(path)) is not None:
                return path, settings
    return None


def load(explicit: Path | None = None, *, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings in force; the nearest file decides whole, else the user's own, else the
    defaults.
    """
    return found(explicit, environment=environment)[1]


def found(
    explicit: Path | None = None, *, environment: Mapping[str, str] = os.environ
) -> tuple[str, Settings]:
    """Return the file that decides, as it is called here, and the settings in force.

    Where there is none it is the file that there should be.
    """
    named = explicit or (
        Path(environment["ISOBENCH_CONFIG"]) if environment.get("ISOBENCH_CONFIG") else None
    )
    if named is not None:
        return str(named), _decode(named) or Settings()
    nearest = _nearest(Path.cwd())
    if nearest is not None:
        path, settings = nearest
        return path.name if path.parent == Path.cwd() else str(path), settings
    user = places.user_configuration()
    if user.is_file():
        return str(user), _decode(user) or Settings()
    return FILE, Settings()
