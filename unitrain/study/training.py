"""Training within a study: a run that is trained further."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitrain.graph.graph import Graph
from unitrain.graph.respell import spec_of
from unitrain.spec.errors import InputError
from unitrain.spec.pruning import PruningSpec
from unitrain.spec.quantization import Quantization
from unitrain.spec.schedules import ExponentialSchedule, MultiStepSchedule, Schedule
from unitrain.study.progress import Progress
from unitrain.study.subject import Array
from unitrain.train.distillation import taught_by
from unitrain.train.fit import FitResult, fit
from unitrain.train.recipe import LoadedRecipe, check_recipe
from unitrain.train.run_folder import RunFolder
from unitrain.weights.store import load_weights, save_tensors

Weights = Mapping[str, Array]

_SIGNALS = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM}


def finetune(
    loaded: LoadedRecipe,
    graph: Graph,
    weights: Weights,
    epochs: int,
    progress: Progress,
    *,
    rate: float = 1.0,
    quantization: Quantization | None = None,
    pruning: PruningSpec | None = None,
    teacher: Path | None = None,
) -> tuple[Graph, dict[str, Array]]:
    """Train a model further by the recipe of a run; return what was trained, and its weights.

    Parameters
    ----------
    rate
        Factor of the recipe's learning rate.
    quantization
        How numbers are rounded while it trains; the graph then has layers that round.
    pruning
        How weights become zero while it trains. Those of a run that was itself so trained stay zero in any case.
    teacher
        The folder of a run that teaches it; None for none.

    Notes
    -----
    The recipe's schedule is gone through again, pressed into ``epochs``, as in Renda et al. 2020, Comparing rewinding
    and fine-tuning in neural network pruning: learning-rate rewinding.
    """
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.safetensors"
        save_tensors(start, dict(weights), {"format": "unitrain canonical weights"})
        recipe = loaded.recipe
        if pruning is None and recipe.pruning is not None:
            pruning = PruningSpec()
        training = recipe.training.model_copy(
            update={"epochs": epochs, "max_steps": None, "max_minutes": None, "early_stopping": None}
        )
        changes = {
            "model": spec_of(graph),
            "initial_weights": str(start),
            "training": training,
            "schedule": pressed(recipe.schedule, epochs / recipe.training.epochs),
            "optimizer": recipe.optimizer.model_copy(update={"lr": rate * recipe.optimizer.lr}),
            "quantization": quantization,
            "pruning": pruning,
            "distillation": None if teacher is None else taught_by(teacher, recipe.distillation),
            "tracking": (),
        }
        shortened = check_recipe(recipe.model_copy(update=changes), loaded.folder)
        done = fit(shortened, backend=recipe.backend, out=Path(folder) / "run", observers=(progress.training(),))
        return shortened.graph, dict(load_weights(ended(done).weights, shortened.graph))


def ended(done: FitResult) -> RunFolder:
    """Return the folder of a run that came to its end.

    Raises
    ------
    InputError
        Its loss was not finite.
    SystemExit
        A signal has ended it, and so ends the study: 128 and the signal's number, as a shell expects.
    """
    if done.end.reason in _SIGNALS:
        raise SystemExit(128 + _SIGNALS[done.end.reason])
    if done.end.reason == "not finite":
        raise InputError(f"training it failed: {done.end.message}")
    return done.folder


def pressed(schedule: Schedule | None, share: float) -> Schedule | None:
    """Return a schedule of the same shape over ``share`` of its length."""
    if schedule is None:
        return None
    changes: dict[str, Any] = {}
    for name in ("warmup", "every", "length", "period"):
        length = getattr(schedule, name, None)
        if length is not None:
            changes[name] = length * share
    if isinstance(schedule, MultiStepSchedule):
        changes["milestones"] = tuple(place * share for place in schedule.milestones)
    if isinstance(schedule, ExponentialSchedule):
        changes["factor"] = schedule.factor ** (1.0 / share)
    return schedule.model_copy(update=changes)
