"""The machines that the self-test simulates, and the guarantees on each."""

import math
from dataclasses import dataclass
from typing import Final

# The reported interval is nominally 97 %, of which stopping on width costs two points.
_COVERAGE: Final = 0.95
_ERROR: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the times of a simulated machine vary. Shares (0.03: 3 %) are on the log scale."""

    name: str
    iteration: float = 0.03
    """Standard deviation of an iteration within its visit."""
    launch: float = 0.02
    """Standard deviation of the part that all iterations of one visit share."""
    freedom: int | None = None
    """Both have Student's t distribution with so many degrees of freedom. None: a normal one."""
    wander: float = 0.0
    """Standard deviation of the machine's slow drift, an AR(1) process over visits."""
    memory: float = 0.9
    """The autocorrelation of that drift from one block to the next."""
    trend: float = 0.0
    """By how much times grow in TREND_BLOCKS blocks."""
    stalls: float = 0.0
    """Share of visits that take 1.5 times as long."""
    tick: float = 0.0
    """Step of the clock, as a share of a native iteration."""
    session: float = 0.0
    """Standard deviation of the part that all blocks of one session of the target share. 0: every
    block has its own session.
    """
    alike: float = 0.0
    """The autocorrelation of a block's log-ratio with the next one's: what pairing leaves."""
    coverage: float = _COVERAGE
    """The guaranteed minimum of the reported interval's coverage."""
    error: float = _ERROR
    """The guaranteed maximum of a wrong verdict's rate, where the true ratio is the margin."""
    power: float = 0.0
    """The guaranteed minimum of the right verdict's rate, at a ratio of 1 and well beyond the
    margin, in runs that are as long as it takes. 0: no guarantee.
    """
    limit: str = ""
    """Why there is no guarantee, and the figures are only shown. Empty: there is one."""

    @property
    def weaker(self) -> bool:
        """Whether less is guaranteed than in the other scenarios."""
        return self.error > _ERROR or self.coverage < _COVERAGE


STALL: Final = math.log(1.5)
"""How much longer a stalled visit takes, as a logarithm."""
TREND_BLOCKS: Final = 10
SCENARIOS: Final = (
    Scenario(name="quiet", power=0.9),
    Scenario(name="drift", wander=0.03),
    Scenario(name="trend", trend=0.05),
    Scenario(name="stalls", stalls=0.05),
    Scenario(name="heavy tails", freedom=3),
    Scenario(name="coarse timer", tick=0.01),
    # From fewer than ten blocks nothing corrects for it, and from few it is estimated badly.
    Scenario(name="alike blocks", alike=0.2, coverage=0.94),
    # The data decide whether sessions are pooled, which costs coverage: stats.ratio.POOLED_P.
    Scenario(name="long sessions", session=0.02),
    Scenario(
        name="crude timer",
        iteration=0.01,
        launch=0.005,
        tick=0.01,
        limit="a tick as large as the noise leaves few distinct values, whose trimmed mean is not "
        "normally distributed; isobench makes iterations so long that a tick is far smaller",
    ),
)
