"""Layers that give integers: the same ones on every backend and in every precision, by hand for a few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance.cases import INTEGER_CASES, Case, case_graph, input_name

from unitrain.backends import BACKENDS, load_backend
from unitrain.backends.contract import Precision, Settings
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.verify.verdict import judge
from unitrain.weights.random import stream

Array = np.ndarray[Any, Any]
PRECISIONS: dict[str, Precision] = {
    "numpy": "float64",
    "torch": "bfloat16",
    "keras": "mixed_float16",
    "onnx": "float16",
}


def integers(case: Case) -> Array:
    """Draw small integers, some below 0, enough of them to meet every edge."""
    return stream(0, "integers", case.label).integers(-2, 7, (64, *case.input_shapes[0]), np.int32)


def expected(case: Case, given: Array) -> Array:
    """Count position by position."""
    layer: Any = case.layer
    if layer.type == "padding_mask":
        return np.array([0 if token == layer.padding else 1 for token in given.ravel()]).reshape(given.shape)
    return np.array([[1 if t < int(length) else 0 for t in range(layer.length)] for length in given.ravel()])


@pytest.mark.parametrize("case", INTEGER_CASES, ids=lambda case: case.label)
@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_are_the_expected_ones(backend: str, case: Case) -> None:
    given = integers(case)
    wanted = expected(case, given)
    assert {*wanted.ravel()} == {0, 1}
    for precision in {"float32", PRECISIONS[backend]}:
        settings = Settings(precision=precision)  # type: ignore[arg-type]  # a Precision
        program = load_backend(backend).compile(case_graph(case), {}, settings)
        np.testing.assert_array_equal(program.activations({input_name("y", 0): given})["y"], wanted)


def masked_model() -> ModelSpec:
    """Tokens and lengths become masks of two recurrent layers."""
    return ModelSpec.model_validate(
        {
            "inputs": {"tokens": {"shape": [6], "dtype": "integer"}, "length": {"shape": [], "dtype": "integer"}},
            "layers": [
                {"type": "padding_mask", "name": "words", "inputs": "tokens"},
                {"type": "length_mask", "name": "steps", "inputs": "length", "length": 6},
                {"type": "embedding", "name": "table", "inputs": "tokens", "vocabulary": 4, "width": 3},
                {"type": "lstm", "name": "read", "units": 4, "mask": "words", "direction": "both"},
                {"type": "gru", "name": "summary", "units": 3, "mask": "steps", "returns": "last"},
                {"type": "dense", "name": "y", "units": 2},
            ],
        }
    )


def test_masks_made_by_layers_reach_recurrent_ones() -> None:
    graph = resolve(masked_model())
    generator = stream(0, "masks")
    weights = {
        name: generator.uniform(-0.5, 0.5, parameter.shape).astype(np.float32)
        for name, parameter in graph.parameters.items()
    }
    inputs = {"tokens": generator.integers(0, 4, (9, 6), np.int32), "length": np.arange(9, dtype=np.int32) % 8}
    dy = generator.normal(size=(9, 2)).astype(np.float32)
    found: dict[tuple[str, str], dict[str, Array]] = {}
    for backend, precision in [("numpy", "float64"), *((name, "float32") for name in BACKENDS)]:
        program = load_backend(backend).compile(graph, weights, Settings(precision=precision))  # type: ignore[arg-type]  # a Precision
        if backend == "onnx":
            found[backend, precision] = {"output": program.predict(inputs)["y"]}
            continue
        outputs, _, by_parameter = program.differentiate(inputs, {"y": dy.astype(precision)})
        found[backend, precision] = {"output": outputs["y"], **by_parameter}
    for (backend, _), tensors in found.items():
        for name, array in tensors.items():
            verdict = judge(array, found["numpy", "float64"][name], found["numpy", "float32"][name])
            assert verdict.passed, f"{backend}, {name}: {verdict}"


def test_a_length_is_one_number_a_sample() -> None:
    spec = {"inputs": {"x": {"shape": [2], "dtype": "integer"}}, "layers": [{"type": "length_mask", "length": 4}]}
    with pytest.raises(InputError, match="needs one number a sample"):
        resolve(ModelSpec.model_validate(spec))
