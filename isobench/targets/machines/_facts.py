"""The keys of all facts that evidence can have.

They are read from the source of the evidence payload, so that there is no second list to maintain.
"""

import functools
import re
from typing import Final

from isobench.config import paths

_DOTTED: Final = re.compile(r'"([a-z]+\.[a-z_]{2,})"')
_BARE: Final = re.compile(r'_fact(?:_\w+)?\("([a-z_]+)"')
_NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
"""The payload composes the keys "ns.NAME" of these, so that no pattern finds them."""


@functools.cache
def known() -> frozenset[str]:
    """Return the key of every fact that the evidence payload prints."""
    source = (paths.shared("workloads") / "_evidence" / "payload.c").read_text(encoding="utf-8")
    found = {*_DOTTED.findall(source), *_BARE.findall(source)}
    return frozenset(found | {f"ns.{name}" for name in _NAMESPACES})
