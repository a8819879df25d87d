"""Mixed precision finds the operators that integers spoil, and restores no others."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from unitrain.cli.main import main

CLASSES, WIDTH, SAMPLES = 4, 64, 6000


def chain(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write ``Gemm`` and ``Relu`` three times, the last without ``Relu``; kernels ``w0``, ``b0``, ..."""
    nodes, last = [], "x"
    for number in range(3):
        result = "y" if number == 2 else f"h{number}"
        inputs = [last, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Gemm", inputs, [result], name=f"product{number}"))
        if number < 2:
            nodes.append(helper.make_node("Relu", [result], [f"r{number}"]))
        last = f"r{number}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def outlying_activation(arrays: dict[str, np.ndarray]) -> None:
    """One unit of the middle layer is always large, and the last layer takes that off again."""
    arrays["b1"][5] = 3000.0
    arrays["w2"][5] = 0.01
    arrays["b2"] -= 30.0


def outlying_weight(arrays: dict[str, np.ndarray]) -> None:
    """In each column of the middle kernel one weight is large, of a unit that is always small."""
    arrays["w0"][:, 5] = 0.0
    arrays["b0"][5] = 1e-3
    arrays["w1"][5] = 500.0


@pytest.mark.parametrize(
    ("spoil", "spoilt"), [(outlying_activation, {"product1", "product2"}), (outlying_weight, {"product1"})]
)
def test_what_integers_spoil_is_found_and_restored(spoil, spoilt, tmp_path, capsys):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, SAMPLES)
    x = np.eye(WIDTH)[labels] + np.abs(generator.normal(0, 0.1, (SAMPLES, WIDTH)))
    arrays = {
        "w0": np.eye(WIDTH),
        "b0": np.zeros(WIDTH),
        "w1": np.eye(WIDTH),
        "b1": np.zeros(WIDTH),
        "w2": np.eye(WIDTH, CLASSES),
        "b2": np.zeros(CLASSES),
    }
    spoil(arrays)
    chain(tmp_path / "m.onnx", arrays)
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["label"], *([label] for label in labels)])
    files = ["--data", str(tmp_path / "x.npz"), "--labels", str(tmp_path / "labels.csv")]
    options = ["--variants", "int8,mixed", "--rounds", "5", "--out", str(tmp_path / "s"), "--json"]
    with pytest.raises(SystemExit) as caught:
        main(["study", str(tmp_path / "m.onnx"), *files, *options])
    assert not caught.value.code
    found = json.loads(capsys.readouterr().out)
    plain, mixed = found["rows"][1:]
    assert plain["test"]["value"]["value"] < 0.6
    assert plain["test"]["verdict"] == "inferior"
    worst = [item["node"] for item in found["sensitivity"]]
    assert set(worst[: len(spoilt)]) == spoilt
    assert mixed["failure"] == ""
    assert mixed["notes"][-1] == f"mixed: {len(spoilt)} of 3 products stay in float: {', '.join(worst[: len(spoilt)])}"
    assert mixed["coverage"] == f"{3 - len(spoilt)}/3"
    assert mixed["test"]["value"]["value"] > 0.99
    assert mixed["test"]["verdict"] == "not inferior"
