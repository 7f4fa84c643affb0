"""Runs over time: a store of their ratios to native, series, change points and alarms."""
