"""Sums of two products that saturate: by hand, by 16-bit arithmetic in loops, beside what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from unitrain.backends.onnx.deployed import deploy
from unitrain.backends.onnx.posttraining import Static, static_int8
from unitrain.backends.onnx.repair import repair
from unitrain.backends.onnx.saturation import predictions, saturating_product
from unitrain.study.quality import Task
from unitrain.study.saturation import changed
from unitrain.study.splits import Samples


def test_the_largest_pairs_are_cut_off():
    a = np.full((1, 6), 255, np.uint8)
    b = np.full((6, 1), 127, np.int8)
    # Three pairs, each 2 * 255 * 127 = 64770, cut to 32767; of negative ones to -32768.
    assert saturating_product(a, b).item() == 3 * 32767
    assert saturating_product(a, -b).item() == 3 * -32768
    # One alone fits: 255 * 127 = 32385.
    assert saturating_product(a[:, :5], b[:5]).item() == 2 * 32767 + 32385


def test_it_is_what_16_bits_give():
    generator = np.random.default_rng(0)
    a = generator.integers(150, 256, (7, 9)).astype(np.uint8)
    b = generator.integers(-128, 128, (9, 40)).astype(np.int8)
    slow = np.zeros((7, 40), int)
    for row in range(7):
        for column in range(40):
            products = [int(x) * int(y) for x, y in zip(a[row], b[:, column], strict=True)] + [0]
            pairs = zip(products[::2], products[1::2], strict=True)
            slow[row, column] = sum(min(max(first + second, -32768), 32767) for first, second in pairs)
    assert (slow != a.astype(int) @ b.astype(int)).any()
    np.testing.assert_array_equal(saturating_product(a, b), slow)


def test_seven_bits_never_saturate():
    a = np.full((1, 8), 255, np.uint8)
    for weight in (-64, 64):
        b = np.full((8, 1), weight, np.int8)
        assert saturating_product(a, b).item() == 8 * 255 * weight


def network(group: int, **options) -> onnx.ModelProto:
    """A convolution of four channels, ``Relu``, and a ``Gemm`` of the means."""
    generator = np.random.default_rng(1)
    arrays = {
        "k": generator.normal(0, 0.3, (8, 4 // group, 3, 3)),
        "kb": generator.normal(0, 0.3, 8),
        "w": generator.normal(0, 0.3, (5, 8)),
        "b": generator.normal(0, 0.3, 5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], group=group, **options),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 9, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("group", "options"),
    [
        (1, {"pads": [1, 1, 1, 1]}),
        (2, {"strides": [2, 1], "pads": [0, 1, 1, 0]}),
        (4, {"dilations": [2, 1]}),
        (1, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ],
)
def test_without_saturation_it_is_what_onnxruntime_computes(group, options, tmp_path):
    x = np.random.default_rng(2).normal(size=(40, 4, 9, 8)).astype(np.float32)
    # Weights of 7 bits, so that this machine's onnxruntime saturates nowhere, whatever its instructions.
    model = static_int8(repair(network(group, **options)).model, [{"x": x}], Static(reduce_range=True))
    onnx.save(model, tmp_path / "m.onnx")
    right = deploy(tmp_path / "m.onnx").run({"x": x})["y"]
    found = predictions(model, {"x": x}, saturate=True)["y"]
    step = np.ptp(right) / 255
    # Where a result lies between two levels, rounding in another order may choose the other one.
    assert np.abs(found - right).max() < 1.5 * step
    assert np.mean(np.abs(found - right) > step / 2) < 0.1


def pairs_that_saturate(width: int = 256) -> onnx.ModelProto:
    """Class 0 has 1 for the first two inputs, a pair; class 1 has 3/4 for the first and the third, of two pairs."""
    w = np.zeros((width, 2), np.float32)
    w[[0, 1], 0], w[[0, 2], 1] = 1.0, 0.75
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "pairs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_as_many_predictions_change_as_have_both_of_the_pair():
    generator = np.random.default_rng(0)
    x = generator.random((100, 256)).astype(np.float32)
    # With all three 2 > 1.5 becomes 32767 / 32385 < 1.5; with the first alone 1 > 0.75 is no sum.
    x[:, 0], x[:, 1:3] = 1.0, 0.0
    x[:37, 1:3] = 1.0
    samples, task = Samples({"x": x}), Task("y", "classes", labelled=False)
    prepared = repair(pairs_that_saturate()).model
    plain, reduced, unsigned = (
        static_int8(prepared, [{"x": x}], options)
        for options in (Static(), Static(reduce_range=True), Static(per_channel=False, signed_weights=False))
    )
    assert changed(plain, samples, task, None) == (37, 100)
    assert changed(reduced, samples, task, None) == (0, 100)
    assert changed(unsigned, samples, task, None) == (0, 100)
