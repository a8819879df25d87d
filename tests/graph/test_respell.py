"""A graph written back as a specification resolves to the same graph."""

from __future__ import annotations

import pytest
import yaml

from tests.graph.passes.support import ROOT, graph_of, zoo
from unitrain.graph.resolve import resolve
from unitrain.graph.respell import spec_of
from unitrain.spec.base import validate
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import parse_yaml

SIZES = yaml.safe_load((ROOT / "scripts/zoo.yaml").read_text(encoding="utf-8"))


def again(graph):
    """Resolve what a graph is written as, by way of YAML."""
    return resolve(validate(ModelSpec, parse_yaml(spec_of(graph).to_yaml(), "model.yaml")))


@pytest.mark.parametrize("name", [name for part in SIZES.values() for name in part])
def test_models_are_the_same_without_their_blocks(name):
    graph = zoo(name)
    back = again(graph)
    assert dict(back.outputs) == dict(graph.outputs)
    assert dict(back.parameters) == dict(graph.parameters)
    assert [(node.name, node.inputs, node.output_shape, dict(node.parameters)) for node in back.nodes] == [
        (node.name, node.inputs, node.output_shape, dict(node.parameters)) for node in graph.nodes
    ]


SHARED = """
inputs: {left: {shape: [4]}, right: {shape: [4]}, words: {shape: [3], dtype: integer, low: 0, high: 4}}
blocks:
  tower:
    layers:
      - {type: dense, name: wide, units: 5, activation: silu}
      - {type: dense, name: narrow, units: 3, activation: tanh}
layers:
  - {type: block, name: tower, block: tower, inputs: left}
  - {type: shared, name: again, layer: tower, inputs: right}
  - {type: embedding, name: table, vocabulary: 5, width: 3, inputs: words}
  - {type: padding_mask, name: mask, inputs: words}
  - {type: mean, name: middle, inputs: table, mask: mask}
  - {type: add, name: sum, inputs: [tower, again, middle]}
  - {type: tied_projection, name: scores, embedding: table, units: 5, inputs: sum}
outputs: [scores, tower]
"""


def test_shared_layers_ties_masks_and_outputs_of_blocks_stay():
    graph = graph_of(SHARED)
    back = again(graph)
    assert dict(back.parameters) == dict(graph.parameters)
    assert list(back.outputs) == ["scores", "tower"]
    assert [node.name for node in back.nodes[:-1]] == [node.name for node in graph.nodes]
    assert [dict(node.parameters) for node in back.nodes[:-1]] == [dict(node.parameters) for node in graph.nodes]
