"""Corrects values that earlier versions recorded, where the right value is certain. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec

from isobench.model import Technology
from isobench.model.units import TargetName
from isobench.storage.schema import RunMetadata, TargetState

_USER_MODE_LINUX: Final = "uml"


def with_paravirtual(
    metadata: RunMetadata, states: Mapping[TargetName, TargetState]
) -> tuple[RunMetadata, dict[TargetName, TargetState]]:
    """Return them with user-mode Linux as paravirtual. Version 0.1 recorded it as virtualization.

    Only targets of the kind "uml" are corrected. run.json proves the kind: no plug-in can have a
    name of isobench's own targets, and the configuration of every other name states its kind.
    """
    names = {
        entry.name
        for entry in metadata.targets
        if entry.technology is Technology.VIRTUALIZATION
        and _kind(metadata, entry.name) == _USER_MODE_LINUX
    }
    entries = (
        msgspec.structs.replace(entry, technology=Technology.PARAVIRTUAL)
        if entry.name in names
        else entry
        for entry in metadata.targets
    )
    return msgspec.structs.replace(metadata, targets=tuple(entries)), {
        name: msgspec.structs.replace(state, technology=Technology.PARAVIRTUAL)
        if name in names
        else state
        for name, state in states.items()
    }


def _kind(metadata: RunMetadata, name: TargetName) -> object:
    """Return the kind of a target; a variation has the kind of its base."""
    base = next((one.base for one in metadata.variations if one.name == name), name)
    return metadata.config.targets.get(base, {}).get("kind", base)
