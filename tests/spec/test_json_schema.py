"""The JSON Schema accepts what the validator accepts, and refuses what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from unitrain.graph.resolve import resolve
from unitrain.spec.base import validate
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.spec.recipe import Recipe
from unitrain.spec.schema import model_schema, parse_parameters, recipe_schema
from unitrain.spec.yaml import Document, parse_yaml, read_yaml

ROOT = Path(__file__).resolve().parents[2]
MODELS = sorted((ROOT / "models").glob("*.yaml"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def model() -> Draft202012Validator:
    return Draft202012Validator(model_schema())


@pytest.fixture(scope="module")
def recipe() -> Draft202012Validator:
    return Draft202012Validator(recipe_schema())


def test_both_are_schemas_of_the_dialect_they_name() -> None:
    for schema in (model_schema(), recipe_schema()):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_our_models_are_accepted(model: Draft202012Validator, file: Path) -> None:
    assert [error.message for error in model.iter_errors(read_yaml(file).data)] == []


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_our_recipes_are_accepted(recipe: Draft202012Validator, file: Path) -> None:
    assert [error.message for error in recipe.iter_errors(read_yaml(file).data)] == []


def _accepts_model(data: Any) -> bool:
    document = Document("test", data)
    try:
        resolve(validate(ModelSpec, document), document=document)
    except InputError:
        return False
    return True


# A layer after an image [8, 8, 4], and whether it is right.
LAYERS = {
    "{type: conv2d, filters: 8, kernel_size: 3}": True,
    "{type: conv2d, filters: 8, kernel_size: [3, 5], strides: 2}": True,
    "{type: conv2d, filters: 8, kernel_size: [3, 3, 3]}": False,
    "{type: conv2d, filters: 8, kernel_size: 0}": False,
    "{type: conv2d, filters: -8, kernel_size: 3}": False,
    "{type: conv2d, filters: eight, kernel_size: 3}": False,
    "{type: conv2d, filters: 8.5, kernel_size: 3}": False,
    "{type: conv2d, filters: 8}": False,
    "{type: conv2d, filters: 8, kernel: 3}": False,
    "{type: conv2, filters: 8, kernel_size: 3}": False,
    "{filters: 8, kernel_size: 3}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, padding: same}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, padding: some}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, padding: 1}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, padding: -1}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, padding: [1, [0, 2]]}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, padding: [1, 2, 3]}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, activation: relu}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, activation: relo}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, kernel_initializer: he_normal}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, kernel_initializer: he_norm}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, kernel_initializer: constant}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, kernel_initializer: {type: constant, value: 1}}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, kernel_initializer: {type: he, gains: 1}}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, inputs: [image]}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, inputs: image}": True,
    "{type: conv2d, filters: 8, kernel_size: 3, name: 3rd}": False,
    "{type: conv2d, filters: $width, kernel_size: 3}": True,
    '{type: conv2d, filters: "${2 * width}", kernel_size: [$width, 1]}': True,
    '{type: conv2d, filters: "$2width", kernel_size: 3}': False,
    "{type: conv2d, filters: $width, kernel_size: 3, kernels: 1}": False,
    "{type: conv2d, filters: 8, kernel_size: 3, kernel_initializer: {type: constant, value: $width}}": True,
    "{type: max_pool2d, kernel_size: 2}": True,
    "{type: max_pool2d, kernel_size: 2, strides: 1}": True,
    "{type: max_pool2d, strides: 2}": False,
    "{type: padding, amounts: [1, [0, 2]]}": True,
    "{type: padding, amounts: []}": False,
    "{type: dropout, rate: 0.5}": True,
    "{type: dropout, rate: 1.5}": False,
    "{type: batch_norm, momentum: 1.0}": False,
    "{type: rms_norm, use_bias: true}": False,
    "{type: block, block: pair, repeat: 2, arguments: {width: $width}}": True,
    "{type: block, block: pair, repeat: -1}": False,
    "{type: block, repeat: 2}": False,
    "{type: shared, layer: 5}": False,
}


@pytest.mark.parametrize(("layer", "right"), LAYERS.items(), ids=LAYERS.keys())
def test_layers_as_the_validator(model: Draft202012Validator, layer: str, right: bool) -> None:
    data = parse_yaml(
        "arguments: {width: 4}\n"
        "inputs: {image: {shape: [8, 8, 4]}}\n"
        "blocks: {pair: {arguments: {width: 4}, layers: [{type: dense, units: $width}, {type: relu}]}}\n"
        f"layers: [{layer}]"
    ).data
    assert _accepts_model(data) is right
    assert model.is_valid(data) is right


# Changes to a right model, none of them right.
BROKEN_MODELS = {
    "no layers": {"layers": []},
    "layers a mapping": {"layers": {"type": "relu"}},
    "a layer in words": {"layers": ["relu"]},
    "no inputs": {"inputs": {}},
    "unknown field": {"layer": []},
    "input without shape": {"inputs": {"x": {}}},
    "input of size 0": {"inputs": {"x": {"shape": [0]}}},
    "unknown kind of values": {"inputs": {"x": {"shape": [4], "dtype": "double"}}},
    "name a number": {"name": 5},
    "block without layers": {"blocks": {"b": {"layers": []}}},
    "argument a mapping": {"arguments": {"a": {"b": 1}}},
}


@pytest.mark.parametrize("change", BROKEN_MODELS.values(), ids=BROKEN_MODELS.keys())
def test_broken_models_as_the_validator(model: Draft202012Validator, change: dict[str, Any]) -> None:
    sound = {"inputs": {"x": {"shape": [4]}}, "layers": [{"type": "relu"}]}
    assert _accepts_model(sound)
    assert model.is_valid(sound)
    assert not _accepts_model({**sound, **change})
    assert not model.is_valid({**sound, **change})


# Changes to a right recipe, and whether they leave it right.
RECIPE_CHANGES = {
    "model: ../models/cnn.yaml": True,
    "model: {file: ../models/cnn.yaml, classes: 7}": True,
    "model: {classes: 7}": False,
    "model: {file: m.yaml, classes: {a: 1}}": False,
    "model: {inputs: {x: {shape: [4]}}, layers: [{type: dense, units: 3}]}": True,
    "model: {inputs: {x: {shape: [4]}}, layers: [{type: dens, units: 3}]}": False,
    "data: {source: iris}": True,
    "data: {source: iriss}": False,
    "data: {source: table}": False,
    "data: {source: {type: table, file: a.csv, target: b}}": True,
    "data: {source: {type: table, files: a.csv, target: b}}": False,
    "data: {source: digits, augment: [flip, {type: crop, padding: 2}]}": True,
    "data: {source: digits, augment: [flop]}": False,
    "data: {source: digits, pixels: {mean: [0.5], std: [0.2]}}": True,
    "data: {source: digits, pixels: {mean: [0.5], std: [0]}}": False,
    "data: {source: digits, split: {train: 1.5}}": False,
    "loss: mse": True,
    "loss: {type: huber, delta: 2}": True,
    "loss: {type: huber, delta: 0}": False,
    "loss: hubert": False,
    "loss: {left: {loss: mse}, right: {loss: mae, factor: 2}}": True,
    "loss: {left: mse}": False,
    "optimizer: {type: sgd, lr: 0.1, momentum: 0.9}": True,
    "optimizer: {type: sgd, learning_rate: 0.1}": False,
    "optimizer: {lr: 0.1}": False,
    "optimizer: {type: adam, beta1: 1.0}": False,
    "schedule: cosine": True,
    "schedule: {type: step, every: 10}": True,
    "schedule: {type: step}": False,
    "schedule: step": False,
    "schedule: null": True,
    "metrics: [accuracy, {type: top_k, k: 3}]": True,
    "metrics: [accuracy, {type: top_k, k: 0}]": False,
    "metrics: accuracy": False,
    "training: {epochs: 3, early_stopping: {patience: 2}}": True,
    "training: {epochs: 0}": False,
    "training: {epoch: 3}": False,
    "training: {precision: float16}": False,
    "backend: torch": True,
    "backend: jax": False,
    "seed: -1": False,
    "deterministic: true": True,
    "deterministic: 7": False,
    "tracking: [tensorboard]": True,
    "tracking: [wandb]": False,
}


@pytest.mark.parametrize(("change", "right"), RECIPE_CHANGES.items(), ids=RECIPE_CHANGES.keys())
def test_recipes_as_the_validator(recipe: Draft202012Validator, change: str, right: bool) -> None:
    sound = parse_yaml("{model: m.yaml, data: {source: digits}, loss: cross_entropy, optimizer: adam}").data
    data = {**sound, **parse_yaml(change).data}
    try:
        validate(Recipe, Document("test", data))
        accepted = True
    except InputError:
        accepted = False
    assert accepted is right
    assert recipe.is_valid(data) is right


def _mappings(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for value in schema.values():
            yield from _mappings(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _mappings(value)


def test_no_mapping_takes_unknown_fields() -> None:
    for make in (model_schema, recipe_schema):
        for mapping in _mappings(make()):
            # The arguments of a model file stand beside its name; they are checked when the file is read.
            assert mapping["additionalProperties"] is False or "file" in mapping["properties"]


def test_fields_are_described_in_the_words_of_the_docstrings() -> None:
    definitions = recipe_schema()["$defs"]
    adamw = definitions["AdamW"]
    assert adamw["description"].startswith("Adam with decoupled weight decay")
    # Inherited from the class that all optimizers share.
    assert adamw["properties"]["lr"]["description"] == "Learning rate, before the schedule."
    assert "Parameters\n" not in definitions["Table"]["description"]
    assert "----" not in str(definitions)


def test_parse_parameters() -> None:
    text = """Do it.

    Parameters
    ----------
    low, high : float
        Ends of the range,
        both included.
    name
        One word.

        And more.

    Raises
    ------
    ValueError
        Never.
    """
    assert parse_parameters(text) == {
        "low": "Ends of the range, both included.",
        "high": "Ends of the range, both included.",
        "name": "One word.\n\nAnd more.",
    }
    assert parse_parameters("No section.") == {}
