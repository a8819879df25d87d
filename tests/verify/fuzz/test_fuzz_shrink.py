"""Shrinking: a planted fault leaves the smallest case that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.layers import Attention, AveragePool2d, Maximum, Mean
from unitrain.spec.model import ModelSpec
from unitrain.verify.fuzz.case import VerifyCase
from unitrain.verify.fuzz.generate import draw_case
from unitrain.verify.fuzz.shrink import measure, shrink

Fault = Callable[[Node, Graph], bool]


def _fails(fault: Fault) -> Callable[[VerifyCase], bool]:
    def fails(case: VerifyCase) -> bool:
        graph = case.graph()
        return any(fault(node, graph) for node in graph.nodes)

    return fails


def _failing(fault: Fault, count: int, seed: int = 5) -> list[VerifyCase]:
    """Return drawn cases of several layers that a fault hits."""
    found: list[VerifyCase] = []
    for number in range(400):
        case = draw_case(seed, number)
        if _fails(fault)(case) and len(case.graph().nodes) > 4:
            found.append(case)
        if len(found) == count:
            return found
    raise AssertionError("too few drawn cases have the fault")


def _pool_fault(node: Node, graph: Graph) -> bool:
    layer = node.layer
    return isinstance(layer, AveragePool2d) and layer.padding != "valid" and max(layer.strides) > 1


def test_a_fault_of_one_layer_leaves_that_layer_alone() -> None:
    for case in _failing(_pool_fault, 4):
        smallest = shrink(case, _fails(_pool_fault))
        graph = smallest.graph()
        assert [node.layer.type for node in graph.nodes] == ["average_pool2d"]
        layer = graph.nodes[0].layer
        assert isinstance(layer, AveragePool2d)
        assert max(layer.kernel_size) == 1
        assert sorted(layer.strides) == [1, 2]
        assert layer.dilation == (1, 1)
        (given,) = graph.inputs.values()
        assert max(given.shape) <= 2
        # Nothing is left of the training: the case is a model file.
        assert smallest.to_plain().keys() == {"model"}


def test_two_layers_that_fail_together_stay() -> None:
    def fault(node: Node, graph: Graph) -> bool:
        before = [graph.node(name).layer.type for name in node.inputs if name not in graph.inputs]
        return not {"add", "multiply"}.isdisjoint(before)

    for case in _failing(fault, 3):
        graph = shrink(case, _fails(fault)).graph()
        assert len(graph.nodes) == 2
        assert graph.nodes[0].layer.type in ("add", "multiply")


def test_shared_weights_are_kept_where_they_matter() -> None:
    def fault(node: Node, graph: Graph) -> bool:
        return node.owner != node.name and node.layer.type == "dense" and "." not in node.name

    case = _failing(fault, 1)[0]
    smallest = shrink(case, _fails(fault))
    assert {layer["type"] for layer in smallest.to_plain()["model"]["layers"]} == {"dense", "shared"}
    assert len(smallest.graph().nodes) == 2


def test_repeats_are_kept_where_they_matter() -> None:
    def fault(node: Node, graph: Graph) -> bool:
        return ".1." in node.name

    smallest = shrink(_failing(fault, 1)[0], _fails(fault))
    assert len(smallest.graph().nodes) == 2
    assert smallest.to_plain()["model"]["layers"][0]["repeat"] == 2


def _masked(node: Node, graph: Graph) -> bool:
    return isinstance(node.layer, (Mean, Maximum)) and node.layer.mask is not None


def test_a_side_input_is_kept_where_it_matters() -> None:
    for case in _failing(_masked, 3):
        graph = shrink(case, _fails(_masked)).graph()
        assert [node.layer.type for node in graph.nodes] in (["mean"], ["max"])
        assert [given.dtype for given in graph.inputs.values()] == ["float", "integer"]
        # The axis and its mask become shorter together.
        assert [given.shape[0] for given in graph.inputs.values()] == [1, 1]


def test_a_side_input_goes_where_it_does_not_matter() -> None:
    def fault(node: Node, graph: Graph) -> bool:
        return isinstance(node.layer, (Mean, Maximum))

    case = next(case for case in _failing(_masked, 1))
    graph = shrink(case, _fails(fault)).graph()
    assert [node.layer.side_names() for node in graph.nodes] == [{}]
    assert [given.dtype for given in graph.inputs.values()] == ["float"]


def test_shared_weights_of_a_layer_with_a_mask_are_kept_where_they_matter() -> None:
    def fault(node: Node, graph: Graph) -> bool:
        return node.owner != node.name and isinstance(node.layer, Attention) and node.layer.mask is not None

    model = ModelSpec.model_validate(
        {
            "inputs": {"x": {"shape": [3, 4]}, "kept": {"shape": [3], "dtype": "integer"}},
            "layers": [
                {"type": "dense", "units": 4, "name": "stem", "inputs": "x"},
                {"type": "attention", "heads": 2, "name": "look", "mask": "kept"},
                {"type": "shared", "layer": "look", "name": "again", "inputs": ["look", "kept"]},
                {"type": "relu", "name": "end", "inputs": "again"},
            ],
        }
    )
    smallest = shrink(VerifyCase(model=model), _fails(fault))
    assert [node.layer.type for node in smallest.graph().nodes] == ["attention", "attention"]


def test_training_is_kept_where_it_matters() -> None:
    def fails(case: VerifyCase) -> bool:
        return case.optimizer.clip_norm is not None and case.training.accumulate == 3

    case = next(case for case in (draw_case(2, number) for number in range(400)) if fails(case))
    smallest = shrink(case, fails)
    plain = smallest.to_plain()
    assert len(smallest.graph().nodes) == 1
    assert plain["training"] == {"accumulate": 3}
    assert plain["optimizer"].keys() == {"type", "clip_norm"}
    assert "loss" not in plain
    assert "schedule" not in plain


@pytest.mark.parametrize("number", range(3))
def test_every_step_is_smaller_and_the_end_is_a_minimum(number: int) -> None:
    case = draw_case(6, number)
    sizes = [measure(case)]

    def fails(candidate: VerifyCase) -> bool:
        sizes.append(measure(candidate))
        return True

    smallest = shrink(case, fails)
    assert all(later < earlier for earlier, later in pairwise(sizes))
    # When everything fails, one layer is left, and shrinking it again changes nothing.
    assert len(smallest.graph().nodes) == 1
    assert shrink(smallest, lambda candidate: True) == smallest


def test_what_fails_nowhere_else_stays_as_it_is() -> None:
    case = draw_case(6, 1)
    asked = []
    assert shrink(case, lambda candidate: bool(asked.append(candidate)), tries=25) == case
    assert len(asked) == 25


def test_shrinking_ends_in_time() -> None:
    case = draw_case(6, 1)

    def slow(candidate: VerifyCase) -> bool:
        time.sleep(0.05)
        return False

    started = time.monotonic()
    assert shrink(case, slow, deadline=started + 0.3) == case
    assert time.monotonic() - started < 3.0
