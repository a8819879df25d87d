"""`unitrain fit`: from a recipe to a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unitrain.backends.contract import Arrays
from unitrain.data.preprocess import Preprocessing
from unitrain.spans import IMPORTING, span
from unitrain.spec.errors import InputError
from unitrain.spec.execution import ExecutionSpec
from unitrain.spec.recipe import ModelReference
from unitrain.train.checkpoint import Checkpoint
from unitrain.train.events import Observer, RunEnd
from unitrain.train.recipe import LoadedRecipe, load_recipe
from unitrain.train.run import Run
from unitrain.train.run_folder import RunFolder, describe_environment
from unitrain.train.session import Place, count_samples, load_run, settings
from unitrain.train.tuning import Choice, try_all
from unitrain.train.tuning_cache import KnownTrials
from unitrain.weights.store import save_tensors, write_text


@dataclass(frozen=True)
class FitResult:
    """A run that has ended."""

    folder: RunFolder
    end: RunEnd


def fit(
    recipe: str | Path | LoadedRecipe,
    *,
    backend: str | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    observers: Sequence[Observer] = (),
    initial: Arrays | None = None,
) -> FitResult:
    """Train a recipe and leave a run folder.

    Parameters
    ----------
    recipe
        A YAML file, or a recipe loaded before.
    backend, device
        Instead of the recipe's.
    out
        Folder of the run; by default ``runs/<name>-<backend>-<time>``.
    overrides
        ``field.path=value`` settings, when ``recipe`` is a file.
    observers
        Told of the run's progress.
    initial
        What training starts from, in the place of the recipe's ``initial_weights``; kept in the run folder.

    Raises
    ------
    InputError
        Something in the recipe, its model or its data is wrong, or the backend or device is not there.
    """
    with span("read recipe"):
        loaded = recipe if isinstance(recipe, LoadedRecipe) else load_recipe(recipe, overrides)
    with span(IMPORTING):
        place = Place.choose(loaded, backend, device, training=True)
    run = Run.assemble(loaded, place, initial=initial, observers=observers)
    with span("write description"):
        folder = RunFolder.create(None if out is None else Path(out), loaded.recipe.name, place.backend.name)
    with folder.locked():
        with span("write description"):
            if initial is not None:
                run.loaded = starting_from(folder.initial, initial, loaded)
            prepared = run.prepared
            write_description(folder, run.loaded, place, prepared.preprocessing, run.execution, prepared.report.lines())
        return FitResult(folder, run.train(folder))


def resume(
    path: str | Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    observers: Sequence[Observer] = (),
) -> FitResult:
    """Go on with a run from its last checkpoint, on its own backend or another.

    Parameters
    ----------
    path
        A run folder, or one of its checkpoints, to go on from there. A run broken off before its first checkpoint
        begins with its first step.
    backend, device, overrides, observers
        As in `fit`.

    Raises
    ------
    InputError
        It is no run, it is over, it is in use, or its checkpoint is damaged; then the one before it is offered.
    """
    path = Path(path)
    folder = RunFolder.open(path.parent.parent if path.is_file() else path)
    with folder.locked():
        with span("read recipe"):
            loaded = load_run(folder, overrides)
        environment = folder.read_environment()
        with span(IMPORTING):
            place = Place.choose(loaded, backend or environment.get("backend"), device, training=True)
        with span("checkpoint"):
            checkpoint = Checkpoint.load(path) if path.is_file() else folder.checkpoints.newest()
        if checkpoint is not None and folder.result.is_file():
            _check_not_over(folder, loaded, checkpoint)
        execution = _execution_again(loaded, place, environment)
        run = Run.assemble(loaded, place, checkpoint=checkpoint, execution=execution, observers=observers)
        write_text(folder.recipe, loaded.recipe.to_yaml())
        resumed = {
            "epoch": checkpoint.state.epoch if checkpoint is not None else 0,
            **describe_environment(backend=place.backend.name, device=place.device, execution=run.execution),
        }
        environment["resumed"] = [*environment.get("resumed", []), resumed]
        folder.write_json(folder.environment, environment)
        return FitResult(folder, run.train(folder))


def _check_not_over(folder: RunFolder, loaded: LoadedRecipe, checkpoint: Checkpoint) -> None:
    """Refuse a run that has ended and whose end still holds; one that was broken off in its end goes on with it."""
    spec, state = loaded.recipe.training, checkpoint.state
    stopping = spec.early_stopping
    if state.epoch >= spec.epochs:
        message, hint = f"the run has finished: {state.epoch} epochs are done", f"--epochs {2 * state.epoch}"
    elif stopping is not None and state.bad_evaluations > stopping.patience:
        message = f"the run was stopped early: validation {stopping.monitor} no longer improved"
        hint = f"--set training.early_stopping.patience={2 * max(state.bad_evaluations, 1)}"
    elif spec.max_steps is not None and state.updates >= spec.max_steps:
        message, hint = f"the run has reached max_steps: {spec.max_steps}", "--set training.max_steps=null"
    elif spec.max_minutes is not None and state.seconds >= 60 * spec.max_minutes:
        message, hint = f"the run has reached max_minutes: {spec.max_minutes:g}", "--set training.max_minutes=null"
    else:
        return
    raise InputError(message, file=str(folder.path), hint=f"train longer with {hint}")


def rehearse(
    recipe: str | Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Check everything a run needs, take one step on real data, keep nothing; return lines to print."""
    loaded = load_recipe(recipe, overrides)
    place = Place.choose(loaded, backend, device, training=True)
    # One step is not worth trying forms.
    execution = loaded.recipe.execution.model_copy(update={"mode": "fixed"})
    run = Run.assemble(loaded, place, execution=execution)
    run.trainer.spec = loaded.recipe.training.model_copy(update={"max_steps": 1})
    run.trainer.validate = None
    end = run.trainer.run()
    if end.reason == "not finite":
        raise InputError(end.message)
    batches = run.trainer.batches
    updates = batches.updates_per_epoch * loaded.recipe.training.epochs
    start = run.start
    return [
        f"{start.name} on {start.backend} ({start.device}): one step taken, loss "
        f"{run.trainer.state.values(run.trainer.metrics)['loss']:.4f}",
        f"  model       {loaded.graph.name}, {start.parameters:,} parameters, {loaded.graph.macs:,} MACs a sample",
        f"  data        {start.training_samples:,} training, {start.validation_samples:,} validation, "
        f"{count_samples(run.prepared.test):,} test samples",
        f"  would run   {loaded.recipe.training.epochs} epochs of {batches.batches_per_epoch} batches, "
        f"{updates:,} updates",
        *(f"  note        {line}" for line in start.notes),
    ]


def _execution_again(loaded: LoadedRecipe, place: Place, environment: dict[str, Any]) -> ExecutionSpec:
    """Return the form that the run had when it last ran, so that it goes on bit for bit.

    Another backend has other forms, and another machine may lack this one: it goes on in the standard form.
    """
    before = [environment, *environment.get("resumed", [])][-1]
    forms = [one.name for one in place.backend.candidates(loaded.graph, settings(loaded, place))]
    same = before.get("backend") == place.backend.name and before.get("execution") in forms
    return ExecutionSpec(mode="fixed", candidate=before["execution"] if same else None)


def tune(
    recipe: str | Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Choice, int]:
    """Try all forms of a recipe's program anew and keep what was found; return the choice, and the steps of the run."""
    loaded = load_recipe(recipe, overrides)
    place = Place.choose(loaded, backend, device, training=True)
    tuner = Run.assemble(loaded, place, execution=ExecutionSpec(mode="fixed")).tuner
    return try_all(loaded.recipe.execution, tuner, KnownTrials()), tuner.steps


def starting_from(path: Path, weights: Arrays, loaded: LoadedRecipe) -> LoadedRecipe:
    """Write weights, and let a recipe start from them."""
    save_tensors(path, weights, {"format": "unitrain canonical weights"})
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"initial_weights": str(path.resolve())}))


def write_description(
    folder: RunFolder,
    loaded: LoadedRecipe,
    place: Place,
    preprocessing: Preprocessing,
    execution: str | None = None,
    data: Sequence[str] = (),
) -> None:
    """Write what is known before the first step: recipe, model, preprocessing, environment."""
    recipe = loaded.recipe.model_copy(
        update={"model": ModelReference(file=folder.model.name), "backend": place.backend.name}
    )
    write_text(folder.model, loaded.model.to_yaml())
    folder.write_json(folder.preprocessing, preprocessing.to_plain())
    folder.write_json(
        folder.environment,
        describe_environment(
            backend=place.backend.name,
            device=place.device,
            execution=execution,
            seed=loaded.recipe.seed,
            deterministic=loaded.recipe.deterministic,
            recipe_folder=str(loaded.folder.resolve()),
            data=list(data),
        ),
    )
    # Last: what has a recipe is a run, which can be gone on with.
    write_text(folder.recipe, recipe.to_yaml())


def where_things_lie(result: FitResult) -> dict[str, str]:
    """Return where the run folder, the weights and the report are, those that are there."""
    folder = result.folder
    places = {"run folder": folder.path, "weights": folder.weights, "report": folder.report}
    return {name: str(path) for name, path in places.items() if path.exists()}
