"""scipy.special, imported when it is first used: that takes a third of a second, since it imports
NumPy's own tests. The trend of a history imports it while change points are searched.
"""

from functools import cache
from types import ModuleType


@cache
def special() -> ModuleType:
    """Return scipy.special."""
    from scipy import special as found  # noqa: PLC0415 - as the module's text says

    return found
