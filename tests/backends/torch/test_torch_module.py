"""The module that a user takes: names, layouts, classes, calls, and going on in plain PyTorch."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from conformance.cases import CASES, Case, case_graph, case_inputs, case_weights
from torch import nn
from torch.nn import functional

from unitrain.backends.contract import Settings
from unitrain.backends.torch import BACKEND
from unitrain.backends.torch.dropout import CounterDropout
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.layers import LAYER_TYPES
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize
from unitrain.weights.random import keep_mask, mask_key

Array = np.ndarray[Any, Any]
DOUBLE = Settings(precision="float64")

RESIDUAL: dict[str, Any] = {
    "inputs": {"image": {"shape": [9, 7, 3]}},
    "blocks": {
        "unit": {
            "layers": [
                {"type": "conv2d", "name": "conv1", "filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"},
                {"type": "batch_norm", "name": "norm", "epsilon": 1e-3},
                {"type": "relu", "name": "act"},
            ]
        }
    },
    "layers": [
        {"type": "block", "name": "stage1", "block": "unit", "repeat": 2},
        {"type": "flatten", "name": "flat"},
        {"type": "dense", "name": "logits", "units": 5},
    ],
}


def graph_of(layers: list[dict[str, Any]], **inputs: list[int]) -> Graph:
    given = {name: {"shape": shape} for name, shape in (inputs or {"x": [3]}).items()}
    return resolve(ModelSpec.model_validate({"inputs": given, "layers": layers}))


def build(graph: Graph, settings: Settings = DOUBLE, seed: int = 0) -> Any:
    return BACKEND.build(graph, initialize(graph, seed), settings)


@pytest.fixture
def residual() -> Graph:
    return resolve(ModelSpec.model_validate(RESIDUAL))


def test_layer_types_and_devices() -> None:
    assert BACKEND.layer_types() == set(LAYER_TYPES)
    assert BACKEND.devices()[0] == "cpu"
    assert len(BACKEND.devices()) == 1 + torch.cuda.device_count() + torch.backends.mps.is_available()


def test_state_dict_has_the_names_of_the_nodes(residual: Graph) -> None:
    model = build(residual)
    unit = [
        *("conv1.weight", "conv1.bias", "norm.weight", "norm.bias"),
        *("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    ]
    expected = [f"stage1.{index}.{name}" for index in (0, 1) for name in unit]
    assert [*model.state_dict()] == [*expected, "logits.weight", "logits.bias"]
    assert model.stage1[1].conv1 is model.get_submodule("stage1.1.conv1")
    assert model.stage1[0].conv1.weight.shape == (4, 3, 3, 3)
    assert model.training


def test_state_dict_fits_a_hand_written_network(residual: Graph) -> None:
    """The weights mean in torch's own modules, channel first, what they mean here."""

    class Unit(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, 4, 3, 2)
            self.norm = nn.BatchNorm2d(4, eps=1e-3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # same: 9 -> 5 and 5 -> 3 need 1 + 1 rows, 7 -> 4 needs 1 + 1 columns, and 4 -> 2 only 0 + 1.
            after = 1 if x.shape[-1] % 2 == 0 else 2
            x = functional.pad(x, (after - 1, 1, 1, 1))
            return functional.relu(self.norm(self.conv1(x)))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage1 = nn.Sequential(Unit(3), Unit(4))
            self.logits = nn.Linear(3 * 2 * 4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits(self.stage1(x).permute(0, 2, 3, 1).flatten(1))

    model, plain = build(residual), Plain().double()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(4, 9, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # Inference first: training moves the running variance by another rule than torch's.
    for training in (False, True):
        model.train(training)
        plain.train(training)
        torch.testing.assert_close(model(x), plain(x.permute(0, 3, 1, 2)), rtol=1e-12, atol=1e-12)


def test_one_goes_on_in_plain_pytorch(residual: Graph) -> None:
    torch.manual_seed(0)
    model = build(residual, Settings())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, target = torch.randn(32, 9, 7, 3), torch.randint(0, 5, (32,))
    first = before = functional.cross_entropy(model(x), target)
    for _ in range(40):
        optimizer.zero_grad()
        before.backward()
        optimizer.step()
        before = functional.cross_entropy(model(x), target)
    assert float(before.detach()) < 0.2 * float(first.detach())
    assert int(model.stage1[0].norm.num_batches_tracked) == 41
    # Another head in its place, as for fine-tuning.
    model.logits = nn.Linear(24, 2)
    assert model(x).shape == (32, 2)


def test_weights_survive_a_file_and_a_copy(residual: Graph) -> None:
    model, other = build(residual), build(residual, seed=1)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    x = torch.ones(1, 9, 7, 3, dtype=torch.float64)
    twin = copy.deepcopy(model).eval()
    assert torch.equal(other.eval()(x), model.eval()(x))
    assert torch.equal(twin(x), model(x))
    with torch.no_grad():
        twin.logits.bias += 1.0
    assert not torch.equal(twin(x), model(x))


def test_it_can_be_exported(residual: Graph) -> None:
    model = build(residual, Settings()).eval()
    x = torch.rand(2, 9, 7, 3)
    batches = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (x,), dynamic_shapes={"inputs": batches}).module()
    x = torch.rand(7, 9, 7, 3)
    torch.testing.assert_close(exported(x), model(x))


def test_a_trace_holds_for_other_batches() -> None:
    spec = {**RESIDUAL, "layers": [*RESIDUAL["layers"], {"type": "reshape", "name": "y", "shape": [5, 1]}]}
    model = build(resolve(ModelSpec.model_validate(spec))).eval()
    with warnings.catch_warnings():
        # Sizes of images become constants, as they are in the specification; tracing itself is going away in torch.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, torch.rand(2, 9, 7, 3, dtype=torch.float64))
    x = torch.rand(5, 9, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(traced(x), model(x))


# Names that nn.Module, our module or both have already, and what those names are changed to.
TAKEN = [
    *("forward", "forward_", "forward__", "train", "training", "type", "graph", "run", "tensor", "to", "eval"),
    *("_parameters", "_modules", "_paths", "call_super_init", "state_dict", "T_destination", "_"),
]


def test_any_node_name_works() -> None:
    layers = [{"type": "dense", "name": name, "units": 3, "kernel_initializer": "orthogonal"} for name in TAKEN]
    graph = graph_of(layers)
    model = build(graph)
    assert len(model.state_dict()) == 2 * len(TAKEN)
    assert {"forward_.weight", "forward__.weight", "forward___.weight"} <= model.state_dict().keys()
    x = np.random.default_rng(0).normal(size=(2, 3))
    y = x
    for name in TAKEN:
        y = y @ initialize(graph, 0)[f"{name}.kernel"].astype(np.float64)
    np.testing.assert_allclose(model.eval()(torch.tensor(x)).detach(), y, atol=1e-12)


def test_any_name_works_inside_a_block() -> None:
    inside = [{"type": "dense", "name": name, "units": 3} for name in ("weight", "keys", "append", "forward")]
    spec = {
        "inputs": {"x": {"shape": [3]}},
        "blocks": {"unit": {"layers": inside}},
        "layers": [
            {"type": "block", "name": "modules", "block": "unit", "repeat": 2},
            {"type": "block", "name": "once", "block": "unit"},
        ],
    }
    model = build(resolve(ModelSpec.model_validate(spec)))
    assert model(torch.ones(1, 3, dtype=torch.float64)).shape == (1, 3)
    assert {"modules_.1.append.weight", "once.forward_.bias"} <= model.state_dict().keys()


TORCHS_OWN = {
    "dense": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "depthwise_conv1d": nn.Conv1d,
    "depthwise_conv2d": nn.Conv2d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "max_pool1d": nn.MaxPool1d,
    "max_pool2d": nn.MaxPool2d,
    "max_pool3d": nn.MaxPool3d,
    "batch_norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    "layer_norm": nn.LayerNorm,
    "group_norm": nn.GroupNorm,
    "rms_norm": nn.RMSNorm,
    "dropout": nn.Dropout,
    "embedding": nn.Embedding,
    "pixel_shuffle": nn.PixelShuffle,
    "pixel_unshuffle": nn.PixelUnshuffle,
    "patch_embedding": nn.Conv2d,
    "instance_norm": nn.GroupNorm,
    "stochastic_depth": nn.Dropout,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_swish": nn.Hardswish,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "softmax": nn.Softmax,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_layouts_are_torchs_and_come_back_bit_by_bit(case: Case) -> None:
    graph, weights = case_graph(case), case_weights(case)
    model = BACKEND.build(graph, weights, Settings())
    if case.layer.type in TORCHS_OWN:
        assert isinstance(model.y, TORCHS_OWN[case.layer.type])
    back = model.canonical_weights()
    assert back.keys() == weights.keys()
    for name, array in weights.items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], array)
    # What torch calls it has the shape that torch gives it.
    plain: nn.Module | None = None
    layer: Any = case.layer
    kinds: dict[str, Any] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
    if case.layer.type in kinds:
        kind = kinds[case.layer.type]
        plain = kind(case.input_shapes[0][-1], layer.filters, layer.kernel_size, groups=layer.groups)
    elif case.layer.type.startswith("conv_transpose"):
        kind = nn.ConvTranspose2d if case.layer.type == "conv_transpose2d" else nn.ConvTranspose1d
        plain = kind(case.input_shapes[0][-1], layer.filters, layer.kernel_size)
    if plain is not None:
        assert model.y.weight.shape == plain.weight.shape


def test_depthwise_output_channels_lie_together() -> None:
    graph = graph_of([{"type": "depthwise_conv2d", "name": "y", "kernel_size": [2, 3], "multiplier": 2}], x=[4, 4, 5])
    kernel = np.arange(2 * 3 * 5 * 2, dtype=np.float32).reshape(2, 3, 5, 2)
    model = BACKEND.build(graph, {"y.kernel": kernel, "y.bias": np.zeros(10, np.float32)}, Settings())
    weight = model.y.weight.detach().numpy()
    assert weight.shape == (10, 1, 2, 3)
    for channel in range(5):
        for index in range(2):
            np.testing.assert_array_equal(weight[channel * 2 + index, 0], kernel[:, :, channel, index])


SAME = {"kernel_size": 3, "strides": 2, "padding": "same"}


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "conv2d", "filters": 2, **SAME},
        {"type": "separable_conv2d", "filters": 2, **SAME},
        {"type": "depthwise_conv2d", **SAME},
        {"type": "conv_transpose2d", "filters": 2, **SAME},
    ],
)
def test_a_shared_layer_pads_each_input_by_its_own_size(fields: dict[str, Any]) -> None:
    """``same`` with a stride pads 5 rows on both sides, and 6 at the end alone."""
    alone = {"odd": [5, 5, 2], "even": [6, 6, 2]}
    layers = [{**fields, "name": "one", "inputs": "odd"}, {"type": "shared", "name": "two", "layer": "one"}]
    layers[1]["inputs"] = "even"
    spec = {
        "inputs": {name: {"shape": shape} for name, shape in alone.items()},
        "layers": layers,
        "outputs": ["one", "two"],
    }
    graph = resolve(ModelSpec.model_validate(spec))
    weights = initialize(graph, 0)
    generator = np.random.default_rng(0)
    inputs = {name: generator.normal(size=(2, *shape)) for name, shape in alone.items()}
    found = BACKEND.compile(graph, weights, DOUBLE).predict(inputs)
    for output, name in (("one", "odd"), ("two", "even")):
        single = graph_of([{**fields, "name": "one"}], x=alone[name])
        expected = BACKEND.compile(single, weights, DOUBLE).predict({"x": inputs[name]})
        np.testing.assert_array_equal(found[output], expected["one"])


def test_a_shared_layer_is_one_module() -> None:
    layers = [{"type": "dense", "name": "one", "units": 3}, {"type": "shared", "name": "two", "layer": "one"}]
    model = build(graph_of(layers))
    assert [*model.state_dict()] == ["one.weight", "one.bias"]
    x = torch.ones(1, 3, dtype=torch.float64)
    torch.testing.assert_close(model(x), model.one(model.one(x)))


def two_inputs() -> Graph:
    spec = {
        "inputs": {"a": {"shape": [3]}, "b": {"shape": [3]}},
        "layers": [
            {"type": "add", "name": "sum", "inputs": ["a", "b"]},
            {"type": "multiply", "name": "product", "inputs": ["a", "sum"]},
        ],
        "outputs": ["sum", "product"],
    }
    return resolve(ModelSpec.model_validate(spec))


def test_several_inputs_and_outputs() -> None:
    model = build(two_inputs())
    a, b = torch.ones(2, 3), torch.full((2, 3), 2.0)
    for found in (model(a, b), model({"b": b, "a": a})):
        assert [*found] == ["sum", "product"]
        assert torch.equal(found["sum"], a + b)
        assert torch.equal(found["product"], a + b)


@pytest.mark.parametrize("arguments", [0, 1, 3])
def test_wrong_inputs_are_named(arguments: int) -> None:
    model = build(two_inputs())
    with pytest.raises(InputError, match="inputs do not fit") as caught:
        model(*[torch.ones(2, 3)] * arguments)
    assert caught.value.problems[0].allowed == "a, b"
    with pytest.raises(InputError, match="inputs do not fit"):
        model({"a": torch.ones(2, 3), "c": torch.ones(2, 3)})


def test_images_pass_without_a_copy() -> None:
    graph = graph_of([{"type": "conv2d", "name": "y", "filters": 4, "kernel_size": 3}], x=[8, 8, 3])
    seen: list[torch.Tensor] = []
    model = build(graph, Settings())
    x = torch.rand(2, 8, 8, 3)
    first = x.movedim(-1, 1)
    assert first.data_ptr() == x.data_ptr()
    assert first.is_contiguous(memory_format=torch.channels_last)
    model.y.register_forward_hook(lambda module, given, result: seen.append(result))
    model(x)
    assert seen[0].shape == (2, 6, 6, 4)
    assert seen[0].is_contiguous()


def test_counter_dropout_alone_counts_its_calls() -> None:
    graph = graph_of([{"type": "dropout", "name": "y", "rate": 0.25}], x=[7, 3])
    model = build(graph, Settings(seed=5))
    assert isinstance(model.y, CounterDropout)
    x = torch.ones(3, 7, 3)
    for step in range(4):
        expected = keep_mask(mask_key(5, "dropout", "y"), step, x.numel(), 0.25).reshape(x.shape)
        np.testing.assert_array_equal(model(x).numpy() != 0, expected)
    # Sizes and modes may change between the calls.
    assert torch.equal(model.eval()(x), x)
    small = model.train()(x[:1]).numpy()
    np.testing.assert_array_equal(small.ravel() != 0, keep_mask(mask_key(5, "dropout", "y"), 4, 21, 0.25))
    with torch.inference_mode():
        model(x)
    tracked = x.clone().requires_grad_()
    model(tracked).sum().backward()
    assert tracked.grad is not None
    kept = keep_mask(mask_key(5, "dropout", "y"), 6, x.numel(), 0.25).reshape(x.shape)
    np.testing.assert_allclose(tracked.grad.numpy(), kept / 0.75, rtol=1e-6)
    assert type(build(graph, Settings(deterministic=False)).y) is nn.Dropout


def test_batch_norm_alone_moves_the_biased_variance() -> None:
    graph = graph_of([{"type": "batch_norm", "name": "y", "momentum": 0.8}], x=[4, 3])
    model = build(graph)
    assert model.y.momentum == pytest.approx(0.2)  # torch counts the other part
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(5, 4, 3))
    model(torch.tensor(x))
    flat = x.reshape(-1, 3)
    np.testing.assert_allclose(model.y.running_mean, 0.2 * flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(model.y.running_var, 0.8 + 0.2 * flat.var(axis=0), rtol=1e-12)
    # Torch's cumulative average.
    model.y.momentum = None
    model.y.reset_running_stats()
    for part in (x[:2], x[2:4]):
        model(torch.tensor(part))
    expected = (x[:2].mean(axis=(0, 1)) + x[2:4].mean(axis=(0, 1))) / 2
    np.testing.assert_allclose(model.y.running_mean, expected, rtol=1e-12)


def test_a_batch_of_one_value_is_its_own_mean() -> None:
    model = build(graph_of([{"type": "batch_norm", "name": "y"}]))
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(1, 3))
    assert torch.equal(x.grad, torch.zeros(1, 3))
    np.testing.assert_allclose(model.y.running_mean, 0.1 * x.detach().numpy()[0], rtol=1e-12)
    np.testing.assert_allclose(model.y.running_var, 0.9, rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_every_layer_can_be_printed_and_called(case: Case) -> None:
    graph = case_graph(case)
    model = BACKEND.build(graph, case_weights(case), Settings())
    assert "(y): " in repr(model)
    inputs = {name: torch.tensor(array) for name, array in case_inputs(case).items()}
    y = model(*inputs.values())
    assert y.shape[1:] == graph.shape("y")
    # Inference leaves no trace of the batch that was seen before: a sample alone gives the same.
    model.eval()
    whole = model(inputs)
    single = model({name: tensor[:1] for name, tensor in inputs.items()})
    torch.testing.assert_close(single, whole[:1])


def test_padding_of_the_spec_is_shown() -> None:
    graph = graph_of([{"type": "conv2d", "name": "y", "filters": 1, **SAME}], x=[6, 6, 1])
    assert "padding='same'" in repr(build(graph).y)


def test_float64_on_mps_is_refused() -> None:
    with pytest.raises(InputError, match="has no float64"):
        build(graph_of([{"type": "relu"}]), Settings(device="mps", precision="float64"))
