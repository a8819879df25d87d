"""The loss scale of training in float16: dynamic, decided between blocks, constant within one.

Small gradients vanish in float16, which ends at 6e-8. So losses are multiplied before the backward pass, and gradients
divided after it (Micikevicius et al. 2018, Mixed Precision Training, section 3.2). The scale is as large as it can be:
halved when a gradient is not finite, doubled after many updates without such. An update with a gradient that is not
finite is skipped. A program ends its block there, so that no scale has to change within a block, and the numbers
of the updates that follow, which schedules and Adam's corrections depend on, count those applied.
"""

from __future__ import annotations

from dataclasses import dataclass

INITIAL, LOWEST = 2.0**16, 1.0
INTERVAL = 2000
"""Updates without an overflow after which the scale doubles."""
PROBE = 16
"""Updates of the first block after a change, which is the likeliest to be skipped."""


@dataclass
class LossScale:
    """A scale, and what decides its changes; a part of `TrainingState`.

    Parameters
    ----------
    value
        The scale, a power of two.
    good
        Updates applied since it changed.
    skipped
        Updates skipped since the start of training.
    """

    value: float = INITIAL
    good: int = 0
    skipped: int = 0

    @property
    def room(self) -> int:
        """How many updates the next block may hold.

        Up to the doubling, and no more than there have been since the last change: an accelerator computes the rest of
        a block in vain.
        """
        return min(INTERVAL - self.good, max(PROBE, self.good))

    @property
    def exhausted(self) -> bool:
        """Whether gradients overflow at any scale that would be of use."""
        return self.value < LOWEST

    def observe(self, applied: int, skipped: bool) -> None:
        """Note a block: how many updates were applied, and whether the one that ended it was skipped."""
        self.good += applied
        if skipped:
            self.value, self.good = 0.5 * self.value, 0
            self.skipped += 1
        elif self.good >= INTERVAL:
            self.value, self.good = 2.0 * self.value, 0
