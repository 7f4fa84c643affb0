"""Statistics of one cell: blocks are the unit, a ratio to native and its interval the answer."""

from isobench.stats.drift import Drift, drift
from isobench.stats.plan import blocks_needed, holm
from isobench.stats.ratio import (
    block_log_ratios,
    estimate,
    half_width,
    sessions_alike,
    signed_rank_interval,
)
from isobench.stats.share import Share, share
from isobench.stats.tails import (
    Tails,
    outlying_blocks,
    quantile_lower,
    quantile_upper,
    tails,
    values_needed,
)

__all__ = [
    "Drift",
    "Share",
    "Tails",
    "block_log_ratios",
    "blocks_needed",
    "drift",
    "estimate",
    "half_width",
    "holm",
    "outlying_blocks",
    "quantile_lower",
    "quantile_upper",
    "sessions_alike",
    "share",
    "signed_rank_interval",
    "tails",
    "values_needed",
]
