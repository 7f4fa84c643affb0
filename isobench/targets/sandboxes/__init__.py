"""Sandboxes: processes that the host confines."""
