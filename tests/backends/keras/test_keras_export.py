"""Files that Keras writes: every layer, loaded where none of our code is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conformance.cases import CASES, case_graph, case_inputs, case_weights

from unitrain.backends.contract import Settings
from unitrain.backends.keras import export, standalone
from unitrain.backends.numpy import BACKEND as NUMPY
from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize

# One case of each layer, and all of those for which Keras lacks something.
OURS = (
    *("pool", "padding", "conv", "rms_norm", "upsample", "gelu", "selu", "relu", "hard", "dropout", "resize", "scale"),
    "gru",
)
FIRST = {case.layer.type: case for case in reversed(CASES)}
CHOSEN = [case for case in CASES if case is FIRST[case.layer.type] or any(word in case.layer.type for word in OURS)]

LOAD = """
import json, sys
sys.modules["unitrain"] = None  # whatever imports it fails
import keras, numpy as np
arrays = np.load(sys.argv[2])
model = keras.models.load_model(sys.argv[1], safe_mode=True)
found = model({name: arrays[name] for name in arrays.files}, training=False)
print("FOUND", json.dumps({name: np.asarray(value).tolist() for name, value in found.items()}))
"""


def suite(cases):
    """Put many layers, each with inputs of its own, into one model."""
    inputs, layers, outputs, given = {}, [], [], {}
    for number, case in enumerate(cases):
        names = []
        for position, (name, array) in enumerate(case_inputs(case).items()):
            given[f"x{number}_{position}"] = array
            inputs[f"x{number}_{position}"] = case_graph(case).inputs[name].model_dump()
            names.append(f"x{number}_{position}")
        sides = {field: list(given) for field, given in case.layer.sides(names).items()}
        main = names[: len(names) - sum(map(len, sides.values()))]
        layers.append({**case.layer.to_plain(), "name": f"y{number}", "inputs": main, **sides})
        outputs.append(f"y{number}")
    graph = resolve(ModelSpec.model_validate({"inputs": inputs, "layers": layers, "outputs": outputs}))
    return graph, initialize(graph, 3), given


def test_every_layer_loads_in_a_process_without_our_code(tmp_path):
    graph, weights, inputs = suite(CHOSEN)
    path = tmp_path / "all.keras"
    assert export.write_keras(graph, weights, path) == []
    np.savez(tmp_path / "inputs.npz", **inputs)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), str(tmp_path / "inputs.npz")],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.rpartition("FOUND")[2])
    wanted = NUMPY.compile(graph, weights, Settings(precision="float64")).predict(inputs)
    for number, case in enumerate(CHOSEN):
        right = wanted[f"y{number}"]
        error = np.abs(np.asarray(found[f"y{number}"]) - right).max()
        assert error <= 3e-6 * (1 + np.abs(right).max()), case.label


def test_windows_that_see_zeros_alone_do_not_end_the_process_of_who_loads_the_file(tmp_path):
    """TensorFlow joins zeros and convolution where it compiles, as `predict` does, and died with one sample."""
    conv = {"type": "conv2d", "kernel_size": 2, "strides": 3, "padding": [[1, 0], [1, 2]], "filters": 2}
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [2, 2, 1]}}, "layers": [conv]}))
    weights, image = initialize(graph, 0), np.ones((1, 2, 2, 1), np.float32)
    path = tmp_path / "zeros.keras"
    export.write_keras(graph, weights, path)
    predict = (
        "import keras, numpy as np\n"
        f"model = keras.models.load_model({str(path)!r})\n"
        "for _ in range(10):\n"
        "    found = model.predict(np.ones((1, 2, 2, 1), np.float32), verbose=0)\n"
        "print('FOUND', np.asarray(found).ravel().tolist())\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
    done = subprocess.run([sys.executable, "-c", predict], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    (right,) = NUMPY.compile(graph, weights, Settings(precision="float64")).predict({"x": image}).values()
    assert json.loads(done.stdout.rpartition("FOUND")[2]) == pytest.approx(right.ravel().tolist(), abs=1e-6)


def test_every_layer_of_ours_has_a_counterpart():
    """A layer that the export does not know would need an import to be loaded."""
    from unitrain.backends.keras import model, recurrent, registry  # noqa: F401  # registers all of them

    # Models of 16 bits alone have these, and none is exported.
    of_16_bits = {thing for thing in registry.WIDE.values() if isinstance(thing, type)}
    of_16_bits |= {registry.Bias, recurrent.WidePolicy}
    ours = {thing for name, thing in keras.saving.get_custom_objects().items() if name.startswith("unitrain>")}
    # Those that round their kernels are exported as their parents, with rounded kernels.
    ours -= {thing for thing in ours if isinstance(thing, type) and issubclass(thing, registry.QuantizedKernel)}
    assert ours > of_16_bits
    assert ours - of_16_bits <= standalone.LAYERS.keys() | standalone.OPERATIONS.keys()


def test_a_layer_that_keras_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, "OPERATIONS", {})
    case = next(case for case in CASES if case.layer.type == "leaky_relu")
    graph = case_graph(case)
    path = tmp_path / "x.keras"
    assert export.write_keras(graph, case_weights(case), path) == ["unitrain>LeakyReLU"]


def test_a_layer_called_like_an_operation_of_keras(tmp_path):
    """Keras numbers its operations, and no two things in a model may have one name."""
    names = ["add", "multiply", "where", "greater", "add_1", "multiply_1", "where_1"]
    graph = resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"x": {"shape": [3]}},
                "layers": [
                    *({"type": "leaky_relu", "name": name} for name in names),
                    {"type": "gelu", "name": "erf"},
                ],
            }
        )
    )
    keras.backend.clear_session()  # numbers begin anew: the names are met
    export.write_keras(graph, {}, tmp_path / "x.keras")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    found = export.load_keras(tmp_path / "x.keras", graph)({"x": x})
    wanted = NUMPY.compile(graph, {}, Settings(precision="float64")).predict({"x": x})
    np.testing.assert_allclose(found["erf"], wanted["erf"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_saved_model_takes_and_gives_names(tmp_path, precision):
    import tensorflow as tf

    graph = resolve(
        ModelSpec.model_validate(
            {
                "inputs": {"left": {"shape": [3]}, "index": {"shape": [2], "dtype": "integer"}},
                "layers": [
                    {"type": "embedding", "name": "table", "inputs": ["index"], "vocabulary": 5, "width": 3},
                    {"type": "flatten", "name": "flat"},
                    {"type": "concatenate", "name": "both", "inputs": ["flat", "left"]},
                    {"type": "batch_norm", "name": "norm"},
                    {"type": "dense", "name": "b", "units": 2},
                    {"type": "gelu", "name": "a", "inputs": ["norm"]},
                ],
                "outputs": ["b", "a"],
            }
        )
    )
    weights = {name: array.astype(precision) for name, array in initialize(graph, 1).items()}
    export.write_saved_model(graph, weights, tmp_path / "model", precision=precision)
    signature = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    assert {name: spec.shape.as_list() for name, spec in specs.items()} == {"left": [None, 3], "index": [None, 2]}
    assert {spec.dtype.name for spec in specs.values()} == {precision, "int32"}
    generator = np.random.default_rng(0)
    inputs = {
        "left": generator.normal(size=(5, 3)).astype(precision),
        "index": generator.integers(0, 5, (5, 2)).astype("int32"),
    }
    found = export.load_saved_model(tmp_path / "model", graph)(inputs)
    wanted = NUMPY.compile(graph, weights, Settings(precision="float64")).predict(inputs)
    assert list(found) == ["b", "a"]
    for name, array in found.items():
        assert array.dtype == precision
        np.testing.assert_allclose(array, wanted[name], rtol=3e-6 if precision == "float32" else 1e-14, atol=1e-7)
