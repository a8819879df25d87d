"""FLOP and bytes of operations and models against numbers worked out by hand; results against loops and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal, special

from unitrain.backends import load_backend
from unitrain.backends.toolkit import OPERATIONS, load_toolkit
from unitrain.bench.gradients import LAYERS
from unitrain.bench.models import MODELS, read_models
from unitrain.bench.ops import Operation, catalogue
from unitrain.bench.runner import error_of
from unitrain.bench.training import block_steps
from unitrain.spec.errors import InputError


@pytest.mark.parametrize(
    ("operation", "shapes", "result", "flops", "bytes_"),
    [
        # [2, 3] x [3, 4]: 8 sums of 3 products; 6 + 12 + 8 numbers of 4 bytes.
        ("matmul", ((2, 3), (3, 4)), (2, 4), 2 * 8 * 3, 4 * (6 + 12 + 8)),
        ("batched matmul", ((5, 2, 3), (5, 3, 4)), (5, 2, 4), 5 * 48, 5 * 4 * 26),
        ("add", ((3, 4), (3, 4)), (3, 4), 12, 4 * 36),
        ("multiply", ((3, 4), (3, 4)), (3, 4), 12, 4 * 36),
        ("exp", ((3, 4),), (3, 4), 12, 4 * 24),
        ("sum", ((3, 4),), (3,), 12, 4 * (12 + 3)),
        ("softmax", ((3, 4),), (3, 4), 48, 4 * 24),
        # A 5 x 6 image under a 3 x 2 window has 3 x 5 places, each of 3 * 2 * 7 products for 4 filters, twice.
        ("convolution", ((2, 5, 6, 7), (3, 2, 7, 4)), (2, 3, 5, 4), 2 * 2 * 15 * 42 * 4, 4 * (420 + 168 + 120)),
    ],
)
def test_work_by_hand(operation, shapes, result, flops, bytes_):
    found = Operation(operation, operation, shapes)
    assert found.result == result
    assert (found.work.flops, found.work.bytes) == (flops, bytes_)


def test_the_size_of_the_issue():
    matmul = catalogue(2048)[0]
    assert matmul.name == "matmul 2048"
    assert matmul.work.flops == 17_179_869_184  # 2 * 2048^3
    assert matmul.work.bytes == 50_331_648  # 3 * 2048^2 * 4


@pytest.mark.parametrize("size", [16, 64, 100, 2048])
@pytest.mark.parametrize("quick", [True, False])
def test_the_catalogue_has_every_operation_and_unique_names(size, quick):
    found = catalogue(size, quick=quick)
    assert {operation.operation for operation in found} == set(OPERATIONS)
    assert len({operation.name for operation in found}) == len(found)
    sizes = [operation.shapes[0][0] for operation in found if operation.operation == "matmul"]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == size


@pytest.mark.parametrize("operation", catalogue(16), ids=lambda operation: operation.name)
def test_what_is_expected_is_right(operation):
    operands = operation.operands(np.random.default_rng(0))
    wide = [operand.astype(np.float64) for operand in operands]
    if operation.operation == "convolution":
        images, kernel = wide[0][:2], wide[1]
        right = np.stack(
            [
                np.stack(
                    [
                        sum(
                            signal.correlate2d(image[..., channel], kernel[..., channel, filter_], "valid")
                            for channel in range(image.shape[-1])
                        )
                        for filter_ in range(3)
                    ],
                    axis=-1,
                )
                for image in images
            ]
        )
        found = operation.expected([operands[0][:2], operands[1]])["result"][..., :3]
    else:
        right = {
            "matmul": lambda a, b: np.einsum("ik,kj->ij", a, b),
            "batched matmul": lambda a, b: np.einsum("nik,nkj->nij", a, b),
            "add": lambda a, b: a + b,
            "subtract": lambda a, b: a - b,
            "multiply": lambda a, b: a * b,
            "exp": np.exp,
            "sum": lambda a: a.sum(axis=1),
            "softmax": lambda a: special.softmax(a, axis=1),
        }[operation.operation](*wide)
        found = operation.expected(operands)["result"]
    np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)
    assert found.shape[1:-1] == operation.result[1:-1]


@pytest.mark.parametrize("backend", ["numpy", "keras", "torch"])
@pytest.mark.parametrize("operation", catalogue(32, quick=True)[:-1], ids=lambda operation: operation.name)
def test_every_framework_computes_them(backend, operation):
    operands = operation.operands(np.random.default_rng(1))
    call = load_toolkit(backend).operation(operation.operation, operands, "cpu")
    found = call.read(call.run())
    assert error_of(found, operation.expected(operands)) < 2e-6


def test_mlp_by_hand():
    (model,) = read_models(["mlp"], 0)
    # 784-256-256-10 with biases.
    macs = 784 * 256 + 256 * 256 + 256 * 10
    assert model.graph.macs == macs
    work = model.inference_work(2)
    assert work.flops == 2 * 2 * macs
    # Each layer's operands once: two samples of inputs and outputs, and the weights.
    dense = 2 * (784 + 256) + 784 * 256 + 256 + 2 * (256 + 256) + 256 * 256 + 256 + 2 * (256 + 10) + 2560 + 10
    others = 4 * 2 * (256 + 256)  # two ReLUs and two dropouts
    assert work.bytes == 4 * (dense + others)
    assert (work.operations, work.samples) == (7, 2)
    assert model.gradient_work(2).flops == 3 * work.flops


def test_data_of_a_model_are_the_same_each_time_and_within_range():
    (model,) = read_models(["lenet5"], 3)
    images = model.inputs(4)["image"]
    np.testing.assert_array_equal(images, model.inputs(4)["image"])
    assert 0.0 <= images.min() < 0.05 < 0.95 < images.max() <= 1.0
    data = model.data(6)
    assert data.targets["logits"].dtype == np.int32
    assert data.targets["logits"].max() < 10
    assert not np.array_equal(read_models(["lenet5"], 4)[0].inputs(4)["image"], images)


def test_all_models_and_layers_resolve():
    assert [model.name for model in read_models([], 0)] == list(MODELS)
    known = load_backend("numpy").layer_types()
    assert {spec["type"] for spec, _ in LAYERS.values()} <= known


def test_unknown_models_name_the_nearest(tmp_path):
    with pytest.raises(InputError) as caught:
        read_models(["lenet"], 0)
    assert "did you mean 'lenet5'?" in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        read_models([str(tmp_path / "none.yaml")], 0)


def test_a_file_of_ones_own_is_a_model(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "name: x\ninputs: {words: {shape: [3], dtype: integer}}\nlayers:\n"
        "  - {type: embedding, vocabulary: 5, width: 2}\n  - {type: flatten}\n  - {type: dense, units: 1}\n"
    )
    (model,) = read_models([str(path)], 0)
    assert model.name == "tiny"
    assert model.inputs(50)["words"].max() == 4
    assert model.losses().popitem()[1].type == "mse"


def test_blocks_hold_as_many_steps_as_the_model_is_small():
    # 6 FLOP a multiply-accumulate and sample: 128 samples of 40.8 million are 31 GFLOP a step in resnet20.
    assert [block_steps(model) for model in read_models(["mlp", "cnn", "resnet20"], 0)] == [16, 4, 2]
