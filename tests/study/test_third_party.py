"""Anybody's ONNX files: what is repaired, what is explained, and what samples become."""

from __future__ import annotations

import csv
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from unitrain.backends.onnx.anatomy import anatomy, macs, opset, read_model, sizes
from unitrain.backends.onnx.deployed import deploy
from unitrain.backends.onnx.posttraining import Static, static_int8
from unitrain.backends.onnx.reduced import dynamic_int8, weights_only
from unitrain.backends.onnx.repair import gemm_to_matmul, repair
from unitrain.cli.main import main
from unitrain.spec.errors import InputError
from unitrain.study.third_party import Given, from_file


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.2, shape).astype(np.float32)


def save(path, nodes, inputs, outputs, initialisers=(), version=17):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(array, name) for name, array in initialisers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
    onnx.save(model, path)
    return path


def classifier(path, version=17, constants=False, classes=3):
    """A convolution, global pooling and a product; weights as initialisers or in Constant nodes."""
    held = [("k", weights(8, 3, 3, 3)), ("w", weights(8, classes, seed=1))]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    if constants:
        nodes = [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)) for name, array in held
        ] + nodes
        held = []
    inputs = [("x", TensorProto.FLOAT, ["n", 3, "h", "w_"])]
    return save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["n", classes])], held, version)


def gru(path):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "w", "r"], ["", "h"], hidden_size=6),
        helper.make_node("Transpose", ["h"], ["s"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["s"], ["y"]),
    ]
    held = [("w", weights(1, 18, 4)), ("r", weights(1, 18, 6))]
    inputs = [("x", TensorProto.FLOAT, ["n", 5, 4])]
    return save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["n", 6])], held)


def test_constants_are_lifted_and_old_opsets_raised(tmp_path):
    model = read_model(classifier(tmp_path / "old.onnx", version=11, constants=True))
    assert anatomy(model).constant_weights == 8 * 3 * 9 + 24
    repaired = repair(model)
    assert opset(repaired.model) == 17
    assert "weights in 2 Constant nodes were made initialisers" in repaired.notes[0]
    assert "opset 11 was raised to 17" in repaired.notes[1]
    x = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)
    onnx.save(repaired.model, tmp_path / "new.onnx")
    before, after = (deploy(tmp_path / name).run({"x": x})["y"] for name in ("old.onnx", "new.onnx"))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    quantised = static_int8(repaired.model, [{"x": x}], Static())
    assert anatomy(quantised).quantised > 4


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("batches", [1, 4, 8])
def test_any_number_of_batches_calibrates(tmp_path, batches, calibration):
    x = np.random.default_rng(3).normal(size=(batches, 2, 3, 8, 8)).astype(np.float32)
    prepared = repair(read_model(classifier(tmp_path / "m.onnx"))).model
    quantised = static_int8(prepared, [{"x": one} for one in x], Static(calibration=calibration))
    scales = {item.name: numpy_helper.to_array(item) for item in quantised.graph.initializer}
    if calibration == "minmax":
        # The range of the input over all batches, 0 in it, in 255 steps.
        assert scales["x_scale"] == pytest.approx((x.max() - x.min()) / 255, rel=1e-5)


def test_an_old_opset_that_stays_is_refused_by_channel(tmp_path):
    model = read_model(classifier(tmp_path / "old.onnx", version=11))
    with pytest.raises(InputError, match="opset 11 knows no quantisation per channel"):
        static_int8(model, [{"x": np.zeros((1, 3, 8, 8), np.float32)}], Static())


def test_work_is_counted(tmp_path):
    model = read_model(classifier(tmp_path / "m.onnx"))
    assert macs(model, {"x": np.zeros((2, 3, 6, 5), np.float32)}) == 2 * (6 * 5 * 8 * 27 + 8 * 3)
    assert macs(read_model(gru(tmp_path / "g.onnx")), {"x": np.zeros((2, 5, 4), np.float32)}) == 5 * 2 * 18 * 10


def test_sizes_count_zeros(tmp_path):
    path = classifier(tmp_path / "m.onnx")
    found = sizes(path)
    assert found.numbers == found.non_zeros == 216 + 24
    assert found.weights == 4 * 240
    model = onnx.load(path)
    array = numpy_helper.to_array(model.graph.initializer[0]).copy()
    array[:4] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "k"))
    onnx.save(model, path)
    assert sizes(path).non_zeros == 240 - 108


def test_gemm_becomes_matmul_with_the_same_numbers(tmp_path):
    held = [("w", weights(5, 4)), ("b", weights(5, seed=1))]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, name="g")]
    path = save(
        tmp_path / "g.onnx", nodes, [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n", 5])], held
    )
    written, count = gemm_to_matmul(read_model(path))
    assert count == 1
    onnx.save(written, tmp_path / "m.onnx")
    x = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)
    found = deploy(tmp_path / "m.onnx").run({"x": x})["y"]
    np.testing.assert_allclose(found, x @ held[0][1].T + held[1][1], rtol=1e-5)
    assert anatomy(written).operators == {"Add": 1, "MatMul": 1}


def test_a_quantised_file_is_recognised(tmp_path):
    prepared = repair(read_model(classifier(tmp_path / "m.onnx"))).model
    quantised = static_int8(prepared, [{"x": np.ones((1, 3, 8, 8), np.float32)}], Static())
    for make in (dynamic_int8, lambda model: weights_only(model, 8), lambda model: static_int8(model, [], Static())):
        with pytest.raises(InputError, match="quantised already"):
            make(quantised)


def study(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["study", *map(str, arguments), "--rounds", "5", "--json"])
    printed = capsys.readouterr()
    return caught.value.code or 0, json.loads(printed.out) if printed.out.startswith("{") else {}, printed.err


def test_a_gru_that_nothing_quantises_is_a_row_with_its_reason(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(40, 5, 4)).astype(np.float32))
    options = ("--calib", tmp_path / "x.npz", "--variants", "int8,int8-dynamic", "--out", tmp_path / "s")
    code, found, _ = study(capsys, gru(tmp_path / "g.onnx"), *options)
    assert code == 0
    assert found["kind"] == "fidelity"
    base, static, dynamic = found["rows"]
    assert base["size"]["macs"] == 5 * 18 * 10
    assert "onnxruntime executes nothing in integers: 1 GRU; it has no int8 form of GRU" in static["failure"]
    assert dynamic["failure"] == "dynamic int8 is for MatMul, Gemm, LSTM, Attention; the model has 1 GRU"
    assert found["recommended"] == "fp32"


def test_samples_on_another_axis_are_refused(tmp_path, capsys):
    held = [("w", weights(4, 4))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Transpose", ["z"], ["y"])]
    inputs = [("x", TensorProto.FLOAT, ["n", 4])]
    path = save(tmp_path / "t.onnx", nodes, inputs, [("y", TensorProto.FLOAT, [4, "n"])], held)
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 4), np.float32) + np.arange(9)[:, None])
    code, _, err = study(capsys, path, "--calib", tmp_path / "x.npz", "--out", tmp_path / "s")
    assert code == 2
    assert "the output 'y' has not the samples on its first axis" in err
    assert not (tmp_path / "s").exists()


def test_random_inputs_are_speed_only(tmp_path, capsys):
    path = classifier(tmp_path / "m.onnx", version=12, constants=True)
    code, found, _ = study(capsys, path, "--variants", "int8,int8-dynamic,mixed,pruned-50", "--out", tmp_path / "s")
    assert code == 0
    assert found["kind"] == "speed only"
    assert found["recommended"] == ""
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["int8"]["test"] is None
    assert rows["int8"]["coverage"] == "2/2"
    assert rows["mixed"]["failure"] == "inputs are random: there is no quality by which operators could be ranked"
    assert rows["pruned-50"]["failure"] == "it rewrites the graph of a trained run, and this is an ONNX file"
    assert any("sizes that the file leaves open were taken as x [3, 224, 224]" in note for note in found["notes"])


def test_pictures_with_labels_are_accuracy(tmp_path, capsys):
    rng = np.random.default_rng(1)
    path, names = classifier(tmp_path / "m.onnx"), ["a", "b", "c"]
    pixels = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:02}.png")
    x = np.moveaxis((pixels[..., ::-1] / 255.0 - 0.5) / 0.25, -1, 1).astype(np.float32)
    right = deploy(path).run({"x": x})["y"].argmax(axis=1)
    labels = right.copy()
    labels[::4] = (labels[::4] + 1) % 3
    with (tmp_path / "labels.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows([["file", "label"], *([f"{n:02}.png", names[label]] for n, label in enumerate(labels))])
    (tmp_path / "pre.yaml").write_text("size: [8, 8]\nchannels: bgr\nmean: [0.5]\nstd: [0.25]\nclasses: [a, b, c]\n")
    options = (
        "--data",
        tmp_path / "images",
        "--labels",
        tmp_path / "labels.csv",
        "--preprocess",
        tmp_path / "pre.yaml",
    )
    code, found, _ = study(capsys, path, *options, "--variants", "int8-tensor", "--out", tmp_path / "s")
    assert code == 0
    assert found["kind"] == "accuracy"
    counts = found["splits"]["counts"]
    both = sum(round(found["rows"][0][part]["value"]["value"] * counts[part]) + 0 for part in ("selection", "test"))
    # All but the fifteen labels that were changed are right; those among the calibration samples are not counted.
    assert counts == {"calibration": 20, "selection": 20, "test": 20}
    assert 40 - 15 <= both <= 40


def test_a_label_that_is_no_class_is_named(tmp_path, capsys):
    path = classifier(tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(30, 3, 8, 8)).astype(np.float32))
    (tmp_path / "labels.csv").write_text("label\n" + "0\n" * 29 + "7\n")
    with pytest.raises(InputError, match="a label is no class of the model"):
        from_file(path, Given(tmp_path / "x.npz", tmp_path / "labels.csv"), 8, seed=0)
    (tmp_path / "labels.csv").write_text("lable\n" + "0\n" * 30)
    with pytest.raises(InputError) as caught:
        from_file(path, Given(tmp_path / "x.npz", tmp_path / "labels.csv"), 8, seed=0)
    assert caught.value.problems[0].hint == "did you mean 'lable'?"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros((9, 3, 8, 8), np.float32), "q": np.zeros(9)}, "no key 'x', which the model reads"),
        ({"x": np.zeros((9, 4, 8, 8), np.float32)}, "the samples do not fit the input 'x'"),
        ({"x": np.full((9, 3, 8, 8), "a")}, "the key 'x' holds another kind of numbers"),
        ({"x": np.zeros((2, 3, 8, 8), np.float32)}, "too few samples to divide"),
    ],
)
def test_samples_that_do_not_fit_are_refused(tmp_path, arrays, message):
    path = classifier(tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=message):
        from_file(path, Given(calib=tmp_path / "x.npz"), 8, seed=0)


def test_calibration_samples_among_the_data_are_refused(tmp_path):
    path = classifier(tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(30, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "calib.npz", x=x[4:6])
    with pytest.raises(InputError, match="samples are not apart from the calibration samples"):
        from_file(path, Given(data=tmp_path / "x.npz", calib=tmp_path / "calib.npz"), 8, seed=0)


def test_what_is_no_model_is_refused(tmp_path, capsys):
    (tmp_path / "no.onnx").write_bytes(b"\x08\x07 not a model")
    code, _, err = study(capsys, tmp_path / "no.onnx")
    assert code == 2
    assert "this is no ONNX model" in err
