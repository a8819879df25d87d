"""Model specifications: YAML and Python are the same thing, come back from YAML, and tell every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conformance.cases import CASES
from pydantic import ValidationError

from unitrain.graph.resolve import resolve
from unitrain.spec.base import load_spec, validate
from unitrain.spec.errors import InputError, Problem
from unitrain.spec.initializers import Constant, He
from unitrain.spec.layers import LAYER_TYPES, Add, BatchNorm, Conv2d, Dense, Flatten, MaxPool2d, Padding
from unitrain.spec.model import BlockCall, BlockSpec, InputSpec, ModelSpec, SharedCall, Template
from unitrain.spec.yaml import parse_yaml

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.yaml"))


def from_yaml(text: str) -> ModelSpec:
    return validate(ModelSpec, parse_yaml(text, file="m.yaml"))


def problems_in(text: str) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        from_yaml(text)
    return caught.value.problems


WRITTEN = """
name: small
description: A model that uses everything.
arguments: {width: 8}
inputs:
  image: {shape: [6, 6, 3], low: 0.0, high: 1.0}
blocks:
  step:
    arguments: {filters: null, stride: 1}
    inputs: [a]
    layers:
      - {type: conv2d, name: conv, filters: $filters, kernel_size: 3, strides: $stride, padding: same}
      - {type: batch_norm, name: norm, momentum: 0.99}
    outputs: norm
layers:
  - {type: block, name: stage, block: step, repeat: 2, arguments: {filters: 4, stride: 1}}
  - {type: conv2d, name: conv, filters: 4, kernel_size: [3, 2], padding: [[1, 1], [0, 1]], activation: relu,
     kernel_initializer: he_normal, bias_initializer: {type: constant, value: 0.5}}
  - {type: shared, name: again, layer: conv}
  - {type: add, name: sum, inputs: [conv, again]}
  - {type: flatten}
  - {type: dense, name: y, units: $width}
outputs: [y, sum]
"""


def in_python() -> ModelSpec:
    return ModelSpec(
        name="small",
        description="A model that uses everything.",
        arguments={"width": 8},
        inputs={"image": InputSpec(shape=(6, 6, 3), low=0.0, high=1.0)},
        blocks={
            "step": BlockSpec(
                arguments={"filters": None, "stride": 1},
                inputs=("a",),
                layers=(
                    Template(
                        fields={
                            "type": "conv2d",
                            "name": "conv",
                            "filters": "$filters",
                            "kernel_size": 3,
                            "strides": "$stride",
                            "padding": "same",
                        }
                    ),
                    BatchNorm(name="norm", momentum=0.99),
                ),
                outputs=("norm",),
            )
        },
        layers=(
            BlockCall(name="stage", block="step", repeat=2, arguments={"filters": 4, "stride": 1}),
            Conv2d(
                name="conv",
                filters=4,
                kernel_size=(3, 2),
                padding=((1, 1), (0, 1)),
                activation="relu",
                kernel_initializer=He(distribution="normal"),
                bias_initializer=Constant(value=0.5),
            ),
            SharedCall(name="again", layer="conv"),
            Add(name="sum", inputs=("conv", "again")),
            Flatten(),
            Template(fields={"type": "dense", "name": "y", "units": "$width"}),
        ),
        outputs=("y", "sum"),
    )


def test_yaml_and_python_give_the_same_model() -> None:
    assert from_yaml(WRITTEN) == in_python()
    assert resolve(from_yaml(WRITTEN)) == resolve(in_python())


def test_a_model_comes_back_from_its_yaml() -> None:
    model = in_python()
    assert from_yaml(model.to_yaml()) == model
    assert ModelSpec.model_validate(model.to_plain()) == model


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_comes_back_from_its_yaml(path: Path) -> None:
    model = load_spec(ModelSpec, path)
    assert from_yaml(model.to_yaml()) == model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_every_layer_comes_back_from_its_yaml(case: Any) -> None:
    model = ModelSpec(inputs={"x": InputSpec(shape=(2,))}, layers=(case.layer,))
    again = from_yaml(model.to_yaml())
    assert again == model
    assert type(again.layers[0]) is type(case.layer)


def test_what_equals_its_default_is_not_written() -> None:
    assert Dense(units=3).to_plain() == {"type": "dense", "units": 3}


def test_short_forms_are_the_long_ones() -> None:
    short = Conv2d.model_validate({"filters": 2, "kernel_size": 3, "strides": 2, "padding": 1})
    assert short == Conv2d(filters=2, kernel_size=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    sides = Conv2d.model_validate({"filters": 2, "kernel_size": 3, "padding": [1, 2]})
    assert sides.padding == ((1, 1), (2, 2))
    line = LAYER_TYPES["conv1d"].model_validate({"filters": 2, "kernel_size": 3, "padding": [1, 2]})
    assert getattr(line, "padding") == ((1, 2),)  # noqa: B009  (a field of this layer only)
    assert MaxPool2d.model_validate({"kernel_size": [2, 3]}).strides == (2, 3)
    assert Padding.model_validate({"amounts": [1, [2, 3]]}).amounts == ((1, 1), (2, 3))
    assert Dense.model_validate({"units": 2, "kernel_initializer": "zeros"}).kernel_initializer.type == "zeros"
    assert Add.model_validate({"inputs": "x"}).inputs == ("x",)


def test_a_specification_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Dense(units=3).units = 4  # type: ignore[misc]  # what is tested


HEAD = "inputs: {x: {shape: [4]}}\nlayers:\n"
# What is written, then line, field, found, something of the allowed, hint.
MISTAKES: dict[str, tuple[str, int, tuple[str | int, ...], str | None, str | None, str | None]] = {
    "unknown layer": (
        HEAD + "  - {type: dence, units: 3}\n",
        3,
        ("layers", 0, "type"),
        "dence",
        "dense",
        "did you mean 'dense'?",
    ),
    "layer without a type": (HEAD + "  - {units: 3}\n", 3, ("layers", 0), "{'units': 3}", None, None),
    "misspelt field": (
        HEAD + "  - type: dense\n    unit: 3\n",
        4,
        ("layers", 0, "unit"),
        "unit",
        "units",
        "did you mean 'units'?",
    ),
    "misspelt field beside a reference": (
        "arguments: {w: 2}\n" + HEAD + "  - {type: dense, units: $w, use_bais: false}\n",
        4,
        ("layers", 0, "use_bais"),
        "use_bais",
        "use_bias",
        "did you mean 'use_bias'?",
    ),
    "misspelt field of the model": (
        "nmae: m\n" + HEAD + "  - {type: relu}\n",
        1,
        ("nmae",),
        "nmae",
        "name",
        "did you mean 'name'?",
    ),
    "missing field": (HEAD + "  - {type: dense}\n", 3, ("layers", 0, "units"), None, None, None),
    "wrong type": (HEAD + "  - {type: dense, units: many}\n", 3, ("layers", 0, "units"), "'many'", None, None),
    "fraction for a count": (HEAD + "  - {type: dense, units: 2.5}\n", 3, ("layers", 0, "units"), "2.5", None, None),
    "list for a word": (
        HEAD + "  - {type: dense, units: 2, name: [a]}\n",
        3,
        ("layers", 0, "name"),
        "['a']",
        None,
        None,
    ),
    "negative size": (HEAD + "  - {type: dense, units: -3}\n", 3, ("layers", 0, "units"), "-3", None, None),
    "negative size of an input": (
        "inputs:\n  x:\n    shape: [4, -1]\nlayers: [{type: relu}]\n",
        3,
        ("inputs", "x", "shape", 1),
        "-1",
        None,
        None,
    ),
    "negative kernel": (
        HEAD + "  - {type: conv2d, filters: 2, kernel_size: [3, -1]}\n",
        3,
        ("layers", 0, "kernel_size", 1),
        "-1",
        None,
        None,
    ),
    "rate above one": (HEAD + "  - {type: dropout, rate: 1.5}\n", 3, ("layers", 0, "rate"), "1.5", None, None),
    "unknown word": (
        HEAD + "  - {type: gelu, approximate: tahn}\n",
        3,
        ("layers", 0, "approximate"),
        "'tahn'",
        "tanh",
        "did you mean 'tanh'?",
    ),
    "unknown activation": (
        HEAD + "  - {type: dense, units: 2, activation: rleu}\n",
        3,
        ("layers", 0, "activation"),
        "'rleu'",
        "relu",
        "did you mean 'relu'?",
    ),
    "unknown initialiser": (
        HEAD + "  - {type: dense, units: 2, kernel_initializer: {type: orthogonl}}\n",
        3,
        ("layers", 0, "kernel_initializer", "type"),
        "orthogonl",
        "orthogonal",
        "did you mean 'orthogonal'?",
    ),
    "no layers": ("inputs: {x: {shape: [4]}}\nlayers: []\n", 2, ("layers",), None, "1 at least", None),
    "layers left out": ("inputs: {x: {shape: [4]}}\n", 1, ("layers",), None, None, None),
    "name that ends in a dot": (HEAD + "  - {type: relu, name: a.}\n", 3, ("layers", 0, "name"), "'a.'", None, None),
    "misspelt field of a use of a block": (
        HEAD + "  - {type: block, block: a, repaet: 2}\n",
        3,
        ("layers", 0, "repaet"),
        "repaet",
        "repeat",
        "did you mean 'repeat'?",
    ),
    "use of no block": (HEAD + "  - {type: block, repeat: 2}\n", 3, ("layers", 0, "block"), None, None, None),
    "use of a number as a block": (
        HEAD + "  - {type: block, block: 3}\n",
        3,
        ("layers", 0, "block"),
        "3",
        "a word",
        None,
    ),
    "not a number": (HEAD + "  - {type: leaky_relu, slope: .nan}\n", 3, ("layers", 0, "slope"), "nan", "finite", None),
    "an empty range": (
        "inputs:\n  x: {shape: [4], low: 2, high: 1}\nlayers: [{type: relu}]\n",
        2,
        ("inputs", "x"),
        "{'shape': [4], 'low': 2, 'high': 1}",
        None,
        None,
    ),
    "an input twice": (
        "inputs: {x: {shape: [4]}}\nblocks:\n  a: {inputs: [p, p], layers: [{type: relu}]}\nlayers: [{type: relu}]\n",
        3,
        ("blocks", "a", "inputs"),
        "['p', 'p']",
        None,
        None,
    ),
    "no outputs": (HEAD + "  - {type: relu}\noutputs: []\n", 4, ("outputs",), "0", "1 at least", None),
    "a mapping as an argument": (
        "arguments: {a: {b: 1}}\n" + HEAD + "  - {type: relu}\n",
        1,
        ("arguments", "a"),
        "{'b': 1}",
        "a whole number or a number or true or false or a word or a list",
        None,
    ),
    "mistake inside a block": (
        "inputs: {x: {shape: [4]}}\nblocks:\n  a:\n    layers:\n      - type: dense\n        units: 0\n"
        "layers: [{type: block, block: a}]\n",
        6,
        ("blocks", "a", "layers", 0, "units"),
        "0",
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place(name: str) -> None:
    text, line, field, found, allowed, hint = MISTAKES[name]
    (problem,) = problems_in(text)
    assert (problem.file, problem.line, problem.field, problem.hint) == ("m.yaml", line, field, hint)
    if found is not None:
        assert problem.found == found
    if allowed is not None:
        assert allowed in str(problem.allowed)
    assert problem.message[0].islower() or problem.message[0] in "'\""


def test_an_unknown_initialiser_by_name_is_told() -> None:
    (problem,) = problems_in(HEAD + "  - {type: dense, units: 2, kernel_initializer: he_nromal}\n")
    assert problem.line == 3
    assert problem.field[:3] == ("layers", 0, "kernel_initializer")
    assert problem.hint == "did you mean 'he_normal'?"
    assert "he_normal" in str(problem.allowed)


def test_a_wrong_padding_is_told_once_with_what_is_allowed() -> None:
    (problem,) = problems_in(HEAD + "  - {type: conv2d, filters: 2, kernel_size: 3, padding: smae}\n")
    assert (problem.line, problem.field) == (3, ("layers", 0, "padding"))
    assert problem.hint == "did you mean 'same'?"
    assert "valid" in str(problem.allowed)


def test_all_mistakes_are_told_at_once() -> None:
    found = problems_in(HEAD + "  - {type: dense, units: -1}\n  - {type: dropout, rate: 2}\n  - {type: rleu}\n")
    assert [problem.line for problem in found] == [3, 4, 5]


@pytest.mark.parametrize("text", ["- 1\n", "word\n", "3\n"])
def test_a_model_is_a_mapping(text: str) -> None:
    (problem,) = problems_in(text)
    assert problem.message == "a ModelSpec is a mapping of fields"
