"""What each layer does to channels: makes new ones, passes them on, joins them, or mixes them so that none can go.

A channel may go from a layer that mixes channels only through weights: then nothing that stays has read it once its
weights are zero. A layer without a rule here keeps all that it reads and gives, and says so.
"""

from __future__ import annotations

from unitrain.graph.passes.channel_rules import (  # noqa: F401  (imported for what they register)
    moved_channels,
    new_channels,
    same_channels,
)
from unitrain.graph.passes.channel_rules.registry import rule_of

__all__ = ["rule_of"]
