"""The user's weights beside the spec's: all that were stated or guessed, and what is left over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends.foreign import ForeignParameter
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError
from unitrain.spec.layers import BatchNorm
from unitrain.spec.yaml import Document
from unitrain.verify.against.bindings import Binding, Bindings, taken_by
from unitrain.verify.against.layouts import Conversion
from unitrain.verify.against.matching import guessed, same_names
from unitrain.verify.against.weight_map import stated

Array = npt.NDArray[Any]


def bind(
    graph: Graph, theirs: Sequence[ForeignParameter], used: frozenset[str], given: Document | None = None
) -> tuple[Bindings, list[str]]:
    """Say which parameters belong together: those that the map states, and the others by kind, shape, name and order.

    Parameters
    ----------
    graph
        The spec.
    theirs
        The user's parameters in the order of use.
    used
        Names of those that a forward pass reads.
    given
        The user's map.

    Returns
    -------
    bindings, missing
        And the canonical names for which nothing was found.

    Raises
    ------
    InputError
        The map names what is not there, or what does not fit.
    """
    found = stated(graph, theirs, given) if given is not None else {}
    taken = taken_by(found)
    free = [parameter for parameter in theirs if parameter.name not in taken and parameter.name in used]
    found |= same_names(graph, free, found)
    taken = taken_by(found)
    found |= guessed(graph, [parameter for parameter in free if parameter.name not in taken], found)
    return {name: found[name] for name in graph.parameters if name in found}, [
        name for name in graph.parameters if name not in found
    ]


def check_bound(
    graph: Graph,
    bindings: Bindings,
    missing: Sequence[str],
    theirs: Sequence[ForeignParameter],
    used: frozenset[str],
) -> None:
    """Raise `InputError` with what is left on both sides where the spec's parameters are not all found."""
    if not missing:
        return
    taken = taken_by(bindings)
    left = [parameter for parameter in theirs if parameter.name not in taken]
    ours = ", ".join(f"{name} {list(graph.parameters[name].shape)}" for name in missing)
    raise InputError(
        "the weights of the two models do not match up",
        found="in the spec and not in the model: " + ours,
        allowed="in the model and not in the spec: "
        + (
            ", ".join(f"{item.name} {list(item.shape)}" + ("" if item.name in used else " (unused)") for item in left)
            or "nothing"
        ),
        hint="write a map with --write-map map.yaml, complete it, and give it back with --weights map.yaml",
    )


def unfolded(
    graph: Graph, bindings: Bindings, missing: Sequence[str], theirs: Sequence[ForeignParameter]
) -> tuple[Bindings, dict[str, Array], list[str]]:
    """Take batch norms of which a model for inference has nothing left for the identity.

    Exporters multiply them into the convolution or dense layer before. What that had no bias for has now become one:
    it is the norm's bias.

    Returns
    -------
    bindings, stand_ins, missing
        As of `bind`, and the weights of the norms that compute nothing.
    """
    left = set(missing)
    bound = dict(bindings)
    taken = taken_by(bindings)
    stand_ins: dict[str, Array] = {}
    producers = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        names = node.parameters
        before = producers.get(node.inputs[0])
        if not isinstance(node.layer, BatchNorm) or before is None or not left.issuperset(names.values()):
            continue
        kernel = bound.get(before.parameters.get("kernel", ""))
        if kernel is None:
            continue
        channels = node.output_shape[-1]
        own = {"running_mean": 0.0, "running_variance": 1.0 - node.layer.epsilon, "scale": 1.0, "bias": 0.0}
        if "bias" not in before.parameters:
            for parameter in theirs:
                same = parameter.owner == kernel.theirs.owner and parameter.role == "bias"
                if same and parameter.name not in taken and "bias" in names and parameter.shape == (channels,):
                    bound[names["bias"]] = Binding(names["bias"], parameter, Conversion((channels,), (0,), (channels,)))
                    taken.add(parameter.name)
                    own.pop("bias")
                    break
        stand_ins |= {
            names[local]: np.full(channels, value, np.float32) for local, value in own.items() if local in names
        }
        left -= set(names.values())
    return bound, stand_ins, [name for name in missing if name in left]
