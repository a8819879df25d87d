"""What the backends are given to compute. An experiment gives a runner its task and returns named tensors."""

from __future__ import annotations

from typing import Protocol

from unitrain.verify.experiments.layers import IsolatedLayers, WholeModel
from unitrain.verify.experiments.probes import block_probe, loss_probe, losses_probe, mask_probe, optimizer_probe
from unitrain.verify.experiments.steps import Steps, layer_steps, model_steps
from unitrain.verify.findings import TensorName
from unitrain.verify.runner import Array, Runner

__all__ = [
    "Experiment",
    "IsolatedLayers",
    "Steps",
    "WholeModel",
    "block_probe",
    "layer_steps",
    "loss_probe",
    "losses_probe",
    "mask_probe",
    "model_steps",
    "optimizer_probe",
]


class Experiment(Protocol):
    """One task, the same for the reference, the yardsticks and every backend."""

    def tensors(self, runner: Runner) -> dict[TensorName, Array]:
        """Let ``runner`` compute; a runner that does not train gives the tensors of inference only."""
        ...
