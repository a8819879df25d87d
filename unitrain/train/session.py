"""What a run is made of: recipe, data, program, evaluator, put together once for fitting and evaluating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from unitrain.backends import load_backend, load_training_backend, resolve_device
from unitrain.backends.contract import Backend, Batchable, Program, Settings
from unitrain.backends.precision import check_precision, stored_in
from unitrain.data.dataset import Split as DataSplit
from unitrain.data.load import prepare
from unitrain.data.prepared import Prepared
from unitrain.data.preprocess import Preprocessing
from unitrain.graph.passes.magnitude import prunable
from unitrain.spec.data import Task
from unitrain.spec.errors import InputError
from unitrain.spec.layers import FakeQuantize
from unitrain.spec.recipe import OutputLoss
from unitrain.train.recipe import LoadedRecipe, load_recipe
from unitrain.train.run_folder import RunFolder
from unitrain.train.update import AVERAGE, Update
from unitrain.weights.initialize import initialize
from unitrain.weights.random import stream
from unitrain.weights.store import load_weights


@dataclass(frozen=True)
class Place:
    """Where a run happens: a backend and one of its devices."""

    backend: Backend
    device: str

    @classmethod
    def choose(cls, loaded: LoadedRecipe, backend: str | None, device: str | None, *, training: bool = False) -> Place:
        """Take the command line's choice, else the recipe's.

        Raises
        ------
        InputError
            The backend or device is not there, or the place is for training and the backend cannot, or not in the
            recipe's precision.
        """
        load = load_training_backend if training else load_backend
        chosen = load(backend or loaded.recipe.backend)
        if training:
            try:
                check_precision(chosen.name, chosen.precisions, loaded.recipe.training.precision)
            except InputError as error:
                raise loaded.locate(error, ("training",)) from None
        return cls(chosen, resolve_device(chosen, device or loaded.recipe.device))


def load_run(folder: RunFolder, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read back the recipe and model of a run folder. Relative data paths count from the recipe's folder."""
    loaded = load_recipe(folder.recipe, overrides)
    origin = Path(folder.read_environment()["recipe_folder"])
    return replace(loaded, folder=origin)


def task_of(loss: OutputLoss) -> Task | None:
    """Tell from a loss whether its targets are classes or numbers; None when it does not say."""
    match loss.loss.type:
        case "cross_entropy" | "binary_cross_entropy":
            return "classification"
        case "mse" | "mae" | "huber":
            return "regression"
        case _:
            return None


def prepare_data(loaded: LoadedRecipe, stored: Preprocessing | None = None) -> Prepared:
    """Read, split and preprocess the recipe's data; with what a run has stored, or fitted anew."""
    recipe = loaded.recipe
    try:
        prepared = prepare(
            recipe.data,
            loaded.folder,
            loaded.graph.inputs,
            list(loaded.losses),
            {output: task_of(loss) for output, loss in loaded.losses.items()},
            lambda purpose: stream(recipe.seed, "data", purpose),
            stored,
        )
    except InputError as error:
        raise loaded.locate(error, ("data",)) from None
    try:
        _check_targets(loaded, prepared)
    except InputError as error:
        raise loaded.locate(error) from None
    return prepared


def batchable(split: DataSplit) -> Batchable:
    """Hand a data set to a program."""
    return Batchable(split.inputs, split.targets, split.weight, split.units)


def _check_targets(loaded: LoadedRecipe, prepared: Prepared) -> None:
    """See that the data's classes are those that the output can tell apart."""
    parts = [part for part in (prepared.train, prepared.validation, prepared.test) if part is not None]
    for name, loss in loaded.losses.items():
        classes = prepared.classes.get(name)
        shape = loaded.graph.shape(loaded.graph.outputs[name])
        if loss.loss.type not in ("cross_entropy", "binary_cross_entropy") or classes is None or not shape:
            continue
        binary = loss.loss.type == "binary_cross_entropy"
        width = 2 if binary else shape[-1]
        ignored = getattr(loss.loss, "ignore_index", None)
        # One class a sample is coded by name, 0, 1, ...; arrays hold codes already, some of them perhaps ignored.
        if prepared.train.targets[name].ndim == 1:
            _check_names(name, classes, width, ignored, binary)
        for part in parts:
            codes = part.targets[name]
            outside = (codes < 0) | (codes >= width)
            if ignored is not None:
                outside &= codes != ignored
            if outside.any():
                code = codes[outside][0]
                raise InputError(
                    f"the data has a class that the output '{name}' cannot tell",
                    field=("loss",),
                    found=str(code),
                    allowed=f"0 .. {width - 1}",
                    hint=_outside_hint(name, int(code), len(classes), binary),
                )


def _outside_hint(name: str, code: int, classes: int, binary: bool) -> str | None:
    if binary:
        return None
    return (
        f"ignore_index: {code} leaves it out" if code < 0 else f"give the layer '{name}' {max(classes, code + 1)} units"
    )


def _check_names(name: str, classes: Sequence[str], width: int, ignored: int | None, binary: bool) -> None:
    """Compare the names of the classes with the number that the output can tell apart."""
    if ignored is not None and list(classes) != [str(code) for code in range(len(classes))]:
        raise InputError(
            "ignore_index is a class number, and these classes are numbered in the order of their names",
            field=("loss",),
            found=", ".join(classes[:12]),
            hint="leave the samples that are to be ignored out of the data",
        )
    if len(classes) > width and binary:
        raise InputError(
            f"the loss does not fit output '{name}': binary_cross_entropy tells two classes apart",
            field=("loss",),
            found=", ".join(classes[:12]),
            hint=f"take cross_entropy, and give the layer '{name}' {len(classes)} units",
        )
    if len(classes) > width:
        raise InputError(
            f"the data has {len(classes)} classes and the output '{name}' is {width} wide",
            field=("model",),
            found=", ".join(classes[:12]),
            hint=f"give the layer '{name}' {len(classes)} units",
        )


def settings(loaded: LoadedRecipe, place: Place) -> Settings:
    """Return how a recipe's program runs; in the precision of its weights where the backend knows no mixed one."""
    recipe, precision = loaded.recipe, loaded.recipe.training.precision
    chosen = precision if precision in place.backend.precisions else stored_in(precision)
    return Settings(place.device, chosen, recipe.seed, recipe.deterministic, recipe.training.tf32)


def setting_notes(loaded: LoadedRecipe, place: Place) -> tuple[str, ...]:
    """Return a line for each setting that has no effect where a recipe runs."""
    if not loaded.recipe.training.tf32 or place.device.startswith("cuda"):
        return ()
    return (f"training.tf32 has no effect on the device '{place.device}': TensorFloat-32 is for CUDA devices",)


def make_update(loaded: LoadedRecipe) -> Update:
    """Return the recipe's optimizer, with the model's parameters that decay."""
    decays = {name: parameter.decay for name, parameter in loaded.graph.parameters.items() if parameter.trainable}
    sparse = () if loaded.recipe.pruning is None else prunable(loaded.graph)
    return Update(loaded.recipe.optimizer, decays, sparse)


def starting_weights(loaded: LoadedRecipe) -> dict[str, npt.NDArray[Any]]:
    """Return what training starts from: the recipe's file, or weights drawn by its seed.

    Of a model in floats the ranges of layers that round are not known: these are drawn, and found in training.

    Raises
    ------
    InputError
        The file is missing, or does not fit the model.
    """
    given, drawn = loaded.recipe.initial_weights, initialize(loaded.graph, loaded.recipe.seed)
    if given is None:
        return dict(drawn)
    rounding = [node for node in loaded.graph.nodes if isinstance(node.layer, FakeQuantize)]
    ranges = {name: drawn[name] for node in rounding for name in node.parameters.values()}
    path = loaded.folder / given
    try:
        return load_weights(RunFolder.open(path).weights if path.is_dir() else path, loaded.graph, ranges)
    except InputError as error:
        problem = error.problems[0]
        place = None if path.exists() else f"looked for {path}: a relative path counts from the recipe's folder"
        raise loaded.locate(
            InputError(problem.message, field=("initial_weights",), found=given, hint=problem.hint or place)
        ) from None


def averaged_weights(program: Program) -> dict[str, npt.NDArray[Any]]:
    """Return the weights to evaluate and keep: moving averages where they are kept, else the weights."""
    weights = program.weights()
    return {**weights, **program.slots().get(AVERAGE, {})}


def count_samples(split: DataSplit | None) -> int:
    """Return the number of samples of a part that may be absent."""
    return 0 if split is None else len(split)
