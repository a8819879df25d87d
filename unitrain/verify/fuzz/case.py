"""A case of the fuzzer: a model and how it is trained, in one YAML file that `unitrain verify` reads."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import NonNegativeInt, PositiveInt

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.base import Spec
from unitrain.spec.errors import unknown_name
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam, Optimizer
from unitrain.spec.recipe import OutputLoss
from unitrain.verify.subject import Subject, model_subject


class VerifyCase(Spec):
    """A model with its training, on drawn data.

    Parameters
    ----------
    model
        The model, written out.
    losses
        The loss of each trained output; without any all have the mean squared error.
    optimizer
        The rule that turns gradients into updates.
    accumulate
        Batches in an update.
    seed
        Keys weights, data and dropout masks.
    """

    model: ModelSpec
    losses: dict[str, OutputLoss] = {}
    optimizer: Optimizer = Adam()
    accumulate: PositiveInt = 1
    seed: NonNegativeInt = 0

    def graph(self) -> Graph:
        """Resolve the model. Raises `InputError` when it does not resolve, or a loss is for no output."""
        graph = resolve(self.model)
        for name in self.losses:
            if name not in graph.outputs:
                raise unknown_name("output of the model", name, graph.outputs, ("losses", name))
        return graph

    def subject(self, name: str) -> Subject:
        """Return what is verified. Raises `InputError`."""
        losses: Mapping[str, OutputLoss] | None = self.losses or None
        return model_subject(
            name, self.graph(), losses=losses, optimizer=self.optimizer, accumulate=self.accumulate, seed=self.seed
        )
