"""unitrain's own side of the comparison: the shared trainer, with progress and accuracy, on data in memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.backends import load_backend
from unitrain.backends.contract import Batchable, Settings
from unitrain.backends.rule import TrainingRule
from unitrain.cli.progress import make_display
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.metrics import Accuracy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adam
from unitrain.spec.training import TrainingSpec
from unitrain.spec.yaml import read_yaml
from unitrain.train.losses import make_loss
from unitrain.train.metrics import make_metric
from unitrain.train.plan import Batches
from unitrain.train.schedules import make_schedule
from unitrain.train.trainer import Trainer
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1] / "models"
FILES: dict[str, tuple[Path, dict[str, Any]]] = {
    "lenet": (MODELS / "lenet5.yaml", {}),
    "cnn": (MODELS / "cnn.yaml", {"dropout": 0.0}),
    "resnet20": (HERE / "resnet20.yaml", {}),
    "lstm": (HERE / "lstm.yaml", {}),
    "transformer": (HERE / "transformer.yaml", {}),
}
LR = 1e-3


def make_graph(name: str) -> Graph:
    """Return one of the models that are compared, from its file or of dense layers."""
    if name in FILES:
        path, arguments = FILES[name]
        plain = read_yaml(path).data
        return resolve(ModelSpec.model_validate({**plain, "arguments": {**plain.get("arguments", {}), **arguments}}))
    layers: list[dict[str, Any]] = [{"type": "dense", "name": "logits", "units": 10}]
    if name == "mlp":
        layers.insert(0, {"type": "dense", "name": "hidden", "units": 256, "activation": "relu"})
    return resolve(ModelSpec.model_validate({"inputs": {"image": {"shape": [784]}}, "layers": layers}))


def make_data(graph: Graph, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw images in 0 .. 1 or tokens, and classes: ``[samples, ...]`` and ``[samples]``.

    Speed does not depend on them.
    """
    generator = np.random.default_rng(0)
    (given,) = graph.inputs.values()
    shape = (samples, *given.shape)
    if given.dtype == "integer":
        assert given.high is not None
        images = generator.integers(0, int(given.high) + 1, shape, dtype=np.int32)
    else:
        images = generator.random(shape, dtype=np.float32)
    return images, generator.integers(0, 10, samples).astype(np.int32)


def make_trainer(
    graph: Graph,
    images: np.ndarray,
    classes: np.ndarray,
    backend: str,
    batch: int,
    *,
    device: str = "cpu",
    deterministic: bool = False,
    execution: str | None = None,
    epochs: int = 1,
) -> Trainer:
    """Return a trainer with Adam, cross-entropy, accuracy and progress shown to nobody.

    ``execution`` is the form of `contract.Settings`.
    """
    (output,), (name,) = graph.outputs, graph.inputs
    update = Update(Adam(lr=LR), {name: graph.parameters[name].decay for name in graph.trainable})
    rule = TrainingRule(
        {output: (1.0, make_loss(CrossEntropy()))}, [("accuracy", output, make_metric(Accuracy()))], update
    )
    settings = Settings(device, deterministic=deterministic, execution=execution)
    program = load_backend(backend).compile(graph, initialize(graph, 0), settings, rule)
    batches = Batches(len(images), batch)
    steps = batches.updates_per_epoch
    display = make_display(quiet=False, as_json=False, stream=io.StringIO())
    return Trainer(
        program,
        update,
        make_schedule(None, LR, epochs * steps, steps),
        Batchable({name: images}, {output: classes}),
        batches,
        TrainingSpec(epochs=epochs, batch_size=batch, keep_best=None),
        metrics={"accuracy": make_metric(Accuracy())},
        observers=[display],
    )
