"""The models that are timed: named or from a file, with weights, and data drawn for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.contract import Batchable, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.bench.results import Work
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.graph.resolve import resolve
from unitrain.spec.base import validate
from unitrain.spec.documents import is_recipe
from unitrain.spec.errors import InputError, unknown_name
from unitrain.spec.layers import Embedding
from unitrain.spec.losses import CrossEntropy, Loss, MeanSquaredError
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam
from unitrain.spec.yaml import read_yaml
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize
from unitrain.weights.random import stream

Array = npt.NDArray[Any]

# Name to the arguments with which it is timed: the multilayer perceptron reads the pixels of 28 x 28 images, and the
# transformer 64 patches of an image of the size of ResNet-20's.
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"features": 784, "width": 256, "outputs": 10},
    "lenet5": {},
    "cnn": {},
    "resnet20": {},
    "lstm_rows": {},
    "vit_tiny": {"size": 32, "patch": 4, "width": 128, "heads": 4, "depth": 2, "classes": 10},
}
# Of these the width is changed: the arguments that it sets, and by which factor.
_WIDTHS = {"mlp": {"width": 1}, "cnn": {"filters": 1, "width": 4}}
_BYTES = 4


@dataclass(frozen=True)
class TimedModel:
    """A resolved model that is timed.

    Parameters
    ----------
    name
        What the report calls it.
    graph
        The model.
    seed
        Keys weights and data.
    file, arguments
        Where the graph was read from, to be read again in another process.
    """

    name: str
    graph: Graph
    seed: int = 0
    file: Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def weights(self) -> dict[str, Array]:
        """The starting weights, the same for all sides."""
        return dict(initialize(self.graph, self.seed))

    @property
    def about(self) -> str:
        """Inputs and parameters."""
        shapes = ", ".join(" x ".join(map(str, given.shape)) or "1" for given in self.graph.inputs.values())
        return f"{shapes}, {self.graph.parameter_count(trainable=True):,} parameters"

    def settings(self, device: str, precision: str = "float32") -> Settings:
        """Return how a program runs: dropout masks alike on all sides."""
        return Settings(device, "float64" if precision == "float64" else "float32", self.seed)

    def inputs(self, samples: int) -> dict[str, Array]:
        """Draw inputs ``[samples, ...]``: uniform in the declared range or standard normal; indices of embeddings."""
        return {name: self._input(name, samples) for name in self.graph.inputs}

    def _input(self, name: str, samples: int) -> Array:
        given = self.graph.inputs[name]
        generator = stream(self.seed, "bench", "input", name)
        shape = (samples, *given.shape)
        if given.dtype == "integer":
            tables = [node.layer.vocabulary for node in self.graph.nodes if isinstance(node.layer, Embedding)]
            return generator.integers(0, min(tables, default=2), shape, dtype=np.int32)
        if given.low is None or given.high is None:
            return generator.standard_normal(shape, dtype=np.float32)
        return generator.uniform(given.low, given.high, shape).astype(np.float32)

    def output_gradients(self, samples: int) -> dict[str, Array]:
        """Draw a gradient for each float output, standard normal ``[samples, ...]``."""
        return {
            name: stream(self.seed, "bench", "gradient", name).standard_normal(
                (samples, *self.graph.shape(node)), dtype=np.float32
            )
            for name, node in self.graph.outputs.items()
            if node in self.graph.inputs or self.graph.node(node).dtype == "float"
        }

    def losses(self) -> dict[str, Loss]:
        """Return each output's loss: cross-entropy where it is two classes or more wide, else the mean square."""
        return {
            name: CrossEntropy()
            if len(self.graph.shape(node)) == 1 and self.graph.shape(node)[0] > 1
            else MeanSquaredError()
            for name, node in self.graph.outputs.items()
        }

    def data(self, samples: int) -> Batchable:
        """Draw a training set."""
        targets: dict[str, Array] = {}
        for name, loss in self.losses().items():
            generator = stream(self.seed, "bench", "target", name)
            shape = self.graph.shape(self.graph.outputs[name])
            targets[name] = (
                generator.integers(0, shape[-1], samples, dtype=np.int32)
                if isinstance(loss, CrossEntropy)
                else generator.standard_normal((samples, *shape), dtype=np.float32)
            )
        return Batchable(self.inputs(samples), targets)

    def update(self) -> Update:
        """Return Adam, as all sides train with it."""
        return Update(Adam(), {name: self.graph.parameters[name].decay for name in self.graph.trainable})

    def rule(self) -> TrainingRule:
        """Return what a training step computes."""
        return TrainingRule({name: (1.0, make_loss(loss)) for name, loss in self.losses().items()}, [], self.update())

    def inference_work(self, batch: int) -> Work:
        """Count a forward pass: two FLOP a multiply-accumulate, every layer's operands read and result written."""
        return Work(
            2.0 * batch * self.graph.macs,
            float(sum(map(self._bytes(batch), self.graph.nodes))),
            len(self.graph.nodes),
            batch,
        )

    def gradient_work(self, batch: int) -> Work:
        """Count a forward and a backward pass: three times the forward pass.

        The gradient by the input and the one by the weights take a product each of the size of the forward one, and
        read and write as much.
        """
        forward = self.inference_work(batch)
        return Work(3.0 * forward.flops, 3.0 * forward.bytes, 2 * forward.operations, batch)

    def _bytes(self, batch: int) -> Any:
        def of(node: Node) -> int:
            values = sum(map(prod, node.input_shapes)) + prod(node.output_shape)
            parameters = sum(self.graph.parameters[name].size for name in node.parameters.values())
            return _BYTES * (batch * values + parameters)

        return of


def read_models(names: Sequence[str], seed: int) -> list[TimedModel]:
    """Read models by name or from files.

    Raises
    ------
    InputError
        A name is unknown, a file is not there or is wrong, or has integer outputs alone.
    """
    return [_read(name, seed) for name in names or MODELS]


def resized(name: str, width: int, seed: int) -> TimedModel | None:
    """Return one of our models with another width, or None: it has none, or is a user's own."""
    given = {argument: factor * width for argument, factor in _WIDTHS.get(name, {}).items()}
    return _read(name, seed, given) if given else None


def _read(name: str, seed: int, given: Mapping[str, Any] | None = None) -> TimedModel:
    if name in MODELS:
        path, arguments = find_model(name), {**MODELS[name], **(given or {})}
    else:
        path, arguments = Path(name), {}
        if path.suffix not in (".yaml", ".yml") and not path.exists():
            raise unknown_name("model", name, [*MODELS, "a YAML file"])
    document = read_yaml(path)
    if is_recipe(document):
        raise InputError("this is a recipe; a model is timed", file=str(path), hint="name the model's own file")
    graph = resolve(validate(ModelSpec, document), arguments, document)
    return TimedModel(name if name in MODELS else path.stem, graph, seed, path.resolve(), arguments)


def reread(name: str, file: Path, arguments: Mapping[str, Any], seed: int) -> TimedModel:
    """Read a model that another process has read before."""
    document = read_yaml(file)
    return TimedModel(name, resolve(validate(ModelSpec, document), arguments, document), seed, file, arguments)


def find_model(name: str) -> Path:
    """Find a model of the project: in the folder ``models`` here, or beside the package where it is a clone."""
    for folder in (Path("models"), Path(__file__).parents[2] / "models"):
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise InputError(
        f"the model '{name}' is not here: its file comes with the project's repository",
        hint="run this in a clone, or name model files of your own with --models",
    )


def layer_model(name: str, spec: Mapping[str, Any], shape: Sequence[int], seed: int, **given: Any) -> TimedModel:
    """Make a model of one layer; ``given`` are further fields of its input."""
    plain = {"name": name, "inputs": {"input": {"shape": list(shape), **given}}, "layers": [{**spec, "name": "layer"}]}
    return TimedModel(name, resolve(ModelSpec.model_validate(plain)), seed)
