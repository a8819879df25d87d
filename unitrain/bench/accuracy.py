"""Time to an accuracy: whole runs of the trainer on real data, until the validation part is told well enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitrain.bench.models import find_model
from unitrain.bench.results import Case, Row, Work
from unitrain.bench.runner import Conditions, judge
from unitrain.bench.sides import Side
from unitrain.spec.recipe import Recipe
from unitrain.timing import TWIN, draw_orders
from unitrain.train.events import EpochDone, Observer
from unitrain.train.recipe import LoadedRecipe, check_recipe
from unitrain.train.run import Run
from unitrain.train.session import Place

EPOCHS = 30
# Runs of each side, in drawn orders.
REPEATS = 3


@dataclass(frozen=True)
class Goal:
    """A model, the data it is trained on, and the share of the validation part that it is to tell right."""

    data: str
    arguments: Mapping[str, Any]
    accuracy: float
    rate: float
    batch: int
    one_part: bool = True
    """Whether the data have no test part of their own, and none is to be drawn."""


# Sixteen patches of two by two pixels.
_DIGITS_TRANSFORMER = {"size": 8, "channels": 1, "patch": 2, "width": 64, "heads": 4, "depth": 2, "classes": 10}
GOALS: dict[str, Goal] = {
    "mlp": Goal("digits", {"features": 64, "width": 64, "outputs": 10}, 0.95, 0.003, 64),
    "lenet5": Goal("fashion_mnist", {}, 0.85, 0.002, 128, one_part=False),
    "cnn": Goal("digits", {"size": 8, "filters": 16, "width": 64}, 0.97, 0.003, 64),
    "resnet20": Goal("digits", {"size": 8, "channels": 1}, 0.95, 0.003, 64),
    "lstm_rows": Goal("digits", {"size": 8, "units": 64}, 0.95, 0.003, 64),
    "vit_tiny": Goal("digits", _DIGITS_TRANSFORMER, 0.95, 0.001, 64),
}
_QUICK = frozenset({"mlp", "cnn"})


class _Watch(Observer):
    """Notes when the accuracy is reached, and asks the trainer to stop then."""

    def __init__(self, accuracy: float) -> None:
        self.wanted = accuracy
        self.best = 0.0
        self.epochs = 0
        self.seconds: float | None = None

    def on_epoch(self, event: EpochDone) -> None:
        """Look at the validation part's accuracy."""
        self.best = max(self.best, float(event.validation["accuracy"]))
        self.epochs = event.epoch
        if self.seconds is None and self.best >= self.wanted:
            self.seconds = event.seconds

    def reached(self) -> str | None:
        """Ask the trainer to stop when it is."""
        return None if self.seconds is None else "interrupted"


def goals(models: Sequence[str], *, quick: bool = False) -> dict[str, Goal]:
    """Return the goals of those of the models that have one."""
    return {name: goal for name, goal in GOALS.items() if name in models and (not quick or name in _QUICK)}


def reach(name: str, goal: Goal, sides: Sequence[Side], device: str, conditions: Conditions, *, quick: bool) -> Case:
    """Train on every side until the accuracy is reached, several times, and compare the times.

    A time runs from the first step to the end of the evaluation that tells the accuracy: tracing, compiling and an
    evaluation after every epoch are in it, reading the data is not.

    Raises
    ------
    InputError
        The data set is not installed.
    """
    training = [side for side in sides if side.backend.trains]
    label = f"{name} to {100 * goal.accuracy:.0f} % of {goal.data}"
    about = f"Adam, batch {goal.batch}, an evaluation after every epoch, tracing included"
    case = Case("training", label, about, Work(0.0, 0.0), device)
    case.rows = [Row(side.name, side.name, side.device) for side in training]
    rows = {row.contender: row for row in case.rows}
    by_name = {side.name: side for side in training}
    case.baseline = training[0].name
    repeats = 1 if quick else REPEATS
    found: dict[str, list[float]] = {}
    orders = draw_orders([*by_name, TWIN], repeats, conditions.generator(label, "order"))
    for number, order in enumerate(orders, start=1):
        for contender in order:
            who = case.baseline if contender == TWIN else contender
            row = rows[who]
            if row.failure:
                continue
            conditions.tell(f"training: {label}: {who}, run {number} of {repeats}")
            watch = _train(name, goal, by_name[who], conditions.seed)
            row.extra = {"epochs": watch.epochs, "accuracy": watch.best}
            if watch.seconds is None:
                row.failure = f"reached {100 * watch.best:.1f} % in {_epochs(watch.epochs)}"
                continue
            found.setdefault(contender, []).append(watch.seconds)
    case.rounds = repeats
    timed = {who: row for who, row in rows.items() if not row.failure}
    if case.baseline in timed:
        judge(
            case, timed, {who: np.array(values) for who, values in found.items()}, dict.fromkeys(timed, 1), conditions
        )
        for row in timed.values():
            row.why = f"{100 * row.extra['accuracy']:.1f} % after {_epochs(row.extra['epochs'])}"
    return case


def _epochs(count: int) -> str:
    return f"{count} {'epoch' if count == 1 else 'epochs'}"


def _train(name: str, goal: Goal, side: Side, seed: int) -> _Watch:
    watch = _Watch(goal.accuracy)
    run = Run.assemble(load_goal(name, goal, seed), Place(side.backend, side.device), observers=[watch])
    run.trainer.interrupted = watch.reached
    run.trainer.run()
    return watch


def load_goal(name: str, goal: Goal, seed: int) -> LoadedRecipe:
    """Write the recipe of a goal."""
    recipe = Recipe.model_validate(
        {
            "name": name,
            "model": {"file": str(find_model(name).resolve()), **goal.arguments},
            "data": {"source": goal.data, "split": {"validation": 0.2, **({"test": 0} if goal.one_part else {})}},
            "loss": "cross_entropy",
            "optimizer": {"type": "adam", "lr": goal.rate},
            "metrics": ["accuracy"],
            "training": {"epochs": EPOCHS, "batch_size": goal.batch, "keep_best": None},
            "seed": seed,
            "deterministic": True,
        }
    )
    return check_recipe(recipe, Path())
