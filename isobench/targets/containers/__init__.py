"""Containers: engines, system containers and bare namespaces."""
