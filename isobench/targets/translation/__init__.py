"""Translation: programs of another ISA or another system."""
