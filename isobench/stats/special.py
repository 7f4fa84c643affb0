"""SciPy, imported when it is first used: scipy.special takes a third of a second, since it imports
NumPy's own tests, and scipy.stats a second. The trend of a history imports the former while change
points are searched.
"""

import importlib
from functools import cache
from types import ModuleType


@cache
def special() -> ModuleType:
    """Return scipy.special."""
    from scipy import special as found  # noqa: PLC0415 - as the module's text says

    return found


def load() -> None:
    """Import all of SciPy that isobench uses.

    An interrupted run still needs it, for its report, and an import that an interruption has broken
    off fails for good: the half of SciPy that is loaded already does not fit the new half.
    """
    special()
    importlib.import_module("scipy.stats")
