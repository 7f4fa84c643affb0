"""Runs compared with each other: what may be compared, what has changed, what noise hides."""
