"""Weights inside the branches of an ``If``: repaired where the condition never changes, else told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

from unitrain.backends.onnx.anatomy import anatomy
from unitrain.backends.onnx.deployed import deploy
from unitrain.backends.onnx.repair import repair
from unitrain.cli.main import main

WIDTH = 64
X = np.random.default_rng(3).normal(size=(200, WIDTH)).astype(np.float32)


def kernel(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32)


def branch(seed: int, constants: bool) -> GraphProto:
    """One matrix product, its weights an initialiser or in a Constant node."""
    tensor = numpy_helper.from_array(kernel(seed), "w")
    held = [helper.make_node("Constant", [], ["w"], value=tensor)] if constants else []
    return helper.make_graph(
        [*held, helper.make_node("MatMul", ["h", "w"], ["o"])],
        f"branch{seed}",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", WIDTH])],
        [] if constants else [tensor],
    )


def branching(settled: bool, constants: bool) -> onnx.ModelProto:
    """``relu(x)`` times one of two kernels: the first always, or where the sum is above 0."""
    nodes = [helper.make_node("Relu", ["x"], ["h"])]
    held = [numpy_helper.from_array(np.array(True), "always")]
    if not settled:
        held = [numpy_helper.from_array(np.float32(0), "zero")]
        nodes.append(helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0))
        nodes.append(helper.make_node("Greater", ["sum", "zero"], ["above"]))
    condition = "always" if settled else "above"
    branches = {"then_branch": branch(1, constants), "else_branch": branch(2, constants)}
    nodes.append(helper.make_node("If", [condition], ["y"], **branches))
    graph = helper.make_graph(
        nodes,
        "branching",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def studied(model: onnx.ModelProto, names: str, folder: Path, capsys) -> dict[str, dict]:
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "x.npz", x=X)
    options = ["--calib", str(folder / "x.npz"), "--variants", names, "--rounds", "5", "--out", str(folder / "s")]
    with pytest.raises(SystemExit) as caught:
        main(["study", str(folder / "m.onnx"), *options, "--json"])
    assert not caught.value.code
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}


@pytest.mark.parametrize("constants", [False, True])
def test_a_condition_that_never_changes_is_resolved(constants, tmp_path, capsys):
    model = branching(settled=True, constants=constants)
    assert anatomy(model).nested_weights == 2 * WIDTH * WIDTH
    repaired = repair(model)
    assert repaired.notes == ("1 If whose condition never changes became the branch that is taken",)
    assert anatomy(repaired.model).products == {"MatMul": 1}
    assert [item.dims for item in repaired.model.graph.initializer if len(item.dims) == 2] == [[WIDTH, WIDTH]]
    row = studied(model, "int8", tmp_path, capsys)["int8"]
    assert row["failure"] == ""
    assert row["coverage"] == "1/1"
    # Within the range that calibration samples have.
    x = np.clip(X, -1, 1)
    exact = np.maximum(x, 0) @ kernel(1)
    found = deploy(tmp_path / "s" / "int8.onnx").run({"x": x})["y"]
    assert np.abs(found - exact).max() < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("constants", [False, True])
def test_one_that_does_is_told_and_quantised_dynamically(constants, tmp_path, capsys):
    model = branching(settled=False, constants=constants)
    rows = studied(model, "int8,int8-dynamic", tmp_path, capsys)
    assert rows["int8"]["failure"].startswith(
        "int8 coverage: onnxruntime executes nothing in integers: 2 MatMul; 8,192 w"
    )
    assert (
        "8,192 weights stand inside If or Loop bodies, into which its static quantiser does not look"
        in rows["int8"]["failure"]
    )
    assert rows["int8-dynamic"]["failure"] == ""
    assert rows["int8-dynamic"]["coverage"] == "2/2"
    deployed = deploy(tmp_path / "s" / "int8-dynamic.onnx")
    for rows_of, seed in ((X[:1] + 1, 1), (X[:1] - 1, 2)):
        exact = np.maximum(rows_of, 0) @ kernel(seed)
        assert np.abs(deployed.run({"x": rows_of})["y"] - exact).max() < 0.03 * np.abs(exact).max()
