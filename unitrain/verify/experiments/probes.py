"""Optimizer and loss by themselves, on the path that training takes.

Both are small models of embeddings, whose gradient is exact: what a table's row is given back is what the loss says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unitrain.backends.contract import Batchable, Plan, TrainingRule
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.verify.experiments.steps import GivenGradient, Steps
from unitrain.verify.findings import LOSS, OPTIMIZER
from unitrain.verify.runner import Array
from unitrain.verify.subject import Subject
from unitrain.weights.random import stream

# Elements of each parameter of the optimizer's probe.
WIDTH = 256
# Size of the gradients at each update, relative to the limits of clipping, and the learning rate's factor.
SIZES = (3.0, 0.5, 3.0, 0.1, 10.0, 1.0)
RATES = (1.0, 1.0, 1.0, 0.1, 0.1, 0.7)


def optimizer_probe(subject: Subject) -> Steps:
    """Return updates of four parameters, two of which decay, whose gradients are given.

    The gradients' sizes reach over eight powers of ten, so that an epsilon shows, and lie below and above the limits of
    clipping; the learning rate changes twice.
    """
    spec = subject.optimizer
    names = ("kernel_1", "kernel_2", "bias_1", "bias_2")
    layers = [{"type": "embedding", "name": name, "vocabulary": 1, "width": WIDTH, "inputs": ["row"]} for name in names]
    graph = resolve(
        ModelSpec.model_validate(
            {"inputs": {"row": {"shape": [], "dtype": "integer"}}, "layers": layers, "outputs": list(names)}
        )
    )
    update = Update(spec, {name: name.startswith("kernel") for name in graph.trainable})
    accumulate = min(subject.accumulate, 2)
    count = len(SIZES) * accumulate
    targets: dict[str, Array] = {}
    for name in names:
        generator = stream(subject.seed, "verify", "gradients", name)
        shape = (count, WIDTH)
        drawn = np.sign(generator.normal(size=shape)) * 10.0 ** generator.uniform(-8.0, 0.0, shape)
        targets[name] = drawn.astype(np.float32)
    for number, size in enumerate(SIZES):
        rows = slice(number * accumulate, (number + 1) * accumulate)
        factor = np.float32(size * _limit(subject, targets, rows))
        for drawn in targets.values():
            drawn[rows] *= factor
    # Of the weights half are as large as usual, so that decay shows, and half are small beside a step, which then is
    # exact to the last digit.
    weights: dict[str, Array] = {}
    for name in graph.parameters:
        drawn = stream(subject.seed, "verify", "probe", name).normal(size=graph.parameters[name].shape)
        weights[name] = (drawn * (1.0 if "_1" in name else 1e-4 * spec.lr)).astype(np.float32)
    rule = TrainingRule({name: (1.0, GivenGradient()) for name in names}, (), update)
    coefficients = update.coefficients(spec.lr * np.array(RATES), 0)
    plans = [
        Plan(
            np.arange(number * accumulate, (number + 1) * accumulate, dtype=np.int32)[:, None],
            np.repeat(coefficients[number : number + 1], accumulate, axis=0),
            np.full(accumulate, 1.0 / accumulate),
            np.arange(accumulate) == accumulate - 1,
            number * accumulate,
        )
        for number in range(len(SIZES))
    ]
    data = Batchable({"row": np.zeros(count, np.int32)}, targets)
    return Steps("optimizer", graph, weights, rule, data, plans, isolated=True, part=OPTIMIZER)


def _limit(subject: Subject, targets: dict[str, Array], rows: slice) -> float:
    """Return the factor by which these gradients just reach the limit of clipping; 1 without a limit."""
    spec = subject.optimizer
    means = [drawn[rows].astype(np.float64).mean(axis=0) for drawn in targets.values()]
    if spec.clip_norm is not None:
        return float(spec.clip_norm / np.sqrt(sum(np.square(mean).sum() for mean in means)))
    if spec.clip_value is not None:
        return float(spec.clip_value / np.abs(np.concatenate(means)).max())
    return 1.0


def loss_probe(subject: Subject, output: str, predictions: Array) -> Steps:
    """Return updates of a table of predictions by plain gradient descent: each change is a gradient of the loss.

    Parameters
    ----------
    output
        The output whose loss is probed.
    predictions
        The reference's for the first batch, ``[batch, ...]``. A second batch of predictions is drawn, of which some are
        large enough to saturate; where targets can be ignored, a third batch has none that counts.
    """
    item = subject.losses[output]
    batch = subject.batch(0)
    shape = predictions.shape[1:]
    samples = len(predictions)
    generator = stream(subject.seed, "verify", "predictions", output)
    drawn = generator.normal(size=predictions.shape) * 10.0 ** generator.uniform(
        -1.0, 1.5, (samples, *(1,) * len(shape))
    )
    target = batch.targets[output]
    tables, targets = [predictions, drawn], [target, target]
    if getattr(item.loss, "ignore_index", None) is not None:
        tables.append(predictions)
        targets.append(np.full_like(target, item.loss.ignore_index))  # type: ignore[union-attr]  # the one loss that has it
    width = int(np.prod(shape))
    layers: list[dict[str, Any]] = [
        {"type": "embedding", "name": "table", "vocabulary": len(tables) * samples, "width": width, "inputs": ["row"]},
        {"type": "reshape", "name": "prediction", "shape": list(shape)},
    ]
    inputs = {"row": {"shape": [], "dtype": "integer"}}
    graph = resolve(ModelSpec.model_validate({"inputs": inputs, "layers": layers}))
    (name,) = graph.trainable
    update = Update(Sgd(lr=1.0), {name: False})
    rule = TrainingRule({"prediction": (item.factor, make_loss(item.loss))}, (), update)
    rows = np.arange(len(tables) * samples, dtype=np.int32)
    plans = [
        Plan(
            rows[None, number * samples : (number + 1) * samples],
            update.coefficients(np.ones(1), 0),
            np.ones(1),
            np.ones(1, dtype=bool),
            0,
        )
        for number in range(len(tables))
    ]
    data = Batchable(
        {"row": rows},
        {"prediction": np.concatenate(targets)},
        None if batch.weight is None else np.tile(batch.weight, len(tables)),
    )
    table = np.concatenate(tables).reshape(len(rows), width).astype(np.float32)
    part = f"{LOSS} of {output}"
    return Steps(f"loss of {output}", graph, {name: table}, rule, data, plans, isolated=True, part=part)
