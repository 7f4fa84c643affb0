"""Statistics of one cell: the unit is the block, the result a ratio to native with its interval."""

from isobench.stats import sequential
from isobench.stats.averaged import averaged
from isobench.stats.bias import biases, widened
from isobench.stats.blocks_needed import (
    blocks_for_width,
    blocks_needed,
    holm,
    smallest_effect,
    spread_of_block,
)
from isobench.stats.change_points import FEWEST_RUNS, autocorrelation, change_points
from isobench.stats.contrast import (
    Inflation,
    beside_history,
    between_histories,
    between_runs,
    inflations,
    outliers,
)
from isobench.stats.drift import Drift, drift
from isobench.stats.ratio import (
    EQUIVALENCE_LEVEL,
    FEWEST_BLOCKS,
    FEWEST_RANKED,
    REPORTED_LEVEL,
    Location,
    block_log_ratios,
    estimate,
    estimates,
    half_width,
    locate,
    locations,
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
    slow_blocks,
    tails,
    values_needed,
)

__all__ = [
    "EQUIVALENCE_LEVEL",
    "FEWEST_BLOCKS",
    "FEWEST_RANKED",
    "FEWEST_RUNS",
    "REPORTED_LEVEL",
    "Drift",
    "Inflation",
    "Location",
    "Share",
    "Tails",
    "autocorrelation",
    "averaged",
    "beside_history",
    "between_histories",
    "between_runs",
    "biases",
    "block_log_ratios",
    "blocks_for_width",
    "blocks_needed",
    "change_points",
    "drift",
    "estimate",
    "estimates",
    "half_width",
    "holm",
    "inflations",
    "locate",
    "locations",
    "narrow",
    "outliers",
    "outlying_blocks",
    "quantile_lower",
    "quantile_upper",
    "sequential",
    "sessions_alike",
    "share",
    "signed_rank_interval",
    "slow_blocks",
    "smallest_effect",
    "spread_of_block",
    "student_quantile",
    "tails",
    "values_needed",
    "widened",
]
