"""Evidence: facts about the host and the targets, expectations, clocks, and doubts."""
