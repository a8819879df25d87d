"""Draws random cases: models that resolve, of every layer there is, and how they are trained."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

import numpy as np
from pydantic import BaseModel, ValidationError

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.layers.base import Shape
from unitrain.spec.losses import Loss
from unitrain.spec.model import STEP_TYPES, ModelSpec
from unitrain.spec.optimizers import Optimizer
from unitrain.spec.schedules import PlateauSchedule, Schedule
from unitrain.verify.fuzz.case import VerifyCase
from unitrain.verify.fuzz.catalogue import pair_turn, rows, turn
from unitrain.verify.fuzz.conditioning import well_conditioned
from unitrain.verify.fuzz.fields import draw_fields
from unitrain.verify.fuzz.hints import pick
from unitrain.verify.fuzz.sketch import Sketch, take_arguments
from unitrain.weights.random import stream

# A model has at most this many weights.
WEIGHTS = 5000
# The least batch with which every model drawn is well conditioned.
LEAST_BATCH = 5
# Of eight models in a row each has so many layers whose turn it is, pairs whose turn it is, and others at most. The
# last is small: one layer, and what it takes to read it.
TURNS = (2, 1, 2, 1, 2, 1, 2, 1)
PAIRS = (1, 2, 1, 2, 1, 2, 1, 0)
OTHERS = (3, 2, 3, 2, 3, 2, 3, 0)


def members(union: Any) -> tuple[type[BaseModel], ...]:
    """Return the specifications between which a union chooses."""
    while get_origin(union) is Annotated:
        union = get_args(union)[0]
    return tuple(get_args(union))


LOSSES, OPTIMIZERS = members(Loss), members(Optimizer)
# A plateau waits for evaluations, of which there are none here.
SCHEDULES = tuple(schedule for schedule in members(Schedule) if schedule is not PlateauSchedule)


def draw_case(seed: int, number: int) -> VerifyCase:
    """Draw a model and its training; the same for the same ``seed`` and ``number``, whatever was drawn before."""
    model = draw_model(seed, number)
    return draw_training(seed, number, model, resolve(model))


def draw_model(seed: int, number: int) -> ModelSpec:
    """Draw a model that resolves: 1 to 9 layers, blocks counted as one, on 1 to 4 inputs, with one output or more."""
    for attempt in range(1000):
        generator = stream(seed, "fuzz", number, attempt)
        # Once in a while two layers whose turn it is cannot stand in one model: then one has to do. A pair may be badly
        # conditioned by itself, as a norm of what was pooled to one position.
        turns = TURNS[number % len(TURNS)] if attempt < 100 else 1
        model = _draw(generator, seed, number, turns, PAIRS[number % len(PAIRS)] if attempt < 200 else 0)
        if model is not None:
            return model
    raise AssertionError("a model is drawn in far fewer attempts")


def _draw(generator: np.random.Generator, seed: int, number: int, turns: int, pairs: int) -> ModelSpec | None:
    sketch = Sketch(generator)
    place = number % len(TURNS)
    rows_wanted = [turn(seed, _before(TURNS, number) + step) for step in range(turns)]
    pairs_wanted = [pair_turn(seed, _before(PAIRS, number) + step) for step in range(pairs)]
    others = int(generator.integers(0, OTHERS[place] + 1))
    wanted: list[Any] = [*rows_wanted, *pairs_wanted, *[None] * others]
    for index in generator.permutation(len(wanted)):
        if index < turns:
            if not sketch.add_layer(*wanted[index]):
                return None
        elif wanted[index] is None:
            sketch.add()
        else:
            sketch.add_pair(*wanted[index])
    plain = _finished(sketch)
    if plain is None:
        return None
    try:
        model = ModelSpec.model_validate(plain)
        graph = resolve(model)
    except (InputError, ValidationError):
        return None
    # Of a batch normalisation the batch decides, which is drawn later, and fits.
    return model if graph.parameter_count(True) <= WEIGHTS and well_conditioned(graph, LEAST_BATCH) else None


def _before(shares: tuple[int, ...], number: int) -> int:
    """Return how many turns the models before ``number`` had."""
    rounds, place = divmod(number, len(shares))
    return rounds * sum(shares) + sum(shares[:place])


def _finished(sketch: Sketch) -> dict[str, Any] | None:
    """Return a model as YAML has it; None when it has no output that can be trained."""
    g = sketch.generator
    sketch.embed_integers()
    # Integers that nothing reads give nothing to train, nor do inputs that only they read.
    ends = sketch.results()
    outputs = [value.name for value in ends if not value.integer]
    if not outputs or len(outputs) < len(ends):
        return None
    inner = [
        value.name for value in sketch.values if value.read and not value.integer and value.name not in sketch.inputs
    ]
    if inner and sketch.chance(0.15):
        outputs.insert(int(g.integers(len(outputs) + 1)), pick(g, inner))
    arguments = take_arguments(g, sketch.layers, 0.08)
    layers = sketch.layers if arguments or sketch.chance(0.6) else _bare(sketch.layers, outputs)
    plain: dict[str, Any] = {"inputs": sketch.inputs, "layers": layers}
    if sketch.blocks:
        plain["blocks"] = sketch.blocks
    if arguments:
        plain["arguments"] = arguments
    if outputs != [sketch.layers[-1]["name"]] or sketch.chance(0.5):
        plain["outputs"] = outputs
    if layers is not sketch.layers:
        plain.pop("outputs", None)
    return plain


def _bare(layers: list[dict[str, Any]], outputs: list[str]) -> list[dict[str, Any]]:
    """Leave out names and inputs of a plain chain: the model then has the default ones."""
    names = [layer["name"] for layer in layers]
    chain = all(layer["inputs"] == [name] for layer, name in zip(layers[1:], names, strict=False))
    called = any(layer["type"] == "shared" for layer in layers)
    sides = any(side in layer for layer in layers for side in STEP_TYPES[layer["type"]].side_inputs)
    if not chain or called or sides or len(layers[0]["inputs"]) > 1 or outputs != names[-1:]:
        return layers
    return [{key: value for key, value in layer.items() if key not in ("name", "inputs")} for layer in layers]


def draw_training(seed: int, number: int, model: ModelSpec, graph: Graph) -> VerifyCase:
    """Draw how a model is trained: losses that fit its outputs, an optimizer, a schedule, sizes of batches."""
    generator = stream(seed, "fuzz", number, "training")
    sizes = [size for size in (1, 2, 3, 5, 8, 16, 16) if size >= LEAST_BATCH or well_conditioned(graph, size)]
    plain: dict[str, Any] = {
        "model": model,
        "loss": {
            name: _draw_loss(generator, seed, number + 7 * place, graph.shape(node))
            for place, (name, node) in enumerate(graph.outputs.items())
        },
        "optimizer": _draw_turn(generator, OPTIMIZERS, seed, number),
        "training": {
            "batch_size": int(pick(generator, sizes)),
            "accumulate": int(pick(generator, (1, 1, 1, 2, 3))),
        },
        "seed": int(generator.integers(1000)),
    }
    if generator.random() < 0.5:
        plain["schedule"] = _draw_turn(generator, SCHEDULES, seed, number)
    return VerifyCase.model_validate(plain)


def _draw_loss(generator: np.random.Generator, seed: int, number: int, shape: Shape) -> dict[str, Any]:
    """Draw the loss of an output; those over classes need two classes or more."""
    fitting = LOSSES if shape and shape[-1] > 1 else tuple(loss for loss in LOSSES if not _over_classes(loss))
    drawn: dict[str, Any] = {"loss": _draw_turn(generator, fitting, seed, number, shape)}
    if generator.random() < 0.25:
        drawn["factor"] = pick(generator, (0.5, 2.0))
    return drawn


def _over_classes(loss: type[BaseModel]) -> bool:
    return loss.model_fields["type"].default in ("cross_entropy", "kl_divergence")


def _draw_turn(
    generator: np.random.Generator, kinds: tuple[type[BaseModel], ...], seed: int, number: int, shape: Shape = ()
) -> dict[str, Any]:
    """Draw the one of several specifications whose turn it is, with the options whose turn it is."""
    every = [(kind, row) for kind in kinds for row in rows(kind)]
    start = int(stream(seed, "fuzz", "turns", kinds[0].__name__).integers(len(every)))
    # Coprime steps visit all rows, the kinds mixed.
    step = next(step for step in range(len(every) // 3 + 1, 2 * len(every)) if np.gcd(step, len(every)) == 1)
    kind, row = every[(start + step * number) % len(every)]
    for attempt in range(200):
        drawn = draw_fields(kind, generator, (shape,), row if attempt < 100 else None, often=0.3)
        try:
            kind.model_validate(drawn)
        except ValidationError:
            continue
        return drawn
    raise AssertionError(f"{kind.__name__} is drawn in far fewer attempts")
