"""The plug-in for pytest: pytest-isobench."""
