"""Payloads: how they are built, and what they say."""
