"""The machines that the self-test simulates, and what is guaranteed on each."""

import math
from dataclasses import dataclass
from typing import Final

_COVERAGE: Final = 0.95
_ERROR: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the times of a simulated machine vary. Shares (0.03: 3 %) are on the log scale."""

    name: str
    iteration: float = 0.03
    """Standard deviation of an iteration within its visit."""
    launch: float = 0.02
    """Standard deviation of what all iterations of one visit share."""
    freedom: int | None = None
    """Both follow Student's t with so many degrees of freedom, scaled by the above. None: they are
    normal.
    """
    wander: float = 0.0
    """Standard deviation of the machine's slow drift, an AR(1) process over visits."""
    memory: float = 0.9
    """The autocorrelation of that drift from one block to the next."""
    trend: float = 0.0
    """By how much times grow every ten blocks, from the first block to the last."""
    stalls: float = 0.0
    """Share of visits that take half as long again."""
    tick: float = 0.0
    """Step of the clock, as a share of a native iteration."""
    session: float = 0.0
    """Standard deviation of what all blocks of one session of the target share.

    0: every block has a session of its own.
    """
    coverage: float = _COVERAGE
    """The guaranteed minimum of the reported interval's coverage."""
    error: float = _ERROR
    """The guaranteed maximum of a wrong verdict's rate, where the true ratio is the margin."""
    power: float = 0.0
    """The guaranteed minimum of the right verdict's rate, at 1 and well beyond the margin. 0: no
    guarantee.
    """
    limit: str = ""
    """Why there is no guarantee at all: the figures are only shown."""

    @property
    def weaker(self) -> bool:
        """Whether less is guaranteed than elsewhere."""
        return self.error > _ERROR


STALL: Final = math.log(1.5)
"""How much longer a stalled visit takes, as a logarithm."""
TREND_BLOCKS: Final = 10
SCENARIOS: Final = (
    Scenario(name="quiet", power=0.9),  # `stats.blocks_needed` plans for this power
    Scenario(name="drift", wander=0.03),
    Scenario(name="trend", trend=0.05),
    Scenario(name="stalls", stalls=0.05),
    Scenario(name="heavy tails", freedom=3),
    Scenario(name="coarse timer", tick=0.01),
    # The data decide whether sessions are pooled, which costs coverage: stats.ratio.POOLED_P.
    Scenario(name="long sessions", session=0.02, error=0.07),
    Scenario(
        name="crude timer",
        iteration=0.01,
        launch=0.005,
        tick=0.01,
        limit="a tick as large as the noise leaves few distinct values, of which a trimmed mean "
        "has no normal law; isobench makes iterations so long that a tick is far smaller",
    ),
)
