"""From the samples of a run to its answers: cells, estimates, verdicts, claims, the summary."""
