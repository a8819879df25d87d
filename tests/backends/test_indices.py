"""Indices outside an embedding's table are found before anything is computed, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unitrain.backends import BACKENDS, load_backend
from unitrain.backends.contract import Batchable, Settings
from unitrain.backends.indices import check_indices
from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.weights.initialize import initialize


def graph_of(*layers: dict[str, Any], **inputs: list[int]) -> Graph:
    given = {name: {"shape": shape, "dtype": "integer"} for name, shape in inputs.items()}
    return resolve(ModelSpec.model_validate({"inputs": given, "layers": layers}))


@pytest.fixture
def graph() -> Graph:
    """Two inputs, moved about, meet in one table; one of them has a smaller table of its own."""
    return graph_of(
        {"type": "permute", "axes": [1, 0], "inputs": "left"},
        {"type": "flatten", "name": "row"},
        {"type": "concatenate", "name": "both", "inputs": ["row", "right"]},
        {"type": "embedding", "name": "table", "vocabulary": 9, "width": 2},
        {"type": "embedding", "name": "small", "vocabulary": 4, "width": 2, "inputs": "right"},
        {"type": "concatenate", "axis": 0, "inputs": ["table", "small"]},
        left=[2, 3],
        right=[2],
    )


def indices(left: int = 8, right: int = 3) -> dict[str, Any]:
    return {"left": np.full((2, 2, 3), left), "right": np.full((2, 2), right)}


@pytest.mark.parametrize(("left", "right"), [(8, 3), (0, 0)])
def test_the_ends_of_the_range_are_allowed(graph: Graph, left: int, right: int) -> None:
    check_indices(graph, indices(left, right))


@pytest.mark.parametrize(
    ("fault", "embedding", "found", "allowed"),
    [
        ({"left": 9}, "table", "9", "0 .. 8"),
        ({"left": -1}, "table", "-1", "0 .. 8"),
        ({"right": 4}, "small", "4", "0 .. 3"),
        ({"right": 9}, "table", "9", "0 .. 8"),
    ],
)
def test_an_index_outside_is_named(
    graph: Graph, fault: dict[str, int], embedding: str, found: str, allowed: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_indices(graph, indices(**fault))
    (problem,) = caught.value.problems
    assert embedding in problem.message
    assert (problem.found, problem.allowed) == (found, allowed)


def test_one_wrong_index_among_many_is_enough(graph: Graph) -> None:
    given = indices()
    given["left"][1, 0, 2] = 77
    with pytest.raises(InputError, match="77"):
        check_indices(graph, given)


def test_a_model_without_embeddings_takes_any_integers() -> None:
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [2]}}, "layers": [{"type": "relu"}]}))
    check_indices(graph, {"x": np.array([[-5, 10**6]])})


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_way_into_a_program_is_guarded(backend: str) -> None:
    graph = graph_of({"type": "embedding", "name": "table", "vocabulary": 3, "width": 2}, word=[2])
    program = load_backend(backend).compile(graph, initialize(graph, 0), Settings())
    wrong = {"word": np.array([[0, 1], [2, 3]], np.int32)}
    gradient = {"table": np.ones((2, 2, 2), np.float32)}
    with pytest.raises(InputError, match="table"):
        program.predict(wrong)
    with pytest.raises(InputError, match="table"):
        program.activations(wrong)
    if not load_backend(backend).trains:
        return
    with pytest.raises(InputError, match="table"):
        program.differentiate(wrong, gradient)
    if backend == "numpy":  # NumPy looks up with bounds at no cost, so it checks each batch instead of the set
        return
    with pytest.raises(InputError, match="table"):
        program.place(Batchable(wrong, {}))
