"""Inference: latency of one sample and throughput of a batch, in every mode that a framework has.

Arrays come from the host and go back to it on all sides, as in a server. Where a mode is compiled its first call, and
each first call with another batch size, costs what the column ``first`` says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache, partial

from unitrain.backends import load_backend
from unitrain.backends.contract import Arrays
from unitrain.backends.toolkit import Call
from unitrain.bench.models import TimedModel
from unitrain.bench.runner import Entry, Experiment, Right
from unitrain.bench.sides import Side

# Largest relative error of an output.
TOLERANCE = 1e-4
BATCHES = (1, 128)
# Modes that take long to compile.
_SLOW = frozenset({"compile", "xla"})


def experiments(
    sides: Sequence[Side], device: str, models: Sequence[TimedModel], *, quick: bool = False
) -> list[Experiment]:
    """Return one experiment a model and batch size."""
    return [
        experiment(model, batch, sides, device, without=_SLOW if quick else ()) for model in models for batch in BATCHES
    ]


def experiment(
    model: TimedModel, batch: int, sides: Sequence[Side], device: str, without: Collection[str] = ()
) -> Experiment:
    """Return the experiment of a model and a batch size, in all modes but those named in ``without``."""

    @cache
    def inputs() -> Arrays:
        return model.inputs(batch)

    def build(side: Side, mode: str) -> Call:
        return side.toolkit.inference(model.graph, model.weights, model.settings(side.device), mode, inputs())

    def expected() -> Right:
        settings = model.settings("cpu", "float64")
        program = load_backend("numpy").compile(model.graph, model.weights, settings)
        return Right(program.predict(inputs(), batch), TOLERANCE)

    entries = [
        Entry(_label(side, mode), side, partial(build, side, mode))
        for side in sides
        for mode in side.toolkit.modes
        if mode not in without
    ]
    return Experiment(
        "inference",
        f"{model.name} batch {batch}",
        model.about,
        model.inference_work(batch),
        entries,
        expected,
        device,
    )


def _label(side: Side, mode: str) -> str:
    return f"{side.name} {mode}" if len(side.toolkit.modes) > 1 else side.name
