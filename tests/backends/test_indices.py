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


def test_columns_have_tables_of_their_own() -> None:
    """What a slice or a part of an axis leaves out is not compared with the table behind it."""
    graph = graph_of(
        {"type": "select", "index": 0, "name": "first", "inputs": "row"},
        {"type": "embedding", "name": "large", "vocabulary": 100, "width": 2},
        {"type": "slice", "start": 1, "name": "rest", "inputs": "row"},
        {"type": "reshape", "shape": [1, 2], "name": "turned"},
        {"type": "split", "part": 1, "name": "last"},
        {"type": "flatten", "name": "flat"},
        {"type": "embedding", "name": "small", "vocabulary": 3, "width": 2},
        {"type": "flatten", "name": "vector"},
        {"type": "add", "inputs": ["large", "vector"]},
        row=[3],
    )
    found = {lookup.node: (lookup.rows, lookup.source, list(lookup.places)) for lookup in graph.lookups}
    assert found == {"large": (100, "row", [0]), "small": (3, "row", [2])}
    check_indices(graph, {"row": np.array([[99, 1000, 2]])})
    check_indices(graph, {"row": np.zeros((0, 3), np.int32)})
    for wrong, name in (([100, 0, 0], "large"), ([0, 0, 3], "small")):
        with pytest.raises(InputError, match=name):
            check_indices(graph, {"row": np.array([[0, 0, 0], wrong])})


def test_any_position_of_what_is_gathered_may_be_an_index() -> None:
    graph = graph_of(
        {"type": "stack", "inputs": ["left", "right"], "name": "both"},
        {"type": "gather", "indices": "chosen", "name": "some"},
        {"type": "permute", "axes": [1, 0], "name": "turned"},
        {"type": "concatenate", "inputs": ["turned", "right_column"], "name": "all"},
        {"type": "embedding", "name": "table", "vocabulary": 5, "width": 2},
        left=[2],
        right=[2],
        chosen=[4],
        right_column=[2, 1],
    )
    found = {(lookup.node, lookup.source): (lookup.rows, list(lookup.places)) for lookup in graph.lookups}
    assert found == {
        ("some", "chosen"): (2, [0, 1, 2, 3]),
        ("table", "left"): (5, [0, 1]),
        ("table", "right"): (5, [0, 1]),
        ("table", "right_column"): (5, [0, 1]),
    }
    with pytest.raises(InputError, match="gather 'some' is given an index outside its input"):
        check_indices(
            graph,
            {
                "left": np.zeros((1, 2), np.int32),
                "right": np.zeros((1, 2), np.int32),
                "right_column": np.zeros((1, 2, 1), np.int32),
                "chosen": np.array([[0, 1, 2, 0]]),
            },
        )


def test_what_is_computed_stands_among_what_is_moved() -> None:
    """A mask is no element of its input, whether it comes first or between: what follows it keeps its places."""
    graph = graph_of(
        {"type": "padding_mask", "name": "mask", "inputs": "left"},
        {"type": "stack", "inputs": ["mask", "left"], "name": "both"},
        {"type": "embedding", "name": "stacked", "vocabulary": 5, "width": 2},
        {"type": "concatenate", "inputs": ["left", "mask", "right"], "name": "row"},
        {"type": "slice", "start": 3, "name": "rest"},
        {"type": "embedding", "name": "sliced", "vocabulary": 6, "width": 2},
        {"type": "flatten", "name": "first", "inputs": "stacked"},
        {"type": "flatten", "name": "second", "inputs": "sliced"},
        {"type": "concatenate", "inputs": ["first", "second"]},
        left=[2],
        right=[3],
    )
    found = {(lookup.node, lookup.source): (lookup.rows, list(lookup.places)) for lookup in graph.lookups}
    assert found == {("stacked", "left"): (5, [0, 1]), ("sliced", "right"): (6, [0, 1, 2])}


def test_one_wrong_index_among_many_is_enough(graph: Graph) -> None:
    given = indices()
    given["left"][1, 0, 2] = 77
    with pytest.raises(InputError, match="77"):
        check_indices(graph, given)


def test_a_model_without_embeddings_takes_any_integers() -> None:
    graph = resolve(ModelSpec.model_validate({"inputs": {"x": {"shape": [2]}}, "layers": [{"type": "relu"}]}))
    check_indices(graph, {"x": np.array([[-5, 10**6]])})


@pytest.mark.parametrize("index", [-1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gathering_outside_is_refused(backend: str, index: int) -> None:
    given = {"x": {"shape": [2, 3]}, "chosen": {"shape": [4], "dtype": "integer"}}
    layer = {"type": "gather", "name": "some", "inputs": "x", "indices": "chosen"}
    graph = resolve(ModelSpec.model_validate({"inputs": given, "layers": [layer]}))
    program = load_backend(backend).compile(graph, {}, Settings())
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    found = program.predict({"x": x, "chosen": np.array([[1, 0, 1, 1]], np.int32)})["some"]
    np.testing.assert_array_equal(found, x[:, [1, 0, 1, 1]])
    with pytest.raises(InputError) as caught:
        program.predict({"x": x, "chosen": np.array([[1, 0, index, 1]], np.int32)})
    (problem,) = caught.value.problems
    assert "some" in problem.message
    assert (problem.found, problem.allowed) == (str(index), "0 .. 1")


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
