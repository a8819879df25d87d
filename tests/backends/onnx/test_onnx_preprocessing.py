"""Preprocessing as ONNX operators: against plain NumPy, row by row."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from unitrain.backends.contract import Settings
from unitrain.backends.numpy import BACKEND as NUMPY
from unitrain.backends.onnx import export, opsets
from unitrain.backends.onnx.preprocessing import (
    Categories,
    ClassNames,
    Feature,
    Integers,
    Numbers,
    Pixels,
    Preprocessing,
    Units,
)
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

NAN = float("nan")


def model(inputs, layers, outputs=None):
    return resolve(ModelSpec.model_validate({"inputs": inputs, "layers": layers, "outputs": outputs}))


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def passing(tmp_path, feature, width, dtype="float", opset=21):
    """A model that gives its input out, with one feature before it: what is prepared can be seen."""
    layers = [{"type": "reshape", "name": "y", "shape": [width]}]
    if dtype == "integer":
        layers = [{"type": "embedding", "name": "y", "vocabulary": 4, "width": 1}]
    graph = model({"x": {"shape": [width], "dtype": dtype}}, layers)
    weights = {name: np.array([[0.0], [10.0], [20.0], [30.0]], "f") for name in graph.parameters}
    path = tmp_path / "x.onnx"
    described = Preprocessing({"x": (feature,)}, {"y": Units()})
    export.write_onnx(graph, weights, path, opset=opset, preprocessing=described)
    run = session(path)
    return lambda values: run.run(["y"], {feature.name: values})[0].reshape(len(values), -1)


def test_numbers_are_scaled_in_float64(tmp_path):
    """2001.25 less 2000 in float32 of the raw number would lose nothing; 1e9 + 0.25 less 1e9 would lose all."""
    run = passing(tmp_path, Feature("a column", Numbers((1e9,), (0.5,))), 1)
    np.testing.assert_array_equal(run(np.array([1e9 + 0.25, 1e9, 1e9 - 2.0])), [[0.5], [0.0], [-4.0]])


def test_missing_numbers_are_filled_before_scaling_or_refuse_the_row(tmp_path):
    filled = passing(tmp_path, Feature("a", Numbers((10.0,), (2.0,), fill=(14.0,))), 1)
    np.testing.assert_array_equal(filled(np.array([NAN, 12.0])), [[2.0], [1.0]])
    refused = passing(tmp_path, Feature("a", Numbers((10.0,), (2.0,))), 1)
    np.testing.assert_array_equal(refused(np.array([NAN, 12.0, np.inf, 1e300])), [[NAN], [1.0], [NAN], [NAN]])


def test_arrays_of_numbers_have_a_shift_for_each_last_entry(tmp_path):
    run = passing(tmp_path, Feature("a", Numbers((1.0, 2.0), (1.0, 4.0), shape=(3, 2))), 6)
    values = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(run(values), ((values - [1, 2]) / [1, 4]).reshape(2, 6))
    values[1, 2, 0] = NAN
    assert np.isnan(run(values)[1]).all()
    assert np.isfinite(run(values)[0]).all()


@pytest.mark.parametrize(
    ("unseen", "paris", "missing"), [(-1, [NAN] * 3, [0, 1, 0]), (3, [0, 0, 0], [0, 1, 0])], ids=["error", "ignore"]
)
def test_categories_become_columns(tmp_path, unseen, paris, missing):
    codes = {"Basel": 0, "Bern": 1, "Zürich": 2, "": 1, "NA": 1, "?": -1}
    run = passing(tmp_path, Feature("city", Categories(codes, 3, one_hot=True, unseen=unseen)), 3)
    words = np.array(["Zürich", "Paris", "", "NA", "?"], dtype=object)
    np.testing.assert_array_equal(run(words), [[0, 0, 1], paris, missing, missing, [NAN] * 3])


def test_categories_become_codes_of_an_embedding(tmp_path):
    codes = {"a": 0, "b": 1, "c": 2}
    run = passing(tmp_path, Feature("plan", Categories(codes, 3, one_hot=False, unseen=3)), 1, "integer")
    np.testing.assert_array_equal(run(np.array(["c", "x", "b"], dtype=object)), [[20.0], [30.0], [10.0]])


def test_indices_outside_the_table_refuse_the_row(tmp_path):
    run = passing(tmp_path, Feature("id", Integers(0, 4)), 1, "integer")
    given = np.array([3.0, -1.0, 4.0, 1.5, NAN, 1e12, 0.0])
    np.testing.assert_array_equal(run(given), [[30.0], [NAN], [NAN], [NAN], [NAN], [NAN], [0.0]])


def test_pixels_are_scaled_by_channel(tmp_path):
    run = passing(tmp_path, Feature("image", Pixels((255.0, 51.0), (0.0, 1.0), (1, 2, 2))), 4)
    pixels = np.array([[[[255, 0], [51, 255]]]], dtype=np.uint8)
    np.testing.assert_allclose(run(pixels), [[1.0, -1.0, 0.2, 4.0]], rtol=1e-7)


@pytest.mark.parametrize("opset", [opsets()[0], 18, opsets()[-1]])
def test_classes_and_units_at_any_opset(tmp_path, opset):
    """Names that meet everywhere: a column called like a layer, an input, an inner tensor."""
    graph = model(
        {"age": {"shape": [3]}},
        [
            {"type": "dense", "name": "city", "units": 3},
            {"type": "dense", "name": "one", "units": 1, "inputs": ["age"]},
            {"type": "dense", "name": "price", "units": 1, "inputs": ["age"]},
        ],
        ["city", "one", "price"],
    )
    weights = initialize(graph, 2)
    columns = (
        Feature("age", Numbers((40.0,), (10.0,))),
        Feature("one.logit", Numbers((0.0,), (1.0,))),
        Feature("age.preprocessed", Numbers((0.0,), (1.0,))),
    )
    targets = {
        "city": ClassNames(("Bern", "Basel", "Zürich")),
        "one": ClassNames(("no", "yes"), binary=True),
        "price": Units((5e5,), (1e4,)),
    }
    path = tmp_path / "x.onnx"
    export.write_onnx(graph, weights, path, opset=opset, preprocessing=Preprocessing({"age": columns}, targets))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    run = session(path)
    assert {item.name: item.type for item in run.get_inputs()} == {
        "age": "tensor(double)",
        "one.logit": "tensor(double)",
        "age.preprocessed": "tensor(double)",
    }
    generator = np.random.default_rng(0)
    raw = generator.normal(size=(6, 3)) * [10, 1, 1] + [40, 0, 0]
    raw[4, 1] = NAN
    names = [item.name for item in run.get_outputs()]
    given = {feature.name: raw[:, index] for index, feature in enumerate(columns)}
    found = dict(zip(names, run.run(None, given), strict=True))
    prepared = (raw - [40, 0, 0]) / [10, 1, 1]
    right = NUMPY.compile(graph, weights, Settings(precision="float64")).predict({"age": prepared})
    logits, one, price = right["city"], right["one"][:, 0], right["price"][:, 0]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sigmoid = 1 / (1 + np.exp(-one))
    np.testing.assert_allclose(found["city"], logits, rtol=1e-5)
    np.testing.assert_allclose(found["city.probabilities"], shares, rtol=1e-5)
    np.testing.assert_allclose(found["one.probabilities"], np.stack([1 - sigmoid, sigmoid], 1), rtol=1e-5)
    np.testing.assert_allclose(found["price.prediction"], price * 1e4 + 5e5, rtol=1e-6)
    kept = np.array([True, True, True, True, False, True])
    words = np.where(kept, np.array(["Bern", "Basel", "Zürich"])[shares.argmax(1)], "")
    assert found["city.prediction"].tolist() == words.tolist()
    assert found["one.prediction"].tolist() == np.where(kept, np.where(one > 0, "yes", "no"), "").tolist()
    assert json.loads(run.get_modelmeta().custom_metadata_map["city.classes"]) == ["Bern", "Basel", "Zürich"]


def test_neighbouring_columns_are_scaled_at_once(tmp_path):
    graph = model({"x": {"shape": [30]}}, [{"type": "dense", "name": "y", "units": 2}])
    columns = tuple(Feature(f"c{index}", Numbers((float(index),), (2.0,))) for index in range(30))
    described = Preprocessing({"x": columns}, {"y": ClassNames(("a", "b"))})
    export.write_onnx(graph, initialize(graph, 0), tmp_path / "x.onnx", preprocessing=described)
    kinds = [node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node]
    assert kinds.count("Div") == 1
    assert len(kinds) <= 30 + 20  # an axis for each column, and the rest for all of them


def test_what_onnx_cannot_say_is_an_error(tmp_path):
    graph = model(
        {"a": {"shape": [1]}, "b": {"shape": [1], "dtype": "integer"}},
        [
            {"type": "embedding", "name": "e", "inputs": ["b"], "vocabulary": 3, "width": 2},
            {"type": "flatten", "name": "f"},
            {"type": "concatenate", "name": "y", "inputs": ["a", "f"]},
        ],
    )
    number = Feature("c", Numbers((0.0,), (1.0,)))
    word = Feature("c", Categories({"a": 0}, 1, one_hot=False))
    path = tmp_path / "x.onnx"
    with pytest.raises(InputError, match="different kinds of values"):
        export.write_onnx(
            graph, initialize(graph, 0), path, preprocessing=Preprocessing({"a": (number,), "b": (word,)})
        )
    named = Feature("y", Numbers((0.0,), (1.0,)))
    with pytest.raises(InputError, match="name of an output"):
        export.write_onnx(graph, initialize(graph, 0), path, preprocessing=Preprocessing({"a": (named,), "b": (word,)}))
    assert not path.exists()
