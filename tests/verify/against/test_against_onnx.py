"""A user's ONNX files: written by hand, by our emitter, and by torch with batch norm multiplied away."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from verify.against.against_specs import against, image, small, subject, told
from verify.against.test_against_torch import made

from unitrain.backends.onnx import emit
from unitrain.backends.onnx.foreign import load
from unitrain.spec.errors import InputError

SPEC = (
    {"type": "conv2d", "name": "conv", "filters": 4, "kernel_size": 3, "padding": "same", "strides": 2},
    {"type": "batch_norm", "name": "norm"},
    {"type": "relu", "name": "act"},
    {"type": "average_pool2d", "name": "pool", "kernel_size": 2},
    {"type": "flatten", "name": "flat"},
    {"type": "dense", "name": "hidden", "units": 6, "activation": "relu"},
    {"type": "dense", "name": "logits", "units": 3},
)


def spec():
    return subject(image(8, 8, 2), *SPEC)


def file(folder, *, epsilon=1e-5, pads="SAME_UPPER", counts=0, relu=True, softmax=False, turned=False, swapped=False):
    """A channels-first model, operator by operator."""
    generator = np.random.default_rng(0)

    def drawn(name, *shape):
        return numpy_helper.from_array(generator.uniform(0.05, 0.5, shape).astype(np.float32) - 0.1, name)

    arrays = [drawn("k", 4, 2, 3, 3), drawn("kb", 4), drawn("g", 4), drawn("b", 4), drawn("m", 4)]
    arrays.append(numpy_helper.from_array(generator.uniform(0.5, 1.0, 4).astype(np.float32), "v"))
    arrays += [drawn("w1", 6, 16), drawn("c1", 6), drawn("w2", 6, 3), drawn("c2", 3)]
    arrays.append(numpy_helper.from_array(np.array([0, -1], np.int64), "shape"))
    nodes = [
        helper.make_node(
            "Conv", ["image", "k", "kb"], ["a"], "conv", strides=[2, 2], auto_pad=pads, kernel_shape=[3, 3]
        ),
        helper.make_node("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"], "bn", epsilon=epsilon),
        helper.make_node("Relu" if relu else "Identity", ["n"], ["r"], "relu"),
        helper.make_node("AveragePool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w1", "c1"], ["h"], "fc", transB=1),
        helper.make_node("Relu", ["h"], ["hr"], "relu2"),
        helper.make_node("MatMul", ["hr", "w2"], ["mm"], "mm"),
        helper.make_node("Add", ["mm", "c2"], ["y0" if softmax else "y"], "add"),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["y0"], ["y"], "sm", axis=-1))
    graph = helper.make_graph(
        nodes,
        "user",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        arrays,
    )
    path = folder / "user.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return load(path)


def test_a_channels_first_model_passes(tmp_path):
    report = against(spec(), file(tmp_path))
    assert report.passed, told(report)
    assert {item.name.part for item in report.findings if item.name.isolated} == set(report.layers)
    assert any("flattens channels first" in note for note in report.notes)


@pytest.mark.parametrize(
    ("options", "layer", "words"),
    [
        ({"epsilon": 1e-3}, "norm", "epsilon=0.001"),
        ({"pads": "SAME_LOWER"}, "conv", "odd padded element at the start"),
        ({"relu": False}, "act", "gives its input back unchanged"),
        ({"softmax": True}, "logits", "their model ends in softmax"),
    ],
    ids=str,
)
def test_planted_faults_are_placed_and_named(tmp_path, options, layer, words):
    report = against(spec(), file(tmp_path, **options))
    assert [part for part, _ in told(report)] == [layer]
    assert words in told(report)[0][1]


def test_what_our_emitter_writes_passes(tmp_path):
    given = small()
    onnx.save(emit(given.graph, given.weights), tmp_path / "ours.onnx")
    report = against(given, load(tmp_path / "ours.onnx"), expected_weights=given.weights)
    assert report.passed, told(report)


@pytest.mark.parametrize("folded", [True, False])
def test_what_torch_exports_passes(tmp_path, folded):
    path = tmp_path / "torch.onnx"
    options = {} if folded else {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            made().eval(), torch.zeros(1, 3, 12, 12), path, dynamo=False, opset_version=17, input_names=["image"],
            dynamic_axes={"image": {0: "batch"}}, **options,
        )  # fmt: skip
    report = against(small(), load(path))
    assert report.passed, told(report)
    assert any("folded" in note and "bn1" in note for note in report.notes) == folded


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not protobuf at all")
    with pytest.raises(InputError, match="not a valid ONNX model"):
        load(path)
