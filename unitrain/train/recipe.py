"""Reading a recipe: overrides from the command line, the model it names, and what must fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unitrain.graph.graph import Graph
from unitrain.graph.passes.quantize import insert_fake_quantize
from unitrain.graph.resolve import resolve
from unitrain.graph.respell import spec_of
from unitrain.spec.base import at_document, validate
from unitrain.spec.errors import FieldPath, InputError, unknown_name
from unitrain.spec.model import ModelSpec
from unitrain.spec.recipe import ModelReference, OutputLoss, Recipe
from unitrain.spec.yaml import Document, parse_yaml, read_yaml
from unitrain.train.binding import metric_labels


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with its model read and resolved.

    Parameters
    ----------
    recipe
        As written, overrides applied.
    folder
        Relative paths of the data count from here.
    model
        The model's specification, with the recipe's values as the defaults of its arguments.
    graph
        The resolved model.
    losses
        The loss of each trained output.
    document
        Where the recipe was read from, to name file and line in errors; None when it was made in Python.
    """

    recipe: Recipe
    folder: Path
    model: ModelSpec
    graph: Graph
    losses: Mapping[str, OutputLoss]
    document: Document | None = None

    def locate(self, error: InputError, section: FieldPath = ()) -> InputError:
        """Give an error about a field of the recipe, or of one section of it, its file and line.

        An error that names a file of its own, or no field, stays as it is.
        """
        problem = error.problems[0]
        if self.document is None or problem.file is not None or not problem.field:
            return error
        return at_document(error, self.document, section)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> LoadedRecipe:
    """Read and check a recipe.

    Parameters
    ----------
    path
        The YAML file.
    overrides
        ``field.path=value`` settings, as given to ``--set``; the value is read as YAML.

    Raises
    ------
    InputError
        With file, line and field, or with the override that is wrong.
    """
    document, settings = apply_overrides(read_yaml(path), overrides)
    try:
        return check_recipe(validate(Recipe, document), Path(path).parent, document)
    except InputError as error:
        raise _blame_overrides(error, settings) from None


def check_recipe(recipe: Recipe, folder: Path, document: Document | None = None) -> LoadedRecipe:
    """Read the model that a recipe names, resolve it, and see that losses and metrics fit its outputs."""
    model, model_document = _read_model(recipe, folder, document)
    graph = resolve(model, document=model_document)
    try:
        if recipe.quantization is not None:
            graph = insert_fake_quantize(graph, recipe.quantization)
            model = spec_of(graph)
        losses = _losses(recipe, graph)
        _check_monitors(recipe, graph)
    except InputError as error:
        if document is None:
            raise
        raise at_document(error, document) from None
    return LoadedRecipe(recipe, folder, model, graph, losses, document)


def apply_overrides(document: Document, overrides: Iterable[str]) -> tuple[Document, dict[FieldPath, str]]:
    """Set fields of a parsed document; also return which field each override set."""
    data = deepcopy(document.data)
    settings: dict[FieldPath, str] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise InputError("an override is written field.path=value", found=override, file="--set")
        path = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
        value = parse_yaml(text, file=f"--set {name}").data if text.strip() not in ("", "null", "~") else None
        settings[path[: _set(data, path, value, override)]] = override
    return replace(document, data=data), settings


def _set(data: Any, path: FieldPath, value: Any, override: str) -> int:
    """Set one field; return how many parts of the path lead to what had to be made for it."""
    made: int | None = None
    for index, part in enumerate(path):
        if isinstance(data, list):
            if not isinstance(part, int) or part >= len(data):
                raise InputError(
                    "the list has no such entry",
                    file=f"--set {override}",
                    field=path[: index + 1],
                    allowed=f"0 to {len(data) - 1}",
                )
        elif not isinstance(data, dict):
            raise InputError("this is not a mapping of fields", file=f"--set {override}", field=path[:index])
        if index + 1 == len(path):
            data[part] = value
            return made or len(path)
        known = data.get(part) if isinstance(data, dict) else data[int(part)]
        if isinstance(known, str):
            # `optimizer: adam` and `model: file.yaml` are short for a mapping.
            known = {"file" if part == "model" else "type": known}
        if known is None:
            known, made = {}, made or index + 1
        data[part] = known
        data = known
    raise AssertionError("a path has at least one part")


def _blame_overrides(error: InputError, settings: Mapping[FieldPath, str]) -> InputError:
    """Name the override, and not a line of the file, where a problem lies in what an override set."""
    problems = []
    for problem in error.problems:
        guilty = next((text for path, text in settings.items() if problem.field[: len(path)] == path), None)
        problems.append(problem if guilty is None else replace(problem, file=f"--set {guilty}", line=None))
    return InputError.from_problems(problems)


def _read_model(recipe: Recipe, folder: Path, document: Document | None) -> tuple[ModelSpec, Document | None]:
    if isinstance(recipe.model, ModelSpec):
        if document is None:
            return recipe.model, None
        inside = {path[1:]: line for path, line in document.lines.items() if path[:1] == ("model",)}
        return recipe.model, Document(document.file, document.data["model"], inside)
    reference: ModelReference = recipe.model
    try:
        model_document = read_yaml(folder / reference.file)
    except InputError as error:
        if document is None or len(error.problems) != 1 or error.problems[0].line is not None:
            raise
        problem = error.problems[0]
        raise InputError(
            f"the model file '{problem.file}': {problem.message}",
            file=document.file,
            line=document.line(("model", "file")),
            field=("model",),
            found=problem.found,
            allowed=problem.allowed,
            hint=problem.hint,
        ) from None
    model = validate(ModelSpec, model_document)
    for name in reference.arguments:
        if name not in model.arguments:
            unknown = unknown_name(f"argument of {reference.file}", name, model.arguments, ("model", name))
            raise unknown if document is None else at_document(unknown, document)
    arguments = {**model.arguments, **reference.arguments}
    return model.model_copy(update={"arguments": arguments}), model_document


def _losses(recipe: Recipe, graph: Graph) -> dict[str, OutputLoss]:
    given = recipe.loss
    if not isinstance(given, dict):
        if len(graph.outputs) > 1:
            raise InputError(
                "a model with several outputs needs a loss for each output that is trained",
                field=("loss",),
                allowed=", ".join(graph.outputs),
            )
        return {next(iter(graph.outputs)): OutputLoss(loss=given)}
    for name in given:
        if name not in graph.outputs:
            raise unknown_name("output of the model", name, graph.outputs, ("loss", name))
    return dict(given)


def _check_monitors(recipe: Recipe, graph: Graph) -> None:
    """See that early stopping, best weights and a plateau schedule monitor something that is measured."""
    labels = metric_labels(recipe.metrics, list(graph.outputs))
    known = ["loss", *(label for label in labels if not label.endswith(("confusion_matrix", "_per_class")))]
    monitored: list[tuple[FieldPath, str | None]] = [
        (("training", "keep_best"), recipe.training.keep_best),
        (("schedule", "monitor"), getattr(recipe.schedule, "monitor", None)),
    ]
    if recipe.training.early_stopping is not None:
        monitored.append((("training", "early_stopping", "monitor"), recipe.training.early_stopping.monitor))
    for path, name in monitored:
        if name is not None and name not in known:
            raise unknown_name("value to monitor", name, known, path)
