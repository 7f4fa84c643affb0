"""isobench measures what isolation costs, and proves that it was in force.

    run = isobench.measure(targets=["docker"], budget="2m")
    run.cells, run.verdicts, run.samples    # pandas frames

The interface is isobench.api; it is imported when it is first used.
"""

# Not from typing, which takes as long to import as Python takes to start: an interruption in that
# time is before `cli.main`, which would handle it. Checkers of types know the name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from isobench.api import Run, compare, load, measure

__version__ = "0.1.0"

__all__ = ["Run", "__version__", "compare", "load", "measure"]


def __getattr__(name: str) -> object:
    """Import the interface when one of its names is first used: `import isobench` stays instant."""
    if name not in ("Run", "compare", "load", "measure"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from isobench import api  # noqa: PLC0415 - it needs pandas and SciPy

    return getattr(api, name)
