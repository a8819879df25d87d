"""From what the user names to what is verified: a model, a recipe, or a run folder with its kept weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unitrain.graph.resolve import resolve
from unitrain.spec.base import validate
from unitrain.spec.documents import is_recipe, read_arguments
from unitrain.spec.errors import InputError, did_you_mean
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import Document, read_yaml
from unitrain.train.recipe import load_recipe
from unitrain.train.run_folder import RunFolder
from unitrain.train.session import load_run
from unitrain.verify.fuzz.case import is_case, read_case
from unitrain.verify.subject import Subject, model_subject, recipe_subject
from unitrain.weights.store import load_weights


def read_subject(path: str | Path, settings: Sequence[str] = (), seed: int | None = None) -> Subject:
    """Make a subject of a file or folder.

    Parameters
    ----------
    path
        A model, or a case of the fuzzer: inputs and targets are drawn. A recipe: its own data and training. A run
        folder: the same with the run's weights.
    settings
        As typed after ``--set``: arguments of a model (``classes=7``), fields of a recipe (``optimizer.lr=0.01``).
    seed
        Keys the weights, the data drawn and the dropout masks; a recipe's own by default, 0 for a model.

    Raises
    ------
    InputError
        The path leads nowhere, or what is there is wrong.
    """
    place = Path(path)
    if place.is_dir():
        return _run(place, settings, seed)
    if not place.exists():
        near = [entry.name for entry in place.parent.iterdir()] if place.parent.is_dir() else []
        raise InputError("no such file or run folder", file=str(path), hint=did_you_mean(place.name, near))
    document = read_yaml(place)
    if is_case(document):
        case = read_case(document)
        return (case if seed is None else case.model_copy(update={"seed": seed})).subject(place.stem, document)
    return _recipe(place, settings, seed) if is_recipe(document) else _model(document, settings, seed)


def _model(document: Document, settings: Sequence[str], seed: int | None) -> Subject:
    spec = validate(ModelSpec, document)
    graph = resolve(spec, read_arguments(settings), document)
    name = spec.name if "name" in spec.model_fields_set else Path(document.file).stem
    return model_subject(name, graph, seed=seed or 0)


def _recipe(path: Path, settings: Sequence[str], seed: int | None) -> Subject:
    return recipe_subject(load_recipe(path, _with_seed(settings, seed)))


def _run(path: Path, settings: Sequence[str], seed: int | None) -> Subject:
    folder = RunFolder.open(path)
    loaded = load_run(folder, _with_seed(settings, seed))
    if not folder.weights.is_file():
        raise InputError("the run has no weights yet", file=str(folder.weights), hint="verify its recipe instead")
    return recipe_subject(loaded, load_weights(folder.weights, loaded.graph))


def _with_seed(settings: Sequence[str], seed: int | None) -> list[str]:
    return [*settings, *([] if seed is None else [f"seed={seed}"])]
