"""A run: what is selected, tried, planned, measured and removed again."""
