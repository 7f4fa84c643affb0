"""Machines: emulated and virtual ones, and hosts reached over SSH."""
