"""Evidence: what the host is and does, and whether expectations were met."""
