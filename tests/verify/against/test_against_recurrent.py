"""A user's recurrent layers: torch's and Keras' own, with their two biases and their orders of gates, and ONNX's."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from verify.against.against_specs import against, subject, told

from unitrain.backends.keras.foreign import wrap as wrap_keras
from unitrain.backends.onnx.foreign import wrap as wrap_onnx
from unitrain.backends.torch.foreign import wrap as wrap_torch
from unitrain.spec.yaml import read_yaml

LENGTH, CHANNELS, UNITS = 5, 3, 4
INPUT = {"x": {"shape": [LENGTH, CHANNELS]}}


def spec(kind: str, depth: int = 1, direction: str = "both"):
    below = [
        {"type": kind, "name": f"level{number}", "units": UNITS, "direction": direction} for number in range(depth - 1)
    ]
    last = {"type": kind, "name": "last", "units": UNITS, "direction": direction, "returns": "last"}
    return subject(INPUT, *below, last, {"type": "dense", "name": "logits", "units": 2})


class Reader(nn.Module):
    """Reads a sequence with torch's own module, and classifies it by the last states."""

    def __init__(self, kind, depth=1, both=True, steps_first=False, mistake=""):
        super().__init__()
        torch.manual_seed(1)
        self.rnn = kind(CHANNELS, UNITS, depth, batch_first=not steps_first, bidirectional=both)
        self.head = nn.Linear(UNITS * (1 + both), 2)
        self.both, self.steps_first, self.mistake = both, steps_first, mistake

    def forward(self, x):
        if self.steps_first:
            x = x.transpose(0, 1)
        outputs, state = self.rnn(x)
        state = state[0] if isinstance(state, tuple) else state
        if self.mistake == "last output":  # of the backward direction that is its first step
            return self.head(outputs[:, -1])
        if self.mistake == "directions":
            return self.head(torch.cat([state[-1], state[-2]], 1))
        return self.head(torch.cat([state[-2], state[-1]], 1) if self.both else state[-1])


@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn"])
@pytest.mark.parametrize(("depth", "both", "steps_first"), [(1, False, False), (1, True, True), (2, True, False)])
def test_torch_modules_pass(kind, depth, both, steps_first):
    module = {"lstm": nn.LSTM, "gru": nn.GRU, "simple_rnn": nn.RNN}[kind]
    report = against(
        spec(kind, depth, "both" if both else "forward"), wrap_torch(Reader(module, depth, both, steps_first))
    )
    assert report.passed, told(report)
    # torch has both levels in one operation.
    assert bool(report.notes) == (depth == 2)


@pytest.mark.parametrize("mistake", ["last output", "directions"])
def test_another_state_is_a_fault_of_the_layer(mistake):
    report = against(spec("lstm"), wrap_torch(Reader(nn.LSTM, mistake=mistake)))
    assert [part for part, _ in told(report)] == ["last"]


def test_cells_in_a_loop_pass():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(2)
            self.cell, self.head = nn.LSTMCell(CHANNELS, UNITS), nn.Linear(UNITS, 2)

        def forward(self, x):
            hidden = cell = torch.zeros(len(x), UNITS)
            for step in range(LENGTH):
                hidden, cell = self.cell(x[:, step], (hidden, cell))
            return self.head(hidden)

    report = against(spec("lstm", direction="forward"), wrap_torch(Loop()))
    assert report.passed, told(report)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn"])
def test_keras_layers_pass(kind, unroll):
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}[kind]
    keras.utils.set_random_seed(3)
    x = keras.Input((LENGTH, CHANNELS))
    y = keras.layers.Bidirectional(layer(UNITS, return_sequences=True, unroll=unroll))(x)
    y = keras.layers.Bidirectional(layer(UNITS, unroll=unroll))(y)
    model = keras.Model(x, keras.layers.Dense(2)(y))
    rng = np.random.default_rng(4)
    for variable in model.trainable_variables:  # the biases start at zero or one, where some mistakes would not show
        variable.assign(variable + 0.2 * rng.standard_normal(variable.shape).astype("float32"))
    report = against(spec(kind, 2), wrap_keras(model))
    assert report.passed, told(report)


def test_a_gru_that_resets_before_the_product_has_no_counterpart_for_a_bias():
    x = keras.Input((LENGTH, CHANNELS))
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.GRU(UNITS, reset_after=False)(x)))
    with pytest.raises(Exception, match=r"last\.recurrent_bias"):
        against(spec("gru", direction="forward"), wrap_keras(model))


def _onnx_lstm(first_reset: int = 1, operator: str = "LSTM", gates: int = 4) -> onnx.ModelProto:
    rng = np.random.default_rng(5)

    def drawn(*shape):
        return rng.standard_normal(shape).astype(np.float32) * 0.5

    weights = {
        "W": drawn(2, gates * UNITS, CHANNELS),
        "R": drawn(2, gates * UNITS, UNITS),
        "B": drawn(2, 2 * gates * UNITS),
        "K": drawn(2 * UNITS, 2),
        "b": drawn(2),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(
            operator,
            ["steps", "W", "R", "B"],
            ["", "hidden"],
            hidden_size=UNITS,
            direction="bidirectional",
            **({"linear_before_reset": first_reset} if operator == "GRU" else {}),
        ),
        helper.make_node("Transpose", ["hidden"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "K", "b"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", LENGTH, CHANNELS])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "reader", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize(
    ("operator", "gates", "kind"), [("LSTM", 4, "lstm"), ("GRU", 3, "gru"), ("RNN", 1, "simple_rnn")]
)
def test_onnx_operators_pass(operator, gates, kind):
    report = against(spec(kind), wrap_onnx(_onnx_lstm(operator=operator, gates=gates)))
    assert report.passed, told(report)


def test_an_onnx_gru_that_resets_before_the_product_fails():
    report = against(spec("gru"), wrap_onnx(_onnx_lstm(0, "GRU", 3)))
    assert [part for part, _ in told(report)] == ["last"]


def test_a_map_that_was_written_is_read_again(tmp_path):
    path = tmp_path / "map.yaml"
    model = Reader(nn.GRU, 2)
    assert against(spec("gru", 2), wrap_torch(model), write_map=path).passed
    assert against(spec("gru", 2), wrap_torch(model), weight_map=read_yaml(path)).passed
    swapped = path.read_text().replace("l0", "l9").replace("l1", "l0").replace("l9", "l1")
    path.write_text(swapped)
    with pytest.raises(Exception, match="the shapes do not fit"):
        against(spec("gru", 2), wrap_torch(model), weight_map=read_yaml(path))
