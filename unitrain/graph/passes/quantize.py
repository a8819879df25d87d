"""Layers that round to the levels of integers, put where integer arithmetic will do so; and taken out again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.graph.respell import rebuild
from unitrain.spec.errors import InputError, unknown_name
from unitrain.spec.layers import (
    Add,
    AveragePool1d,
    AveragePool2d,
    AveragePool3d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    Conv3d,
    Dense,
    DepthwiseConv1d,
    DepthwiseConv2d,
    Dropout,
    FakeQuantize,
    Flatten,
    GlobalAveragePool,
    LayerSpec,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    Relu,
    Relu6,
    Reshape,
    Sigmoid,
    Softmax,
)
from unitrain.spec.quantization import Quantization
from unitrain.spec.quantizers import KernelQuantizer

PRODUCTS: tuple[type[LayerSpec], ...] = (Dense, Conv1d, Conv2d, Conv3d, DepthwiseConv1d, DepthwiseConv2d)
# What onnxruntime computes in integers beside products.
_COMBINING = (Add, Concatenate, AveragePool1d, AveragePool2d, AveragePool3d, GlobalAveragePool)
# What gives values that it was given, and so has the levels of its input.
_MOVING = (MaxPool1d, MaxPool2d, MaxPool3d, Flatten, Reshape, Dropout)


def insert_fake_quantize(graph: Graph, options: Quantization) -> Graph:
    """Let a model train with what it will compute in integers.

    Kernels of dense layers and convolutions get a quantizer. Layers that round stand behind what enters these and what
    they give, and so around sums, joins and average pooling: where onnxruntime's static quantiser has them. Between a
    product, the batch norm behind it and a ReLU there is none, since they become one operator; what only moves values,
    such as max pooling, has the levels of its input; outputs of the model stay as they are. A model that has such
    layers already is returned as it is.

    Raises
    ------
    InputError
        ``skip`` names an unknown layer, there is nothing to quantise, or a batch norm would change what a kernel with
        one scale is rounded to.
    """
    if any(isinstance(node.layer, FakeQuantize) for node in graph.nodes):
        return graph
    names = [node.name for node in graph.nodes]
    for index, name in enumerate(options.skip):
        if name not in names:
            raise unknown_name("layer of the model", name, names, ("quantization", "skip", index))
    products = [node for node in graph.nodes if isinstance(node.layer, PRODUCTS) and not _skipped(node, options)]
    if not products:
        raise InputError("the model has no dense layer or convolution that could be quantised", field=("quantization",))
    chains = _Chains(graph)
    if options.weights == "per_tensor":
        _refuse_batch_norm(products, chains)
    combining = [node for node in graph.nodes if isinstance(node.layer, _COMBINING) and not _skipped(node, options)]
    rounded = _rounded(graph, [*products, *combining], chains)
    quantizer = KernelQuantizer(bits=options.bits, per_channel=options.weights == "per_channel")
    changed: dict[str, LayerSpec] = {}
    changed |= {node.name: node.layer.model_copy(update={"kernel_quantizer": quantizer}) for node in products}
    behind = {name: _unused(f"{name}_quantizer", names) for name in rounded}
    for node in graph.nodes:
        if node.name in behind and getattr(node.layer, "activation", None) is not None:
            # Its own activation is a layer of its own now, behind the one that rounds.
            changed[node.name] = changed.get(node.name, node.layer).model_copy(update={"activation": None})
    nodes = []
    for node in graph.nodes:
        inputs = tuple(behind.get(name, name) for name in node.inputs)
        nodes.append(replace(node, layer=changed.get(node.name, node.layer), inputs=inputs))
    for name, own in behind.items():
        # A learned step leaves the zero point where it is: in the middle, unless nothing is negative.
        symmetric = options.activations == "learned" and not chains.positive(name, graph)
        layer = FakeQuantize(
            bits=options.bits, range=options.activations, momentum=options.momentum, symmetric=symmetric
        )
        nodes.append(Node(own, layer, (name,), (graph.shape(name),), graph.shape(name), "float", {}))
    return rebuild(graph, _in_order(graph, nodes))


def without_fake_quantize(graph: Graph) -> tuple[Graph, dict[str, Node]]:
    """Take out what `insert_fake_quantize` puts in.

    Returns
    -------
    graph
        The model in floats, with the same parameters but for those of the layers that round.
    rounding
        Name of each node or input whose values were rounded, to the node that rounded them.
    """
    rounding = {node.name: node for node in graph.nodes if isinstance(node.layer, FakeQuantize)}

    def source(name: str) -> str:
        return source(rounding[name].inputs[0]) if name in rounding else name

    nodes = []
    for node in graph.nodes:
        if node.name in rounding:
            continue
        plain = isinstance(node.layer, PRODUCTS)
        layer = node.layer.model_copy(update={"kernel_quantizer": None}) if plain else node.layer
        nodes.append(replace(node, layer=layer, inputs=tuple(map(source, node.inputs))))
    outputs = {output: source(name) for output, name in graph.outputs.items()}
    return rebuild(graph, nodes, outputs), {source(name): node for name, node in rounding.items()}


class _Chains:
    """Who reads what in a graph."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = {node.name: node for node in graph.nodes}
        self.outputs = frozenset(graph.outputs.values())
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)

    def source(self, name: str) -> str:
        """Return whose values these are, that have only been moved since."""
        node = self.nodes.get(name)
        return self.source(node.inputs[0]) if node is not None and isinstance(node.layer, _MOVING) else name

    def positive(self, name: str, graph: Graph) -> bool:
        """Tell whether values are known to be 0 or more."""
        node = self.nodes.get(name)
        if node is None:
            low = graph.inputs[name].low
            return low is not None and low >= 0
        if isinstance(node.layer, Relu | Relu6 | Sigmoid | Softmax):
            return True
        passes = isinstance(node.layer, (*_MOVING, *_COMBINING))
        return passes and all(self.positive(source, graph) for source in node.inputs)

    def end(self, node: Node) -> Node:
        """Return the last node of those that become one operator with this one."""
        readers = self.readers.get(node.name, [])
        if len(readers) != 1 or node.name in self.outputs:
            return node
        behind = readers[0]
        folded = isinstance(behind.layer, BatchNorm) and isinstance(node.layer, PRODUCTS)
        return self.end(behind) if folded or isinstance(behind.layer, Relu | Relu6) else node


def _rounded(graph: Graph, quantised: Iterable[Node], chains: _Chains) -> tuple[str, ...]:
    """Return the names of the values that are rounded, in the order of the graph."""
    found: set[str] = set()
    for node in quantised:
        found.update(chains.source(name) for name in node.inputs)
        end = chains.end(node)
        # What is named as an output stays that layer's, its activation with it.
        if chains.outputs.isdisjoint((end.name, f"{end.name}_activation")):
            found.add(end.name)
    floats = {name for name, given in graph.inputs.items() if given.dtype == "float"}
    floats.update(node.name for node in graph.nodes if node.dtype == "float")
    return tuple(name for name in (*graph.inputs, *chains.nodes) if name in found & floats)


def _refuse_batch_norm(products: Iterable[Node], chains: _Chains) -> None:
    for node in products:
        for reader in chains.readers.get(node.name, []):
            if isinstance(reader.layer, BatchNorm):
                raise InputError(
                    f"the batch norm '{reader.name}' will be folded into the kernel of '{node.name}', each channel by "
                    "a factor of its own, after which one scale no longer fits it",
                    field=("quantization", "weights"),
                    found="per_tensor",
                    allowed="per_channel",
                )


def _skipped(node: Node, options: Quantization) -> bool:
    return node.name in options.skip or node.owner in options.skip


def _unused(name: str, taken: Iterable[str]) -> str:
    return _unused(f"{name}_", taken) if name in taken else name


def _in_order(graph: Graph, nodes: Iterable[Node]) -> list[Node]:
    """Put each node behind what it reads; others keep their order."""
    waiting, done, ordered = list(nodes), set(graph.inputs), list[Node]()
    while waiting:
        ready = next(node for node in waiting if done.issuperset(node.inputs))
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return ordered
