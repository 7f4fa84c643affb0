"""What targets of several kinds use."""
