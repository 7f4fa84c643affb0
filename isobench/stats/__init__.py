"""Statistics of one cell: blocks are the unit, a ratio to native and its interval the answer."""

from isobench.stats.drift import Drift, drift
from isobench.stats.plan import blocks_needed, holm
from isobench.stats.ratio import (
    REPORTED_LEVEL,
    block_log_ratios,
    estimate,
    estimates,
    half_width,
    narrow,
    sessions_alike,
    signed_rank_interval,
    student_quantile,
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
    "REPORTED_LEVEL",
    "Drift",
    "Share",
    "Tails",
    "block_log_ratios",
    "blocks_needed",
    "drift",
    "estimate",
    "estimates",
    "half_width",
    "holm",
    "narrow",
    "outlying_blocks",
    "quantile_lower",
    "quantile_upper",
    "sessions_alike",
    "share",
    "signed_rank_interval",
    "student_quantile",
    "tails",
    "values_needed",
]
