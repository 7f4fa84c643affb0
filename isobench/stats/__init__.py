"""Statistics of one cell: blocks are the unit, a ratio to native and its interval the answer."""

from isobench.stats.contrast import between_histories, between_runs
from isobench.stats.drift import Drift, drift
from isobench.stats.plan import (
    blocks_for_width,
    blocks_needed,
    holm,
    smallest_effect,
    spread_of_block,
)
from isobench.stats.ratio import (
    FEWEST_BLOCKS,
    Location,
    block_log_ratios,
    estimate,
    half_width,
    locate,
    sessions_alike,
    signed_rank_interval,
)
from isobench.stats.tails import (
    Tails,
    outlying_blocks,
    quantile_lower,
    quantile_upper,
    tails,
    values_needed,
)

__all__ = [
    "FEWEST_BLOCKS",
    "Drift",
    "Location",
    "Tails",
    "between_histories",
    "between_runs",
    "block_log_ratios",
    "blocks_for_width",
    "blocks_needed",
    "drift",
    "estimate",
    "half_width",
    "holm",
    "locate",
    "outlying_blocks",
    "quantile_lower",
    "quantile_upper",
    "sessions_alike",
    "signed_rank_interval",
    "smallest_effect",
    "spread_of_block",
    "tails",
    "values_needed",
]
