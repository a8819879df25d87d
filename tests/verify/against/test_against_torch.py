"""A user's torch modules: right ones pass whichever way they are written, wrong ones fail at the right layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from verify.against.against_specs import against, image, small, subject, told

from unitrain.backends.torch.foreign import wrap
from unitrain.spec.errors import InputError


class Small(nn.Module):
    """`against_specs.SMALL` in torch, with the mistakes that are asked for."""

    def __init__(
        self, *, eps=1e-5, momentum=0.1, counts=False, pads_end=True, swapped=False, nhwc=False, activation=True,
        softmax=False, extra=False, rate=0.5, inplace=True, transposed=False, slope=0.0, approximate="none",
    ):  # fmt: skip
        super().__init__()
        self.pads_end, self.swapped, self.nhwc, self.activation = pads_end, swapped, nhwc, activation
        self.softmax, self.extra, self.transposed = softmax, extra, transposed
        self.slope, self.approximate = slope, approximate
        self.conv1 = nn.Conv2d(3, 8, 3, 2, padding=0 if pads_end else 1)
        self.bn1 = nn.BatchNorm2d(8, eps=eps, momentum=momentum)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.drop = nn.Dropout(rate)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=counts)
        self.fc1, self.fc2, self.head = nn.Linear(72, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        with torch.no_grad():
            for tensor in [*self.parameters(), self.bn1.running_mean, self.bn1.running_var]:
                tensor += 0.1 * torch.rand_like(tensor)

    def forward(self, x):
        if self.nhwc:
            x = x.permute(0, 3, 1, 2)
        if self.pads_end:
            x = functional.pad(x, (0, 1, 0, 1))
        x = self.bn1(self.conv1(x))
        act = functional.leaky_relu(x, self.slope) if self.slope else self.relu(x) if self.activation else x
        x = self.pool(act)
        x = x + self.relu(self.conv2(x))
        if self.nhwc:
            x = x.permute(0, 2, 3, 1)
        x = self.drop(x.flatten(1))
        x = functional.gelu(self.fc1(x), approximate=self.approximate)
        weight = self.fc2.weight.T if self.transposed else self.fc2.weight
        x = torch.tanh(functional.linear(x, weight, self.fc2.bias))
        if self.extra:
            x = functional.silu(x)
        x = self.head(x)
        return torch.softmax(x, 1) if self.softmax else x


def made(**options) -> nn.Module:
    torch.manual_seed(0)
    return Small(**options)


@pytest.mark.parametrize("options", [{}, {"nhwc": True}, {"inplace": False}], ids=str)
def test_right_models_pass(options):
    report = against(small(), wrap(made(**options)))
    assert report.passed, told(report)
    # Every layer was found by itself, in both modes.
    found = {(item.name.part, item.name.mode) for item in report.findings if item.name.isolated}
    assert found == {(name, mode) for name in report.layers for mode in ("training", "inference")}
    flattened = any("flattens channels first" in note for note in report.notes)
    assert flattened == (not options.get("nhwc", False))


def test_the_unbiased_running_variance_is_excused_and_said():
    report = against(small(), wrap(made()))
    excused = [item for item in report.findings if item.excuse]
    assert [item.name.tensor for item in excused] == ["change of running_variance"]
    assert any("unbiased" in note for note in report.notes)


FAULTS = [
    ({"eps": 1e-3}, "bn1", "epsilon=0.001"),
    ({"momentum": 0.01}, "bn1", "momentum=0.99"),
    ({"counts": True}, "pool1", "count_include_pad"),
    ({"pads_end": False}, "conv1", "odd padded element at the start"),
    ({"activation": False}, "relu1", "gives its input back unchanged"),
    ({"softmax": True}, "logits", "their model ends in softmax, the spec gives logits"),
    ({"extra": True}, "logits", "applies silu before it"),
    ({"rate": 0.25}, "drop", "rate=0.25"),
    ({"transposed": True}, "fc2", "transposed"),
    ({"slope": 0.01}, "relu1", "computes leaky_relu"),
    ({"slope": 0.3}, "relu1", ""),
    ({"approximate": "tanh"}, "fc1_activation", "approximate=tanh"),
]


@pytest.mark.parametrize(("options", "layer", "words"), FAULTS, ids=[str(item[0]) for item in FAULTS])
def test_planted_faults_are_placed_and_named(options, layer, words):
    report = against(small(), wrap(made(**options)))
    assert not report.passed
    assert [part for part, _ in told(report)] == [layer]
    assert words in told(report)[0][1]


def test_all_faults_at_once_are_all_named():
    options = {"eps": 1e-3, "momentum": 0.01, "counts": True, "softmax": True}
    report = against(small(), wrap(made(**options)))
    assert [part for part, _ in told(report)] == ["bn1", "pool1", "logits"]
    assert "epsilon=0.001" in told(report)[0][1]
    assert "momentum=0.99" in told(report)[0][1]


def test_the_module_stays_as_it_was():
    model = made()
    model.bn1.eval()
    model.train(True)
    model.bn1.training = False
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    against(small(), wrap(model))
    assert model.training
    assert not model.bn1.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


CONV = {"filters": 6, "kernel_size": 3}
LAYERS = {
    "conv1d": ((9, 4), {"type": "conv1d", **CONV}, lambda: nn.Conv1d(4, 6, 3)),
    "grouped": ((7, 8, 4), {"type": "conv2d", **CONV, "groups": 2}, lambda: nn.Conv2d(4, 6, 3, groups=2)),
    "unequal": ((7, 8, 4), {"type": "conv2d", **CONV, "kernel_size": [3, 2]}, lambda: nn.Conv2d(4, 6, (3, 2))),
    "dilated": ((9, 8, 4), {"type": "conv2d", **CONV, "dilation": 2}, lambda: nn.Conv2d(4, 6, 3, dilation=2)),
    "no bias": ((9, 8, 4), {"type": "conv2d", **CONV, "use_bias": False}, lambda: nn.Conv2d(4, 6, 3, bias=False)),
    "depthwise": (
        (7, 8, 3),
        {"type": "depthwise_conv2d", "kernel_size": 3, "multiplier": 2, "padding": 1},
        lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1),
    ),
    "separable": (
        (7, 8, 3),
        {"type": "separable_conv2d", **CONV, "multiplier": 2},
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.Conv2d(6, 6, 1)),
    ),
    "transposed": (
        (4, 5, 3),
        {"type": "conv_transpose2d", **CONV, "strides": 2},
        lambda: nn.ConvTranspose2d(3, 6, 3, 2),
    ),
    "transposed1d": ((5, 3), {"type": "conv_transpose1d", **CONV}, lambda: nn.ConvTranspose1d(3, 6, 3)),
    "group_norm": ((5, 4, 6), {"type": "group_norm", "groups": 3}, lambda: nn.GroupNorm(3, 6)),
    "layer_norm": ((5, 6), {"type": "layer_norm"}, lambda: nn.LayerNorm(6)),
    "layer_norm_all": ((5, 4, 6), {"type": "layer_norm", "axes": 3}, lambda: nn.LayerNorm([6, 5, 4])),
    "rms_norm": ((6,), {"type": "rms_norm"}, lambda: nn.RMSNorm(6, eps=1e-6)),
    "prelu": ((5, 4, 6), {"type": "prelu"}, lambda: nn.PReLU(6)),
    "prelu_one": ((5, 4, 6), {"type": "prelu"}, lambda: nn.PReLU()),
    "global_average_pool": ((5, 4, 6), {"type": "global_average_pool"}, lambda: nn.AdaptiveAvgPool2d(1)),
    "upsample": (
        (5, 4, 6),
        {"type": "upsample2d", "interpolation": "bilinear"},
        lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    ),
    "softmax": ((6,), {"type": "softmax"}, lambda: nn.Softmax(1)),
    "dense_as_conv": ((4, 5, 3), {"type": "dense", "units": 6}, lambda: nn.Conv2d(3, 6, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_layouts_of_their_own(name):
    shape, layer, make = LAYERS[name]
    torch.manual_seed(1)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.rand_like(parameter)
    layout = "nhwc" if name in ("layer_norm", "rms_norm", "softmax") else "auto"
    report = against(subject(image(*shape), layer), wrap(model), layout=layout)
    assert report.passed, (told(report), report.notes)
    compared = {item.name.tensor for item in report.findings if item.name.isolated}
    assert {"output", "gradient by input"} <= compared


def test_integer_inputs_and_several_outputs_in_a_dict():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(11, 4)
            self.mix = nn.Linear(7, 5)

        def forward(self, amount, word):
            hidden = torch.relu(self.mix(torch.cat([self.table(word), amount], -1)))
            return {"hidden": hidden, "score": hidden * 2.0}

    inputs = {"word": {"shape": [], "dtype": "integer"}, "amount": {"shape": [3]}}
    layers = (
        {"type": "embedding", "name": "table", "vocabulary": 11, "width": 4, "inputs": "word"},
        {"type": "concatenate", "name": "both", "inputs": ["table", "amount"]},
        {"type": "dense", "name": "mix", "units": 5},
        {"type": "relu", "name": "hidden"},
    )
    report = against(subject(inputs, *layers, outputs=["hidden"]), wrap(Model()))
    assert report.passed, told(report)


def test_a_shortcut_from_the_wrong_place_is_a_fault_of_the_sum():
    class Model(nn.Module):
        def __init__(self, right):
            super().__init__()
            self.a, self.b, self.right = nn.Linear(6, 6), nn.Linear(6, 6), right

        def forward(self, x):
            first = self.a(x)
            second = self.b(torch.relu(first))
            return second + (first if self.right else x)

    layers = (
        {"type": "dense", "name": "a", "units": 6},
        {"type": "relu", "name": "act"},
        {"type": "dense", "name": "b", "units": 6},
        {"type": "add", "name": "sum", "inputs": ["b", "a"]},
    )
    spec = subject({"x": {"shape": [6]}}, *layers)
    torch.manual_seed(0)
    assert against(spec, wrap(Model(True))).passed
    report = against(spec, wrap(Model(False)))
    assert not report.passed
    assert told(report)[0][0] == "sum"


def test_layers_that_are_called_in_another_order():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(torch.relu(self.first(torch.relu(self.second(x)))))

    layers = (
        {"type": "dense", "name": "first", "units": 8, "activation": "relu"},
        {"type": "dense", "name": "second", "units": 8, "activation": "relu"},
        {"type": "dense", "name": "head", "units": 2},
    )
    torch.manual_seed(0)
    report = against(subject({"x": {"shape": [8]}}, *layers), wrap(Model()))
    assert not report.passed
    assert told(report)[0][0] == "first"
    assert "in their model 'second' comes before it" in told(report)[0][1]


def test_a_norm_that_the_spec_has_not_is_named():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, eps=0.1), nn.ReLU(), nn.Linear(6, 3))
    layers = (
        {"type": "dense", "name": "a", "units": 6, "activation": "relu"},
        {"type": "dense", "name": "b", "units": 3},
    )
    report = against(subject({"x": {"shape": [5]}}, *layers), wrap(model))
    assert not report.passed
    assert told(report)[0] == (
        "a_activation",
        "right by itself, but their model applies batch_norm (1) before it; the spec does not",
    )
    assert "1.weight [6]" in told(report)[1][1]


def test_a_model_of_another_precision_is_refused():
    with pytest.raises(InputError, match="float64"):
        wrap(nn.Linear(2, 2).double())


def test_gradients_of_a_section_are_those_of_autograd():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    foreign = wrap(model)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    trace = foreign.record([x], training=False)
    hidden = trace.operations[1].outputs[0]
    given = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    up = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    end = trace.outputs["output"]
    ran = foreign.run(trace, {hidden: given}, [end], {end: up})
    weight = model[2].weight.detach().numpy()
    np.testing.assert_allclose(ran.by_feed[hidden], up @ weight, rtol=1e-5)
    np.testing.assert_allclose(ran.by_parameter["2.weight"], up.T @ given, rtol=1e-5)
    assert set(ran.by_parameter) == {"2.weight", "2.bias"}


def test_masks_of_yes_and_no_are_fed_as_such():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 8)
            self.query, self.key, self.value, self.output = (nn.Linear(8, 8) for _ in range(4))
            self.head = nn.Linear(8, 3)

        def forward(self, tokens):
            x = self.table(tokens)
            query, key, value = (
                made(x).unflatten(-1, (2, 4)).transpose(1, 2) for made in (self.query, self.key, self.value)
            )
            mask = (tokens != 0)[:, None, None, :]
            seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            seen = self.output(seen.transpose(1, 2).flatten(-2))
            return self.head(seen)

    layers = (
        {"type": "padding_mask", "name": "mask", "inputs": "tokens"},
        {"type": "embedding", "name": "emb", "vocabulary": 7, "width": 8, "inputs": "tokens"},
        {"type": "attention", "name": "look", "heads": 2, "inputs": "emb", "mask": "mask"},
        {"type": "dense", "name": "head", "units": 3},
    )
    torch.manual_seed(0)
    report = against(subject({"tokens": {"shape": [5], "dtype": "integer"}}, *layers), wrap(Model()))
    assert report.passed, report.words


def test_arithmetic_in_bfloat16_is_a_fault_and_no_crash():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            hidden = torch.relu(self.a(x)).to(torch.bfloat16)
            return self.b(torch.tanh(hidden).float())

    layers = (
        {"type": "dense", "name": "a", "units": 8, "activation": "relu"},
        {"type": "tanh", "name": "squashed"},
        {"type": "dense", "name": "b", "units": 3},
    )
    torch.manual_seed(0)
    report = against(subject({"x": {"shape": [6]}}, *layers), wrap(Model()))
    assert not report.passed


def test_what_their_model_does_not_train_is_noted():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    layers = (
        {"type": "dense", "name": "a", "units": 6, "activation": "relu"},
        {"type": "dense", "name": "b", "units": 3},
    )
    assert not any("frozen" in note for note in against(subject({"x": {"shape": [5]}}, *layers), wrap(model)).notes)
    model[0].requires_grad_(False)
    report = against(subject({"x": {"shape": [5]}}, *layers), wrap(model))
    assert report.passed
    assert any(
        note.startswith("frozen in their model") and note.endswith(": 0.weight, 0.bias") for note in report.notes
    )
