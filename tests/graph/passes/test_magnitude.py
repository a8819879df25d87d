"""Magnitude pruning: which weights go."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.passes.support import graph_of, random_weights, zoo
from unitrain.graph.passes.magnitude import magnitude_masks, prune_magnitude, sparsity_of

MLP = """
inputs: {row: {shape: [8]}}
layers:
  - {type: dense, name: first, units: 12}
  - {type: dense, name: last, units: 4}
"""


def test_of_each_kernel_the_smallest_go():
    graph = graph_of(MLP)
    weights = random_weights(graph)
    pruned = prune_magnitude(graph, weights, 0.75).weights
    for name in ("first.kernel", "last.kernel"):
        limit = np.quantile(np.abs(weights[name]), 0.75)
        assert np.array_equal(pruned[name], np.where(np.abs(weights[name]) > limit, weights[name], 0.0))
        assert np.count_nonzero(pruned[name]) == weights[name].size // 4
    assert np.array_equal(pruned["first.bias"], weights["first.bias"])


def test_globally_one_threshold_holds():
    graph = graph_of(MLP)
    weights = random_weights(graph)
    weights["last.kernel"] *= 10.0
    pruned = prune_magnitude(graph, weights, 0.5, scope="global").weights
    together = np.concatenate([weights[name].ravel() for name in ("first.kernel", "last.kernel")])
    limit = np.sort(np.abs(together))[round(0.5 * together.size) - 1]
    for name in ("first.kernel", "last.kernel"):
        assert np.array_equal(pruned[name] != 0.0, np.abs(weights[name]) > limit)
    assert sparsity_of(graph, pruned)["first.kernel"] > sparsity_of(graph, pruned)["last.kernel"]


def test_equal_weights_are_counted():
    graph = graph_of(MLP)
    weights = {name: np.ones_like(array) for name, array in random_weights(graph).items()}
    assert sparsity_of(graph, prune_magnitude(graph, weights, 0.25).weights) == {
        "first.kernel": 0.25,
        "last.kernel": 0.25,
    }


def test_two_of_four_input_channels_stay():
    graph = graph_of(
        "inputs: {image: {shape: [6, 6, 8]}}\nlayers:\n"
        "  - {type: conv2d, name: conv, filters: 3, kernel_size: 3}\n"
        "  - {type: depthwise_conv2d, name: each, kernel_size: 3}\n"
        "  - {type: flatten}\n  - {type: dense, name: last, units: 5}\n"
    )
    weights = random_weights(graph)
    pruned, notes = prune_magnitude(graph, weights, pattern=(2, 4))[1:]
    kernel = weights["conv.kernel"]
    for place in np.ndindex(3, 3, 2, 3):
        *window, run, out = place
        four = np.abs(kernel[(*window, slice(4 * run, 4 * run + 4), out)])
        kept = pruned["conv.kernel"][(*window, slice(4 * run, 4 * run + 4), out)] != 0.0
        assert set(np.flatnonzero(kept)) == set(np.argsort(four)[2:])
    assert (np.count_nonzero(pruned["last.kernel"].reshape(3, 4, 5), axis=1) == 2).all()
    assert notes == ("each.kernel stays: each of its outputs reads one channel",)


def test_channels_that_four_does_not_divide_are_left_with_a_note():
    graph = graph_of("inputs: {row: {shape: [6]}}\nlayers:\n  - {type: dense, name: last, units: 4}\n")
    weights = random_weights(graph)
    pruned, notes = prune_magnitude(graph, weights, pattern=(2, 4))[1:]
    assert np.array_equal(pruned["last.kernel"], weights["last.kernel"])
    assert notes == ("last.kernel stays: its 6 input channels are no multiple of 4",)


def test_tables_and_norms_are_left():
    graph = zoo("gpt_mini")
    masks, _ = magnitude_masks(graph, random_weights(graph), 0.5)
    assert sorted({name.rpartition(".")[2] for name in masks}) == ["kernel", "key", "output", "query", "value"]


@pytest.mark.parametrize(("sparsity", "zeros"), [(0.0, 0), (1.0, 96)])
def test_none_and_all(sparsity, zeros):
    graph = graph_of(MLP)
    pruned = prune_magnitude(graph, random_weights(graph), sparsity).weights
    assert np.count_nonzero(pruned["first.kernel"] == 0.0) == zeros
