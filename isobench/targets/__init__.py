"""Targets: one module each, announced by entry points. They never import each other."""
