"""Fast forms against what they stand for: rows against the textbook's convolution, shards against the whole batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitrain.backends.contract import Batchable, Plan, Settings
from unitrain.backends.numpy import BACKEND, conv, conv_rows, parameters
from unitrain.backends.numpy import program as program_module
from unitrain.backends.numpy.elementwise import Elementwise
from unitrain.backends.numpy.execution import Mode, backward, forward
from unitrain.backends.numpy.memory import Workspace
from unitrain.backends.numpy.namespace import NumpyNamespace
from unitrain.backends.numpy.parameters import FlatParameters
from unitrain.backends.numpy.registry import Context
from unitrain.backends.numpy.shards import Shards
from unitrain.backends.numpy.threads import allowed_threads, one_blas_thread, run_together
from unitrain.backends.numpy.window import Windows
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.graph.passes.pool_first import pool_first
from unitrain.graph.resolve import resolve
from unitrain.spec.losses import CrossEntropy
from unitrain.spec.model import ModelSpec
from unitrain.spec.optimizers import Adagrad, Adam, Lion, Nadam, RmsProp, Sgd
from unitrain.train.losses import make_loss
from unitrain.train.update import Update
from unitrain.weights.initialize import initialize

Array = np.ndarray[Any, Any]


def graph_of(layers: list[dict[str, Any]], shape: list[int]) -> Graph:
    return resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": shape}}, "layers": layers}))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[dict[str, Any], list[int], int]:
    """Draw a plain convolution of one group, without vertical dilation, an input shape and a batch size."""
    sizes = [draw(st.integers(5, 9)), draw(st.integers(5, 9))]
    padding = draw(st.sampled_from(["valid", "same", [[2, 0], [1, 3]]]))
    layer = {
        "type": "conv2d",
        "name": "y",
        "filters": draw(st.sampled_from([1, 3, 17])),
        "kernel_size": [draw(st.integers(1, 4)), draw(st.integers(1, 3))],
        "strides": [draw(st.integers(1, 3)), draw(st.integers(1, 3))],
        "dilation": [1, draw(st.integers(1, 2))],
        "padding": padding,
        "use_bias": draw(st.booleans()),
    }
    return layer, [*sizes, draw(st.sampled_from([1, 3, 17]))], draw(st.integers(1, 3))


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-13), ("float32", 3e-6)])
@settings(max_examples=80, deadline=None)
@given(drawn=convolutions())
def test_rows_are_the_textbook(drawn: tuple[dict[str, Any], list[int], int], precision: str, tolerance: float) -> None:
    layer, shape, batch = drawn
    graph = graph_of([layer], shape)
    node = graph.nodes[0]
    generator = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> Array:
        return np.asarray(generator.normal(size=shape), dtype=precision)

    parameters = {local: draw(graph.parameters[name].shape) for local, name in node.parameters.items()}
    x, dy = draw((batch, *shape)), draw((batch, *node.output_shape))
    context = Context(node, training=True, seed=0, step=0, wanted=(True,), updates={})
    spec: Any = node.layer
    expected, expected_back = conv.textbook_convolution(spec, context, parameters, x)
    (expected_dx,), expected_gradients = expected_back(dy)
    # With memory to use again, twice: what the first pass left there must not be seen in the second.
    used = Context(node, training=True, seed=0, step=0, wanted=(True,), updates={}, workspace=Workspace())
    for place, given_x in ((context, x), (used, x[::-1] + 1), (used, x)):
        found, back = conv_rows.convolution(spec, place, parameters, given_x)
        (dx,), gradients = back(dy)
    assert dx is not None
    assert expected_dx is not None
    for name, one, other in (("y", found, expected), ("dx", dx, expected_dx)):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max(), err_msg=name)
    assert gradients.keys() == expected_gradients.keys()
    for name, other in expected_gradients.items():
        np.testing.assert_allclose(gradients[name], other, rtol=tolerance, atol=tolerance * np.abs(other).max())
    assert found.dtype == dx.dtype == np.dtype(precision)


def test_rows_compute_what_the_textbook_need_not() -> None:
    (node,) = graph_of([{"type": "conv2d", "filters": 4, "kernel_size": 3, "groups": 2}], [9, 9, 4]).nodes
    spec: Any = node.layer
    assert not conv_rows.computes(spec, Windows.of(spec, (9, 9, 4)))
    plain = spec.model_copy(update={"groups": 1})
    assert conv_rows.computes(plain, Windows.of(plain, (9, 9, 4)))


NET: list[dict[str, Any]] = [
    {"type": "conv2d", "filters": 5, "kernel_size": 3, "padding": "same", "activation": "relu"},
    {"type": "max_pool2d", "kernel_size": 2},
    {"type": "dropout", "rate": 0.3},
    {"type": "conv2d", "filters": 18, "kernel_size": 3, "activation": "relu"},
    {"type": "max_pool2d", "kernel_size": 3, "strides": 1, "padding": "same"},
    {"type": "layer_norm"},
    {"type": "flatten"},
    {"type": "dense", "name": "y", "units": 4},
]


def differentiated(graph: Graph, weights: dict[str, Array], x: Array, dy: Array) -> tuple[Array, dict[str, Array]]:
    done = forward(graph, weights, {"x": x}, Mode(True, 3, 1), differentiate=True)
    (y,) = done.outputs().values()
    return y, backward(done, {"y": dy})[1]


def test_pooling_first_is_the_same_bit_for_bit() -> None:
    graph = graph_of(NET, [9, 8, 2])
    exchanged = pool_first(graph)
    kinds = [node.layer.type for node in exchanged.nodes]
    assert kinds[:3] == ["conv2d", "max_pool2d", "relu"]
    assert kinds[4:7] == ["conv2d", "max_pool2d", "relu"]
    weights = initialize(graph, 0)
    generator = np.random.default_rng(0)
    # Whole numbers: many windows hold their maximum several times, and many hold nothing above zero.
    x, dy = generator.integers(-2, 3, size=(6, 9, 8, 2)).astype(np.float32), generator.normal(size=(6, 4))
    y, gradients = differentiated(graph, weights, x, dy.astype(np.float32))
    y_exchanged, gradients_exchanged = differentiated(exchanged, weights, x, dy.astype(np.float32))
    np.testing.assert_array_equal(y, y_exchanged)
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, gradients_exchanged[name], err_msg=name)


def test_a_relu_that_others_read_stays_before_its_pooling() -> None:
    layers: list[dict[str, Any]] = [
        {"type": "relu", "name": "r"},
        {"type": "max_pool2d", "name": "p", "kernel_size": 1},
        {"type": "add", "name": "y", "inputs": ["r", "p"]},
    ]
    graph = graph_of(layers, [2, 2, 1])
    assert pool_first(graph) == graph


@pytest.mark.parametrize(("precision", "rounding"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("count", [2, 3])
def test_shards_are_the_whole_batch(count: int, precision: str, rounding: float) -> None:
    """Dropout masks are those of the whole batch, and so is every output; 7 samples do not part evenly."""
    graph = graph_of(NET, [9, 8, 2])
    weights = {name: array.astype(precision) for name, array in initialize(graph, 0).items()}
    generator = np.random.default_rng(0)
    x, dy = (generator.normal(size=shape).astype(precision) for shape in ((7, 9, 8, 2), (7, 4)))
    done = forward(graph, weights, {"x": x}, Mode(True, 3, 1), differentiate=True)
    expected = done.outputs()["y"]
    _, gradients = backward(done, {"y": dy})
    shards = Shards(graph, 3)
    for step in (0, 1):  # the first leaves its numbers in the memory that the second uses again
        y = shards.forward(weights, {"x": x}, step, count)["y"]
        found, _ = shards.backward({"y": dy})
    np.testing.assert_allclose(y, expected, rtol=rounding, atol=rounding / 10)
    for name, gradient in gradients.items():
        assert len(found[name]) == count
        np.testing.assert_allclose(sum(found[name]), gradient, rtol=10 * rounding, atol=rounding / 10, err_msg=name)


def test_only_what_mixes_no_samples_is_cut() -> None:
    layers = [{"type": "conv2d", "filters": 64, "kernel_size": 3}, {"type": "dense", "name": "y", "units": 2}]
    plain = Shards(graph_of(layers, [28, 28, 1]), 0)
    assert [plain.count(128, threads) for threads in (1, 2, 4)] == [1, 2, 4]
    assert plain.count(1, 2) == 1
    mixed = Shards(graph_of([layers[0], {"type": "batch_norm"}, layers[1]], [28, 28, 1]), 0)
    assert mixed.count(128, 2) == 1
    dense = Shards(graph_of([{"type": "dense", "units": 256}, {"type": "dense", "units": 10}], [784]), 0)
    assert dense.count(128, 2) == 1


def trained(threads: int, monkeypatch: pytest.MonkeyPatch, optimizer: Any, precision: Any) -> dict[str, Array]:
    monkeypatch.setattr(program_module, "allowed_threads", lambda: threads)
    graph = graph_of([{"type": "conv2d", "filters": 32, "kernel_size": 3, "activation": "relu"}, *NET[1:]], [20, 20, 1])
    update = Update(optimizer, {name: name.endswith("kernel") for name in graph.trainable})
    rule = TrainingRule({"y": (1.0, make_loss(CrossEntropy()))}, [], update)
    program = BACKEND.compile(graph, initialize(graph, 0), Settings(precision=precision), rule)
    generator = np.random.default_rng(0)
    data = Batchable(
        {"x": generator.normal(size=(70, 20, 20, 1))},
        {"y": generator.integers(0, 4, size=70).astype(np.int32)},
        generator.uniform(0.5, 1.5, size=70),
    )
    rows = generator.integers(0, 70, size=(3, 50)).astype(np.int32)
    rates = update.coefficients(np.full(3, 1e-2), 0)
    apply = np.array([True, False, True])
    statistics = program.run_steps(program.place(data), Plan(rows, rates, np.array([1.0, 0.5, 0.5]), apply, 0))
    slots = {f"{slot} {name}": array for slot, arrays in program.slots().items() for name, array in arrays.items()}
    return {**program.weights(), **slots, "losses": statistics.losses}


@pytest.mark.parametrize(
    "optimizer", [Adam(weight_decay=0.1, ema=0.9), Adam(clip_norm=0.1), RmsProp(l2=0.1)], ids=["adam", "clip", "rms"]
)
def test_training_on_threads_is_training_on_one_and_always_the_same(
    optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (trained(threads, monkeypatch, optimizer, "float64") for threads in (1, 2))
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=1e-7, atol=1e-10, err_msg=name)
    narrow, again = (trained(2, monkeypatch, optimizer, "float32") for _ in range(2))
    for name, array in narrow.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


OPTIMIZERS: list[Any] = [
    Adam(),
    Adam(weight_decay=0.1, ema=0.9, clip_value=0.5),
    Nadam(l2=0.1),
    RmsProp(centred=True, momentum=0.9),
    Adagrad(),
    Lion(),
    Sgd(),
    Sgd(momentum=0.9, nesterov=True, ema=0.5),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.type)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_parts_of_flat_parameters_are_updated_as_the_whole(
    optimizer: Any, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: the same operations in the same order."""
    shapes = {"a": (7, 5), "b": (3,), "c": (11,), "d": (2, 2, 2)}
    update = Update(optimizer, {"a": True, "b": False, "c": True, "d": False})
    apart = optimizer.weight_decay or optimizer.l2
    assert update.alike(tuple(shapes)) == ((("a", "c"), ("b", "d")) if apart else (("a", "b", "c", "d"),))
    generator = np.random.default_rng(0)

    def draw() -> dict[str, Array]:
        return {name: generator.normal(size=shape).astype(precision) for name, shape in shapes.items()}

    weights, gradients = draw(), draw()
    slots = {slot: {name: np.abs(array) for name, array in draw().items()} for slot in update.slots}
    scalars = update.coefficients(np.array([0.01]), 3)[0]
    xp = NumpyNamespace()
    expected, expected_slots = update.update(xp, weights, gradients, slots, list(scalars.astype(precision)))

    monkeypatch.setattr(parameters, "PART", 4)
    for threads in (1, 2):
        flat = FlatParameters(shapes, precision, update)
        own = dict(weights)
        flat.adopt(own)
        for name in shapes:
            flat.gradients[name][...] = gradients[name]
            for slot in update.slots:
                flat.slots[slot][name][...] = slots[slot][name]
        flat.update(scalars, threads)
        for name in shapes:
            np.testing.assert_array_equal(own[name], expected[name])
            for slot in update.slots:
                np.testing.assert_array_equal(flat.slots[slot][name], expected_slots[slot][name])


def test_an_update_that_is_no_list_of_ufuncs_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    update = Update(Adam(), {"a": True})
    expected, found = FlatParameters({"a": (3,)}, np.float64, update), FlatParameters({"a": (3,)}, np.float64, update)
    for flat in (expected, found):
        flat.gradients["a"][...] = [1.0, -2.0, 0.5]
    scalars = update.coefficients(np.array([0.01]), 0)[0]
    expected.update(scalars, 1)
    monkeypatch.setattr(NumpyNamespace, "sqrt", staticmethod(lambda x: np.sqrt(x.astype(np.float64))))
    found.update(scalars, 1)
    assert expected.weights["a"].all()
    np.testing.assert_array_equal(found.weights["a"], expected.weights["a"])


def test_new_values_may_be_old_ones_exchanged() -> None:
    """Old values are read before they are overwritten, whichever comes first."""
    function = Elementwise(
        lambda arrays, numbers: {
            "a": arrays["b"],
            "b": arrays["a"] + numbers[0],
            "c": arrays["a"] * arrays["c"] - np.sqrt(arrays["b"]),
            "d": 3.0,
        },
        ("a", "b", "c", "d"),
        1,
    )
    a, b, c, d = np.random.default_rng(0).uniform(size=(4, 10))
    expected = b.copy(), a + 0.5, a * c - np.sqrt(b), np.full(10, 3.0)
    function.run([a, b, c, d], [0.5], 4)
    for found, right in zip((a, b, c, d), expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_a_norm_or_another_update_joins_all_parameters() -> None:
    class Own(Update):
        pass

    assert Update(Adam(clip_norm=1.0), {"a": True}).alike(("a",)) == ()
    assert Own(Adam(), {"a": True}).alike(("a",)) == ()


def test_blas_is_kept_on_one_thread_and_let_go_again() -> None:
    before = allowed_threads()
    with one_blas_thread():
        assert allowed_threads() == 1
    assert allowed_threads() == before


def test_what_a_thread_raises_is_raised_after_all_have_ended() -> None:
    ended = []

    def fail() -> int:
        raise KeyError("shard")

    def end() -> int:
        ended.append(True)
        return 2

    assert run_together([lambda: 1, end]) == [1, 2]
    with pytest.raises(KeyError, match="shard"):
        run_together([end, fail, end])
    assert len(ended) == 3
