"""Builds a graph as a ``torch.nn.Module``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch

from unitrain.backends.contract import Arrays, Settings
from unitrain.backends.precision import MIXED
from unitrain.backends.torch import (  # noqa: F401
    activation,
    arithmetic,
    attention,
    axis,
    conv,
    dense,
    dropout,
    embedding,
    gate,
    mask,
    merge,
    norm,
    pool,
    position,
    projection,
    quantize,
    recurrent,
    resize,
    shape,
    similarity,
    tabular,
    vision,
)

# Imported for what they register: each fills its row of the table.
from unitrain.backends.torch.attention import MultiHeadAttention
from unitrain.backends.torch.mixed import Lowering, raised
from unitrain.backends.torch.quantize import with_quantized_kernels
from unitrain.backends.torch.registry import IMPLEMENTATIONS, Slot
from unitrain.backends.torch.runtime import differentiable, dtype_of
from unitrain.backends.torch.transfer import copied
from unitrain.backends.torch.way import Way, way_through
from unitrain.graph.graph import Graph
from unitrain.graph.node import Node
from unitrain.spec.errors import InputError
from unitrain.spec.layers import LAYER_TYPES, Attention
from unitrain.spec.layers.activation import Relu


def implemented_types() -> frozenset[str]:
    """Return the layer types that have an implementation."""
    return frozenset(name for name, layer in LAYER_TYPES.items() if layer in IMPLEMENTATIONS)


class GraphModule(torch.nn.Module):
    """A graph as a module; see `TorchBackend.build`.

    Parameters
    ----------
    graph
        The resolved model.
    weights
        All parameters, canonical.
    settings
        Device, precision, seed of the dropout masks. In mixed precision parameters and results are float32.
    """

    @differentiable()
    def __init__(self, graph: Graph, weights: Arrays, settings: Settings) -> None:
        super().__init__()
        self.graph = graph
        # Canonical name to where it is: the path of its module, and the slot in it.
        self._places: dict[str, tuple[str, Slot]] = {}
        self._paths: dict[str, str] = {}
        self._way: Way = ()
        self._taken: frozenset[str] = frozenset()
        self._taken = frozenset(name.rstrip("_") for name in dir(self))
        # torch's modules draw initial values, which are replaced: its generator is left where it was.
        with torch.random.fork_rng(devices=[]):
            for node in graph.nodes:
                self._paths[node.name] = self._add(node, settings)
        self._way = way_through(graph, self._paths)
        self.to(device=settings.device, dtype=dtype_of(settings))
        half = MIXED.get(settings.precision)
        self._lowering = Lowering(self, getattr(torch, half)) if half else None
        self.load_canonical(weights)

    def _add(self, node: Node, settings: Settings) -> str:
        """Make the node's module under its name, unless the layer is shared and there already."""
        path = self._path(node.owner)
        own = [name for local, name in node.parameters.items() if local not in node.layer.ties]
        if own and all(name in self._places for name in own):
            module = self.get_submodule(path)
            if isinstance(node.layer, Attention) and isinstance(module, MultiHeadAttention):
                module.share(node.layer, node, settings)
            return path
        made = IMPLEMENTATIONS[type(node.layer)](node.layer, node, settings)
        made = with_quantized_kernels(made, node.layer.parameters(*node.input_shapes))
        parent: torch.nn.Module = self
        *scopes, last = path.split(".")
        for scope, inner in zip(scopes, [*scopes, last][1:], strict=True):
            if scope not in parent._modules:
                # The repeats of a block are numbered and can be indexed: ``model.stage1[0].conv1``.
                parent.add_module(scope, torch.nn.ModuleList() if inner.isdigit() else torch.nn.Module())
            parent = parent.get_submodule(scope)
        parent.add_module(last, made.module)
        for local, canonical in node.parameters.items():
            if canonical in self._places:
                # Tied to a parameter that is there: one tensor, known to both modules.
                made.slots[local].put(made.module, self.tensor(canonical))
            else:
                self._places[canonical] = (path, made.slots[local])
        return path

    def _path(self, name: str) -> str:
        """Return where a node's module stands: its name, with ``_`` behind parts that are attributes here already.

        ``forward`` becomes ``forward_``, and so that no two names meet ``forward_`` becomes ``forward__``.
        """
        return ".".join(f"{part}_" if part.rstrip("_") in self._taken else part for part in name.split("."))

    def tensor(self, canonical: str) -> torch.Tensor:
        """Return the parameter or buffer that holds a canonical parameter."""
        path, slot = self._places[canonical]
        return slot.tensor(self.get_submodule(path))

    def to_torch(self, canonical: str, array: npt.NDArray[Any]) -> torch.Tensor:
        """Bring a canonical array into the layout, dtype and device of its parameter: a copy."""
        held = self.tensor(canonical)
        moved = torch.tensor(self._places[canonical][1].layout.to_torch(array))
        return moved.to(device=held.device, dtype=held.dtype)

    def to_canonical(self, canonical: str, tensor: torch.Tensor) -> npt.NDArray[Any]:
        """Bring a tensor in a parameter's layout back into the canonical one: a copy."""
        return self._places[canonical][1].layout.to_canonical(copied(tensor), self.graph.parameters[canonical].shape)

    @torch.no_grad()
    def load_canonical(self, weights: Arrays) -> None:
        """Take over all parameters, canonical names and layouts."""
        for name in self.graph.parameters:
            self.tensor(name).copy_(self.to_torch(name, weights[name]))

    def canonical_weights(self) -> dict[str, npt.NDArray[Any]]:
        """Return all parameters under canonical names and layouts."""
        return {name: self.to_canonical(name, self.tensor(name)) for name in self.graph.parameters}

    def forward(self, *inputs: torch.Tensor | Mapping[str, torch.Tensor]) -> Any:
        """Compute the outputs.

        Parameters
        ----------
        inputs
            One tensor for each input of the graph, in its order, or one mapping by input name.

        Returns
        -------
        outputs
            The tensor of the only output, or a dictionary by output name.

        Raises
        ------
        InputError
            Inputs are missing or unknown.
        """
        values = self.run(self._named(inputs))
        outputs = {output: values[name] for output, name in self.graph.outputs.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def run(
        self, inputs: Mapping[str, torch.Tensor], *, keep: bool = False, way: Way | None = None
    ) -> dict[str, torch.Tensor]:
        """Compute every node; return all values with ``keep``, else those of the outputs at least.

        With a ``way`` the outputs are the same, bit for bit, and some other values are not.
        """
        way = way or self._way
        if self._lowering is None:
            return self._run(inputs, keep, way)
        with self._lowering.parameters():
            lowered = {name: self._lowering.lowered(tensor) for name, tensor in inputs.items()}
            return raised(self._run(lowered, keep, way))

    def _run(self, inputs: Mapping[str, torch.Tensor], keep: bool, way: Way) -> dict[str, torch.Tensor]:
        values = dict(inputs)
        for step in way:
            given = [values[name] if turn is None else turn(values[name]) for name, turn in step.inputs]
            if step.path is None:
                (found,) = given
            else:
                found = _inside(self, step.path)(*given, **step.options)
            # Norms and embeddings compute in float32.
            values[step.name] = found if self._lowering is None else self._lowering.lowered(found)
            if not keep:
                for name in step.last_read:
                    del values[name]
        return values

    def way_of(self, graph: Graph) -> Way:
        """Return the way through a ``graph`` in which nodes have exchanged layers.

        ReLU is taken in place where it may be: its input has no other reader, and comes from a module that knows how.
        That saves a tensor of the size of its input, which a larger net must bring from memory. Between modules that
        compute channels first, images stay so: each view, and its gradient's, is a call.
        """
        of_layer = {id(node.layer): self._paths[node.name] for node in self.graph.nodes}
        own = {node.name: node.layer for node in self.graph.nodes}
        paths = {
            node.name: self._paths[node.name] if node.layer is own[node.name] else of_layer[id(node.layer)]
            for node in graph.nodes
        }
        if self._lowering is not None:
            return way_through(self.graph, paths)
        modules = {name: self.get_submodule(path) for name, path in paths.items()}
        readers = Counter(name for node in graph.nodes for name in node.inputs)
        readers.update(graph.outputs.values())
        rectified = {
            node.name: node.inputs[0]
            for node in graph.nodes
            if isinstance(node.layer, Relu)
            and readers[node.inputs[0]] == 1
            and getattr(modules.get(node.inputs[0]), "rectifies", False)
        }
        first = {
            node.name
            for node in graph.nodes
            if getattr(modules[node.name], "takes_first", False)
            and len(node.output_shape) == 3
            # Of what is joined axes of size 1 may stretch, from the last one.
            and (len(node.inputs) == 1 or {*node.input_shapes} == {node.output_shape})
            and node.name not in graph.outputs.values()
        }
        return way_through(self.graph, paths, rectified, first)

    def _named(self, inputs: tuple[torch.Tensor | Mapping[str, torch.Tensor], ...]) -> dict[str, torch.Tensor]:
        names = list(self.graph.inputs)
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            named = dict(inputs[0])
        else:
            named = {
                name: tensor for name, tensor in zip(names, inputs, strict=False) if isinstance(tensor, torch.Tensor)
            }
        if named.keys() != self.graph.inputs.keys() or len(inputs) > len(names):
            raise InputError(
                "the inputs do not fit the model", found=", ".join(named) or "none", allowed=", ".join(names)
            )
        return named


def _inside(module: Any, path: str) -> Any:
    """Return the module at a path that is known to be one: ``get_submodule`` checks each part, ten times slower."""
    for part in path.split("."):
        module = module._modules[part]
    return module
