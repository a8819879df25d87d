"""Explains failures: tries the differences that frameworks and careless ports are known for, and names what matches."""

from __future__ import annotations

from unitrain.verify.diagnosis.evidence import Evidence
from unitrain.verify.diagnosis.layers import explain_layer
from unitrain.verify.diagnosis.losses import explain_loss, explain_losses
from unitrain.verify.diagnosis.optimizers import explain_optimizer

__all__ = ["Evidence", "explain_layer", "explain_loss", "explain_losses", "explain_optimizer"]
