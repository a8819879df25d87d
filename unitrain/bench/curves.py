"""Cost curves: seconds, samples a second and peak memory over batch size, the model's width, and the size of the data.

The points are cases like all others, checked and timed in rounds; each side takes part in its usual mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from unitrain.bench import fresh, inference, streamed, training
from unitrain.bench.models import TimedModel, resized
from unitrain.bench.results import Point
from unitrain.bench.runner import Experiment
from unitrain.bench.sides import Side

INFERENCE_BATCHES, QUICK_INFERENCE = (1, 2, 4, 8, 16, 32, 64, 128, 256), (1, 16, 256)
TRAINING_BATCHES, QUICK_TRAINING = (8, 32, 128, 512), (8, 128)
# Of the hidden layers of the perceptron, of the first convolution's filters.
STREAMED = ("mlp",)  # models whose training from files is timed
WIDTHS = {"mlp": (32, 128, 512, 2048), "cnn": (8, 16, 32, 64)}
# Seconds for the rounds of a point.
CASE_SECONDS = 4.0


def experiments(
    sides: Sequence[Side], device: str, models: Sequence[TimedModel], threads: int = 1, *, quick: bool = False
) -> list[Experiment]:
    """Return the points of all curves: inference and training over the batch size, training over width and data size.

    Those of one model come one after another; quickly fewer points are done, and no widths. Peak memory of training on
    the CPU is that of a fresh process with so many ``threads``, but quickly that of this one.
    """
    trainers = [side for side in sides if side.backend.trains]
    found: list[Experiment] = []
    for model in models:
        found += _inference(model, sides, device, quick)
        found += _training(model, trainers, device, threads, quick)
        if model.name in STREAMED and trainers and not quick:
            found += _streamed(model, trainers, device, threads)
    return found


def _inference(model: TimedModel, sides: Sequence[Side], device: str, quick: bool) -> Iterator[Experiment]:
    """Yield points over the batch size, every side in the first of its modes, which is the usual one."""
    usual = {side.name: next(iter(side.toolkit.modes)) for side in sides}
    others = frozenset(mode for side in sides for mode in side.toolkit.modes) - frozenset(usual.values())
    for batch in QUICK_INFERENCE if quick else INFERENCE_BATCHES:
        one = inference.experiment(model, batch, sides, device, without=others)
        entries = [replace(entry, name=entry.side.name) for entry in one.entries]
        yield _on_curve(replace(one, entries=entries), Point(f"{model.name} inference", "batch", batch))


def _training(model: TimedModel, sides: Sequence[Side], device: str, threads: int, quick: bool) -> Iterator[Experiment]:
    """Yield points over the batch size, and over the width where the model has one."""
    sizes = [(model, "batch", batch, batch) for batch in (QUICK_TRAINING if quick else TRAINING_BATCHES)]
    for width in () if quick else WIDTHS.get(model.name, ()):
        wide = resized(model.name, width, model.seed)
        sizes += [] if wide is None else [(wide, "width", width, training.BATCH)]
    for sized, over, at, batch in sizes if sides else ():
        steps = training.block_steps(sized, batch)
        one = training.experiment(sized, sides, device, steps, batch)
        if device == "cpu" and not quick:
            one = replace(one, memory=partial(_fresh, sized, batch, steps, threads))
        yield _on_curve(one, Point(f"{model.name} training", over, at, steps))


def _streamed(model: TimedModel, sides: Sequence[Side], device: str, threads: int) -> Iterator[Experiment]:
    """Yield points over the size of a file, up to ten times what is held of it."""
    features = next(iter(model.graph.inputs.values())).shape[0]
    for mebibytes in streamed.MEBIBYTES:
        file = partial(streamed.data_file, mebibytes, features, model.seed)
        one = streamed.experiment(model, sides, device, file)
        if device == "cpu":
            one = replace(one, memory=partial(_fresh_stream, model, threads, file))
        yield _on_curve(one, Point(f"{model.name} streamed training", "data size, MiB", mebibytes, streamed.STEPS))


def _fresh_stream(model: TimedModel, threads: int, file: Callable[[], Path], side: Side) -> int | None:
    return fresh.peak_bytes(model, side, streamed.BATCH, streamed.STEPS, threads, file())


def _fresh(model: TimedModel, batch: int, steps: int, threads: int, side: Side) -> int | None:
    return fresh.peak_bytes(model, side, batch, steps, threads)


def _on_curve(experiment: Experiment, point: Point) -> Experiment:
    return replace(experiment, part="curves", name=f"{point.curve}, {point.over} {point.at}", point=point)
