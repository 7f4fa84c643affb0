"""Summaries written for other programs."""
