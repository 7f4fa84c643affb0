"""Workloads: what is measured, as data."""
