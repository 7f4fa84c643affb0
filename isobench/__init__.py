"""isobench measures what isolation costs, and proves that it was in force."""

__version__ = "0.1.0"

__all__ = ["__version__"]
