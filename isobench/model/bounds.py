"""The bounds of what stands in the files of a run.

Whoever lets a value in (a payload's reply, an option, the configuration, a plug-in) checks it
against these, and so does whoever reads it again: a value that was let in must never make a
finished run unreadable.
"""

from typing import Final

LARGEST: Final = (1 << 62) - 1
"""The largest whole number, and without its sign the smallest. Differences of two stay within 64
bits with a sign, the type of the columns of tables.
"""
MOST_NANOSECONDS: Final = 100_000_000 * 1_000_000_000
"""Three years: nothing that is measured takes so long."""
MOST_SECONDS: Final = 100_000_000.0
"""The same time."""
LARGEST_SEED: Final = (1 << 63) - 1
"""JSON documents have whole numbers of 64 bits with a sign."""
LEAST_SHARE: Final = 1e-9
"""A share is larger: a smaller one would be none in floating point."""
MOST_MARGIN: Final = 10
"""A margin is smaller (10 is 1000 %)."""
MOST_WANTED: Final = 1_000
"""Blocks that a user may ask for."""
MOST_BLOCKS: Final = 2_000
"""Blocks of a plan, those that are measured again included."""
MOST_ITERATIONS: Final = 1_000_000
"""Iterations of a visit, or rounds of a block."""
MOST_CELLS: Final = 10_000
"""Targets times workloads and their other metrics. Runs have some hundred."""
MOST_FACTS: Final = 500
"""Facts that one reply of a payload may have. The evidence has some dozens."""
MOST_FACT_TEXT: Final = 64 << 10
"""Characters of all facts of one reply, and of all facts that the payloads of one target report.
The evidence has some thousand.
"""
MOST_FACTS_SEEN: Final = 64
"""Facts of one workload in one target that a run keeps. Each may be a metric of its records."""
