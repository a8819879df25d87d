"""Optimizer and loss by themselves, on the path that training takes.

Both are small models of embeddings, whose gradient is exact: what a table's row is given back is what the loss says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from unitrain.backends.contract import Batchable, Plan
from unitrain.backends.rule import TrainingRule
from unitrain.graph.resolve import resolve
from unitrain.spec.layers import Dropout
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.verify.experiments.layers import STEP
from unitrain.verify.experiments.steps import GivenGradient, Steps
from unitrain.verify.findings import LOSS, LOSSES, OPTIMIZER
from unitrain.verify.runner import Array
from unitrain.verify.subject import Subject
from unitrain.weights.random import stream

ROW: dict[str, Any] = {"row": {"shape": [], "dtype": "integer"}}
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
    layers = _tables(names, WIDTH)
    # One output: how the losses of several are added up is the business of another probe.
    layers.append({"type": "concatenate", "name": "joined", "inputs": list(names)})
    graph = resolve(ModelSpec.model_validate({"inputs": ROW, "layers": layers}))
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
    rule = TrainingRule({"joined": (1.0, GivenGradient())}, (), update)
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
    data = Batchable({"row": np.zeros(count, np.int32)}, {"joined": np.concatenate(list(targets.values()), axis=-1)})
    return Steps("optimizer", graph, weights, rule, data, plans, isolated=True, part=OPTIMIZER)


def losses_probe(subject: Subject) -> Steps | None:
    """Return one update by the losses of several outputs, each the sum of a table times given numbers.

    It shows how losses are weighted and added up, whatever they are. There is no probe where only one output is
    trained.
    """
    factors = {output: item.factor for output, item in subject.losses.items()}
    if len(factors) < 2:
        return None
    # An output may be called like a layer of a block, which no layer of a spec may be.
    tables = {f"table_{number}": output for number, output in enumerate(factors)}
    graph = resolve(
        ModelSpec.model_validate({"inputs": ROW, "layers": _tables(tables, WIDTH), "outputs": list(tables)})
    )
    graph = replace(graph, outputs={output: table for table, output in tables.items()})
    update = Update(Sgd(lr=1.0), dict.fromkeys(graph.trainable, False))
    rule = TrainingRule({output: (factor, GivenGradient()) for output, factor in factors.items()}, (), update)
    plan = Plan(np.zeros((1, 1), np.int32), update.coefficients(np.ones(1), 0), np.ones(1), np.ones(1, dtype=bool), 0)
    drawn = {
        output: stream(subject.seed, "verify", "losses", output).normal(size=(1, WIDTH)).astype(np.float32)
        for output in factors
    }
    weights = {name: np.zeros((1, WIDTH), np.float32) for name in graph.parameters}
    data = Batchable({"row": np.zeros(1, np.int32)}, drawn)
    return Steps("losses", graph, weights, rule, data, [plan], isolated=True, part=LOSSES, measures=False)


def block_probe(probe: Steps) -> Steps:
    """Return the optimizer's probe as one block of steps, in which its state goes from one update to the next."""
    plans = probe.plans
    block = Plan(
        np.concatenate([plan.indices for plan in plans]),
        np.concatenate([plan.coefficients for plan in plans]),
        np.concatenate([plan.scale for plan in plans]),
        np.concatenate([plan.apply for plan in plans]),
        0,
    )
    # The same program runs it: to compile it again would cost more than all its steps.
    return replace(probe, plans=[block], measures=False, states=[])


def mask_probe(subject: Subject) -> Steps | None:
    """Return a block of steps through a model's first dropout layer: each change of a table is the step's mask.

    What a layer gives by itself shows its own masks; here the training loop says which step it is. There is no probe
    without a dropout layer.
    """
    dropouts = [node for node in subject.graph.nodes if isinstance(node.layer, Dropout) and node.output_shape]
    if not dropouts:
        return None
    node, samples, steps = dropouts[0], 2, 3
    shape, count = node.output_shape, samples * steps
    width = int(np.prod(shape))
    layers: list[dict[str, Any]] = [
        {"type": "embedding", "name": "table", "vocabulary": count, "width": width, "inputs": ["row"]},
        {"type": "reshape", "name": "shaped", "shape": list(shape)},
        {"type": "dropout", "name": "dropped", "rate": node.layer.rate},  # type: ignore[attr-defined]  # a `Dropout`
    ]
    graph = resolve(ModelSpec.model_validate({"inputs": ROW, "layers": layers}))
    # Its name keys the masks.
    last = replace(graph.nodes[-1], name=node.name)
    graph = replace(graph, nodes=(*graph.nodes[:-1], last), outputs={"dropped": node.name})
    (name,) = graph.trainable
    update = Update(Sgd(lr=1.0), {name: False})
    rule = TrainingRule({"dropped": (1.0, GivenGradient())}, (), update)
    rows = np.arange(count, dtype=np.int32)
    ones = np.ones(steps)
    plan = Plan(rows.reshape(steps, samples), update.coefficients(ones, 0), ones, np.ones(steps, dtype=bool), STEP)
    given = stream(subject.seed, "verify", "masked", node.name).normal(size=(count, *shape)).astype(np.float32)
    table = np.zeros((count, width), np.float32)
    data = Batchable({"row": rows}, {"dropped": given})
    return Steps("masks", graph, {name: table}, rule, data, [plan], isolated=True, part=node.name, measures=False)


def _tables(names: Iterable[str], width: int) -> list[dict[str, Any]]:
    """Return embeddings of a single row, which is the whole parameter."""
    return [{"type": "embedding", "name": name, "vocabulary": 1, "width": width, "inputs": ["row"]} for name in names]


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
    graph = resolve(ModelSpec.model_validate({"inputs": ROW, "layers": layers}))
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
