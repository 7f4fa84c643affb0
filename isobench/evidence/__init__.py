"""Evidence: what the host is and does, and whether promises were kept."""
