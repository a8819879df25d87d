"""From a specification to a graph: blocks, arguments, sharing, order, shapes, counts, and every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.base import load_spec, validate
from unitrain.spec.errors import InputError, Problem
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import parse_yaml, read_yaml

MODELS = Path(__file__).parents[2] / "models"


def graph_of(text: str, **arguments: Any) -> Graph:
    document = parse_yaml(text, file="m.yaml")
    return resolve(validate(ModelSpec, document), arguments, document)


def problem_in(text: str, **arguments: Any) -> Problem:
    with pytest.raises(InputError) as caught:
        graph_of(text, **arguments)
    problem = caught.value.problems[0]
    assert problem.file == "m.yaml"
    return problem


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


ROW = "inputs: {x: {shape: [4]}}\n"


def test_a_sequence_reads_the_layer_before_and_numbers_the_unnamed() -> None:
    graph = graph_of(ROW + "layers: [{type: dense, units: 3}, {type: relu}, {type: dense, units: 2}]\n")
    assert [(node.name, node.inputs, node.output_shape) for node in graph.nodes] == [
        ("dense_1", ("x",), (3,)),
        ("relu_1", ("dense_1",), (3,)),
        ("dense_2", ("relu_1",), (2,)),
    ]
    assert graph.outputs == {"dense_2": "dense_2"}
    assert {name: parameter.shape for name, parameter in graph.parameters.items()} == {
        "dense_1.kernel": (4, 3),
        "dense_1.bias": (3,),
        "dense_2.kernel": (3, 2),
        "dense_2.bias": (2,),
    }


def test_an_activation_becomes_a_node_and_the_output_keeps_the_layers_name() -> None:
    graph = graph_of(ROW + "layers: [{type: dense, name: y, units: 3, activation: relu}]\n")
    assert [(node.name, node.layer.type) for node in graph.nodes] == [("y", "dense"), ("y_activation", "relu")]
    assert graph.outputs == {"y": "y_activation"}
    assert graph.node("y_activation").inputs == ("y",)


def test_forward_references_are_put_in_order() -> None:
    graph = graph_of(
        ROW
        + """
layers:
  - {type: add, name: sum, inputs: [left, right]}
  - {type: dense, name: left, units: 3, inputs: x}
  - {type: dense, name: right, units: 3, inputs: left}
outputs: sum
"""
    )
    assert names(graph) == ["left", "right", "sum"]


def test_several_inputs_and_outputs() -> None:
    graph = graph_of(
        """
inputs: {words: {shape: [5], dtype: integer}, image: {shape: [4, 4, 1]}}
layers:
  - {type: embedding, name: table, inputs: words, vocabulary: 7, width: 2}
  - {type: flatten, name: flat}
  - {type: flatten, name: pixels, inputs: image}
  - {type: concatenate, name: both, inputs: [flat, pixels]}
  - {type: dense, name: first, units: 2, activation: tanh}
  - {type: dense, name: second, units: 1, inputs: both}
outputs: [second, first]
"""
    )
    assert graph.outputs == {"second": "second", "first": "first_activation"}
    assert graph.shape("both") == (26,)
    assert graph.shape("image") == (4, 4, 1)
    assert graph.node("table").dtype == "float"


BLOCKS = """
arguments: {width: 6, repeat: 2}
inputs: {x: {shape: [4]}}
blocks:
  step:
    arguments: {units: null, rate: 0.1}
    layers:
      - {type: dense, name: linear, units: "${units + index}", activation: relu}
      - {type: dropout, name: drop, rate: $rate}
  tower:
    arguments: {units: 3}
    layers:
      - {type: block, name: inner, block: step, repeat: 2, arguments: {units: $units}}
      - {type: dense, name: out, units: $width}
layers:
  - {type: block, name: tower, block: tower, repeat: $repeat, arguments: {units: "${width - 1}"}}
  - {type: dense, name: y, units: 2}
"""


def test_blocks_nest_repeat_count_and_take_arguments() -> None:
    graph = graph_of(BLOCKS)
    assert names(graph) == [
        *(
            f"tower.{outer}.{layer}"
            for outer in (0, 1)
            for layer in (
                "inner.0.linear",
                "inner.0.linear_activation",
                "inner.0.drop",
                "inner.1.linear",
                "inner.1.linear_activation",
                "inner.1.drop",
                "out",
            )
        ),
        "y",
    ]
    shapes = {name: parameter.shape for name, parameter in graph.parameters.items() if "kernel" in name}
    assert shapes == {
        "tower.0.inner.0.linear.kernel": (4, 5),
        "tower.0.inner.1.linear.kernel": (5, 6),
        "tower.0.out.kernel": (6, 6),
        "tower.1.inner.0.linear.kernel": (6, 5),
        "tower.1.inner.1.linear.kernel": (5, 6),
        "tower.1.out.kernel": (6, 6),
        "y.kernel": (6, 2),
    }


def test_arguments_of_the_model_replace_their_defaults() -> None:
    graph = graph_of(BLOCKS, width=9, repeat=1)
    assert graph.parameters["tower.inner.0.linear.kernel"].shape == (4, 8)
    assert graph.shape("tower.out") == (9,)


def test_a_block_with_several_outputs_is_read_by_a_dot() -> None:
    graph = graph_of(
        ROW
        + """
blocks:
  fork:
    inputs: [a, b]
    layers:
      - {type: dense, name: left, units: 2, inputs: a}
      - {type: dense, name: right, units: 3, inputs: b}
    outputs: [left, right]
layers:
  - {type: block, name: fork, block: fork, inputs: [x, x]}
  - {type: concatenate, name: y, inputs: [fork.right, fork.left, fork]}
"""
    )
    assert graph.node("y").inputs == ("fork.right", "fork.left", "fork.left")
    assert graph.shape("y") == (7,)


def test_a_block_of_two_outputs_repeats_into_its_two_inputs() -> None:
    graph = graph_of(
        ROW
        + """
blocks:
  cross:
    inputs: [a, b]
    layers:
      - {type: dense, name: left, units: 4, inputs: b}
      - {type: dense, name: right, units: 4, inputs: a}
    outputs: [left, right]
layers:
  - {type: block, name: c, block: cross, inputs: [x, x], repeat: 2}
  - {type: add, name: y, inputs: [c.left, c.right]}
"""
    )
    assert graph.node("c.1.left").inputs == ("c.0.right",)
    assert graph.node("c.1.right").inputs == ("c.0.left",)


TOWER = """
arguments: {depth: 2}
inputs:
  x: {shape: [3, 4]}
  kept: {shape: [3], dtype: integer, low: 0, high: 1}
blocks:
  look:
    inputs: [input, mask]
    layers:
      - {type: attention, name: look, heads: 2, inputs: input, mask: mask}
layers:
  - {type: dense, name: first, units: 4, inputs: x}
  - {type: block, name: tower, block: look, repeat: $depth, inputs: [first, kept]}
  - {type: mean, name: y, axis: 0, inputs: tower, mask: kept}
"""


def test_an_input_without_an_output_is_given_to_every_repeat() -> None:
    graph = graph_of(TOWER)
    assert graph.node("tower.0.look").inputs == ("first", "kept")
    assert graph.node("tower.1.look").inputs == ("tower.0.look", "kept")


def test_of_no_repeats_the_input_is_the_result() -> None:
    graph = graph_of(TOWER, depth=0)
    assert [node.name for node in graph.nodes] == ["first", "y"]
    assert graph.node("y").inputs == ("first", "kept")


def test_a_shared_layer_has_one_set_of_weights() -> None:
    graph = graph_of(
        ROW
        + """
layers:
  - {type: dense, name: first, units: 4, activation: relu}
  - {type: shared, name: again, layer: first}
  - {type: add, name: y, inputs: [first, again]}
"""
    )
    assert graph.node("again").parameters == graph.node("first").parameters
    assert graph.node("again").owner == "first"
    assert graph.node("again_activation").inputs == ("again",)
    assert graph.parameter_count(trainable=True) == 4 * 4 + 4
    assert graph.macs == 2 * 16


def test_a_shared_block_shares_every_layer_of_every_repeat() -> None:
    graph = graph_of(
        """
inputs: {a: {shape: [4]}, b: {shape: [4]}}
blocks:
  tower:
    layers: [{type: dense, name: one, units: 4}, {type: batch_norm, name: norm}]
layers:
  - {type: block, name: left, block: tower, repeat: 2, inputs: a}
  - {type: shared, name: right, layer: left, inputs: b}
  - {type: add, name: y, inputs: [left, right]}
"""
    )
    assert graph.node("right.1.norm").parameters == graph.node("left.1.norm").parameters
    assert graph.node("right.0.one").inputs == ("b",)
    assert all(name.startswith("left.") for name in graph.parameters)
    assert graph.parameter_count(trainable=True) == 2 * (4 * 4 + 4 + 8)
    assert graph.parameter_count(trainable=False) == 2 * 8


# Published or worked out by hand: parameters, running statistics, multiply-accumulates.
COUNTS = {
    # LeCun et al. 1998 with full connections between the feature maps, as everyone builds it.
    "lenet5": (
        (6 * 25 + 6) + (16 * 6 * 25 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10),
        0,
        28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10,
    ),
    "mlp": (30 * 64 + 64 + 64 * 64 + 64 + 64 * 2 + 2, 0, 30 * 64 + 64 * 64 + 64 * 2),
    "cnn": (
        (9 * 32 + 32) + (9 * 32 * 64 + 64) + (49 * 64 * 128 + 128) + (128 * 10 + 10),
        0,
        28 * 28 * 9 * 32 + 14 * 14 * 9 * 32 * 64 + 49 * 64 * 128 + 1280,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_models(name: str) -> None:
    graph = resolve(load_spec(ModelSpec, MODELS / f"{name}.yaml"))
    counts = (graph.parameter_count(trainable=True), graph.parameter_count(trainable=False), graph.macs)
    assert counts == COUNTS[name]


def test_the_published_sizes() -> None:
    lenet = resolve(load_spec(ModelSpec, MODELS / "lenet5.yaml"))
    assert lenet.parameter_count(trainable=True) == 61_706
    # He et al. 2015, table 6 says 0.27 M for shortcuts without weights; two 1 x 1 projections with their norms
    # add 16 * 32 + 32 * 64 and 2 * (32 + 64).
    resnet = resolve(load_spec(ModelSpec, MODELS / "resnet20.yaml"))
    assert resnet.parameter_count(trainable=True) == 269_722 + 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert resnet.macs == pytest.approx(41e6, rel=0.02)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_model_resolves(path: Path) -> None:
    document = read_yaml(path)
    graph = resolve(validate(ModelSpec, document), document=document)
    known = set(graph.inputs)
    for node in graph.nodes:
        assert known.issuperset(node.inputs), "not in topological order"
        known.add(node.name)


def test_expressions_compute() -> None:
    head = 'arguments: {a: 7, b: 2, name: relu, size: [3, 2]}\ninputs: {x: {shape: ["${a * b}", 4, 1]}}\n'
    graph = graph_of(
        head
        + """
layers:
  - {type: conv2d, filters: "${a // b + a % b - -1}", kernel_size: $size, activation: $name}
  - {type: flatten}
  - {type: dense, units: "${3 if a > b else 5}"}
  - {type: leaky_relu, slope: "${1 / b}"}
"""
    )
    assert graph.inputs["x"].shape == (14, 4, 1)
    assert graph.shape("conv2d_1_activation") == (12, 3, 5)
    assert graph.shape("dense_1") == (3,)
    assert getattr(graph.node("leaky_relu_1").layer, "slope") == 0.5  # noqa: B009  (a field of this layer only)


MISTAKES = {
    "unknown input": (
        ROW + "layers:\n  - {type: dense, name: hidden, units: 2}\n  - {type: relu, inputs: hiden}\n",
        (4, ("layers", 1, "inputs"), "unknown layer or input 'hiden'", "did you mean 'hidden'?"),
    ),
    "cycle": (
        ROW + "layers:\n  - {type: add, name: a, inputs: [x, b]}\n  - {type: relu, name: b, inputs: a}\n",
        (3, ("layers", 0, "inputs"), "the layers form a cycle: a -> b -> a", None),
    ),
    "reads itself": (
        ROW + "layers:\n  - {type: relu, name: a, inputs: a}\n",
        (3, ("layers", 0, "inputs"), "the layers form a cycle: a -> a", None),
    ),
    "duplicate name": (
        ROW + "layers:\n  - {type: relu, name: a}\n  - {type: tanh, name: a}\n",
        (4, ("layers", 1, "name"), "the name 'a' is taken by layer 1 of the list", None),
    ),
    "name of an input": (
        ROW + "layers:\n  - {type: relu, name: x}\n",
        (3, ("layers", 0, "name"), "the name 'x' is taken by an input", None),
    ),
    "name of an activation": (
        ROW + "layers:\n  - {type: dense, name: a, units: 2, activation: relu}\n  - {type: relu, name: a_activation}\n",
        (4, ("layers", 1), "the name 'a_activation' is taken", None),
    ),
    "dead layer": (
        ROW + "layers:\n  - {type: relu, name: a}\n  - {type: tanh, name: b, inputs: x}\n",
        (3, ("layers", 0), "layer 'a' feeds no output", "name it in an `inputs:` or in `outputs:`"),
    ),
    "dead shared layer": (
        ROW + "layers:\n  - {type: dense, name: a, units: 4}\n  - {type: shared, name: s, layer: a}\n"
        "  - {type: relu, inputs: a}\n",
        (4, ("layers", 1), "layer 's' feeds no output", "name it in an `inputs:` or in `outputs:`"),
    ),
    "dead layer in a block": (
        ROW + "blocks:\n  b:\n    layers:\n      - {type: relu, name: a}\n      - {type: tanh, inputs: input}\n"
        "layers: [{type: block, block: b}]\n",
        (5, ("blocks", "b", "layers", 0), "layer 'a' feeds no output", "name it in an `inputs:` or in `outputs:`"),
    ),
    "unread input": (
        "inputs:\n  x: {shape: [4]}\n  y: {shape: [4]}\nlayers: [{type: relu, inputs: x}]\n",
        (1, ("inputs",), "no layer reads the input 'y'", None),
    ),
    "unread input of a block": (
        ROW + "blocks:\n  b:\n    inputs: [p, q]\n    layers: [{type: relu, inputs: p}]\n"
        "layers: [{type: block, block: b, inputs: [x, x]}]\n",
        (4, ("blocks", "b", "inputs"), "no layer reads the input 'q'", None),
    ),
    "unknown output": (
        ROW + "layers:\n  - {type: relu, name: hidden}\noutputs: [hiden]\n",
        (4, ("outputs",), "unknown layer or input 'hiden'", "did you mean 'hidden'?"),
    ),
    "an input as output": (
        ROW + "layers:\n  - {type: relu}\noutputs: x\n",
        (4, ("outputs",), "the output 'x' is an input", None),
    ),
    "an output twice": (
        ROW + "layers:\n  - {type: relu, name: a}\noutputs: [a, a]\n",
        (4, ("outputs",), "an output is named twice", None),
    ),
    "first of several inputs": (
        "inputs: {x: {shape: [4]}, y: {shape: [4]}}\nlayers:\n  - {type: relu}\n",
        (3, ("layers", 0), "the first layer must name its inputs when there are several", None),
    ),
    "too few inputs": (
        ROW + "layers:\n  - {type: add, inputs: x}\n",
        (3, ("layers", 0, "inputs"), "add takes 2 or more inputs", None),
    ),
    "too many inputs": (
        ROW + "layers:\n  - {type: relu, inputs: [x, x]}\n",
        (3, ("layers", 0, "inputs"), "relu takes 1 input", None),
    ),
    "integers where floats belong": (
        "inputs: {x: {shape: [4], dtype: integer}}\nlayers:\n  - {type: dense, units: 2}\n",
        (3, ("layers", 0, "inputs"), "dense reads float values", "an embedding turns integers into floats"),
    ),
    "floats where integers belong": (
        ROW + "layers:\n  - {type: embedding, vocabulary: 3, width: 2}\n",
        (3, ("layers", 0, "inputs"), "embedding reads integer values", None),
    ),
    "unknown block": (
        ROW + "blocks: {step: {layers: [{type: relu}]}}\nlayers:\n  - {type: block, block: stop}\n",
        (4, ("layers", 0, "block"), "unknown block 'stop'", "did you mean 'step'?"),
    ),
    "block that uses itself": (
        ROW + "blocks:\n  a: {layers: [{type: block, block: b}]}\n  b:\n    layers:\n      - {type: block, block: a}\n"
        "layers:\n  - {type: block, block: a}\n",
        (6, ("blocks", "b", "layers", 0, "block"), "block 'a' uses itself: a -> b -> a", None),
    ),
    "unknown argument of a block": (
        ROW + "blocks: {a: {arguments: {width: 2}, layers: [{type: dense, units: $width}]}}\n"
        "layers:\n  - {type: block, block: a, arguments: {widht: 3}}\n",
        (4, ("layers", 0, "arguments", "widht"), "unknown argument of block 'a' 'widht'", "did you mean 'width'?"),
    ),
    "missing argument of a block": (
        ROW + "blocks: {a: {arguments: {width: null}, layers: [{type: dense, units: $width}]}}\n"
        "layers:\n  - {type: block, block: a}\n",
        (4, ("layers", 0, "arguments"), "block 'a' needs the argument 'width'", None),
    ),
    "unknown argument": (
        "arguments: {width: 3}\n" + ROW + "layers:\n  - {type: dense, units: $widht}\n",
        (4, ("layers", 0, "units"), "unknown argument 'widht'", "did you mean 'width'?"),
    ),
    "not an expression": (
        ROW + "layers:\n  - {type: dense, units: '${__import__(1)}'}\n",
        (3, ("layers", 0, "units"), "not an expression", None),
    ),
    "division by zero": (
        "arguments: {a: 0}\n" + ROW + "layers:\n  - {type: dense, units: '${1 // a}'}\n",
        (4, ("layers", 0, "units"), "cannot be computed: integer division or modulo by zero", None),
    ),
    "argument of the wrong kind": (
        "arguments: {a: -3}\n" + ROW + "layers:\n  - {type: dense, units: $a}\n",
        (4, ("layers", 0, "units"), "wrong value", None),
    ),
    "block inputs": (
        ROW + "blocks: {a: {inputs: [p, q], layers: [{type: add, inputs: [p, q]}]}}\n"
        "layers:\n  - {type: block, block: a}\n",
        (4, ("layers", 0), "block 'a' takes 2 inputs and is given 1", None),
    ),
    "unknown part of a block": (
        ROW + "blocks: {a: {layers: [{type: relu, name: left}, {type: tanh, name: right, inputs: left}],"
        " outputs: [left, right]}}\n"
        "layers:\n  - {type: block, name: b, block: a}\n  - {type: relu, inputs: b.rigth}\n",
        (5, ("layers", 1, "inputs"), "unknown output of 'b' 'rigth'", "did you mean 'right'?"),
    ),
    "sharing what is shared": (
        ROW
        + "layers:\n  - {type: relu, name: a}\n  - {type: shared, name: b, layer: a}\n  - {type: shared, layer: b}\n",
        (5, ("layers", 2, "layer"), "'b' is shared itself; name the layer that owns the weights", "layer: a"),
    ),
    "sharing what is not there": (
        ROW + "layers:\n  - {type: relu, name: first}\n  - {type: shared, layer: frist}\n",
        (4, ("layers", 1, "layer"), "unknown layer 'frist'", "did you mean 'first'?"),
    ),
    "shared weights of another size": (
        ROW + "layers:\n  - {type: dense, name: a, units: 3}\n  - {type: shared, name: b, layer: a}\n",
        (4, ("layers", 1), "'b' shares a.kernel [4, 3], but its input needs [3, 3]", None),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place(name: str) -> None:
    text, expected = MISTAKES[name]
    problem = problem_in(text)
    assert (problem.line, problem.field, problem.message, problem.hint) == expected


CLASHES = {
    "add": (
        "inputs: {a: {shape: [4, 4, 8]}, b: {shape: [2, 2, 8]}}\nlayers: [{type: add, name: y, inputs: [a, b]}]\n",
        ["[batch, 4, 4, 8]", "[batch, 2, 2, 8]"],
    ),
    "concatenate": (
        "inputs: {a: {shape: [4, 3]}, b: {shape: [5, 3]}}\nlayers: [{type: concatenate, name: y, inputs: [a, b]}]\n",
        ["[batch, 4, 3]", "[batch, 5, 3]"],
    ),
    "rank": (
        "inputs: {a: {shape: [16]}}\nlayers: [{type: conv2d, name: y, filters: 2, kernel_size: 3}]\n",
        ["(height, width, channel)", "[batch, 16]"],
    ),
    "window": (
        "inputs: {a: {shape: [4, 4, 1]}}\nlayers: [{type: conv2d, name: y, filters: 2, kernel_size: 5}]\n",
        ["reaches 5", "axis of 4", "[batch, 4, 4, 1]"],
    ),
    "reshape": (
        "inputs: {a: {shape: [4, 3]}}\nlayers: [{type: reshape, name: y, shape: [5, -1]}]\n",
        ["12 elements", "[batch, 4, 3]"],
    ),
    "groups": (
        "inputs: {a: {shape: [4, 4, 3]}}\nlayers: [{type: conv2d, name: y, filters: 4, kernel_size: 1, groups: 2}]\n",
        ["groups 2", "3 input channels", "[batch, 4, 4, 3]"],
    ),
    "permute": ("inputs: {a: {shape: [4, 3]}}\nlayers: [{type: permute, name: y, axes: [0, 0]}]\n", ["[batch, 4, 3]"]),
    "softmax": ("inputs: {a: {shape: [4]}}\nlayers: [{type: softmax, name: y, axis: 1}]\n", ["axis 1", "[batch, 4]"]),
    "padding as large as the window": (
        "inputs: {a: {shape: [4, 4, 1]}}\nlayers: [{type: max_pool2d, name: y, kernel_size: 2, padding: 2}]\n",
        ["nothing to pool", "[batch, 4, 4, 1]"],
    ),
    "a window in the padding": (
        "inputs: {a: {shape: [1, 3]}}\n"
        "layers: [{type: average_pool1d, name: y, kernel_size: 2, strides: 1, dilation: 2, padding: same}]\n",
        ["nothing to pool", "[batch, 1, 3]"],
    ),
}


@pytest.mark.parametrize("name", CLASHES)
def test_a_clash_of_shapes_shows_them(name: str) -> None:
    text, parts = CLASHES[name]
    problem = problem_in(text)
    assert (problem.line, problem.field) == (2, ("layers", 0))
    shown = f"{problem.message} {problem.found}"
    assert [part for part in ["'y'", *parts] if part not in shown] == []


def test_an_unknown_argument_of_the_model_is_told() -> None:
    problem = problem_in("arguments: {width: 3}\n" + ROW + "layers: [{type: relu}]\n", widht=3)
    assert problem.message == "unknown model argument 'widht'"
    assert problem.hint == "did you mean 'width'?"


def test_a_model_that_grows_without_end_is_stopped() -> None:
    blocks = "\n".join(
        f"  b{level}: {{layers: [{{type: block, block: b{level - 1}, repeat: 100}}]}}" for level in range(1, 6)
    )
    text = ROW + "blocks:\n  b0: {layers: [{type: relu}]}\n" + blocks + "\nlayers: [{type: block, block: b5}]\n"
    assert problem_in(text).message == "the model has too many layers"


@pytest.mark.parametrize(("length", "fits"), [(150, True), (1500, False)])
def test_a_chain_of_forward_references_is_resolved_or_told(length: int, fits: bool) -> None:
    layers = [
        f"  - {{type: relu, name: r{i}, inputs: {f'r{i + 1}' if i < length - 1 else 'x'}}}" for i in range(length)
    ]
    text = ROW + "layers:\n" + "\n".join(layers) + "\noutputs: r0\n"
    if fits:
        assert names(graph_of(text)) == [f"r{i}" for i in reversed(range(length))]
    else:
        assert problem_in(text).hint == "list the layers in the order of computation"


def test_a_long_sequence_is_no_chain_of_forward_references() -> None:
    assert len(graph_of(ROW + "layers:\n" + "  - {type: relu}\n" * 1500).nodes) == 1500
