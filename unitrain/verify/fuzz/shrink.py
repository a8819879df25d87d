"""From a failing case to the smallest that still fails: one simplification after another, as long as any is left.

Greedy delta debugging (Zeller & Hildebrandt 2002): candidates are tried from the boldest to the smallest, the first one
that still fails is taken, and the search starts anew. Every simplification makes a measure smaller, so it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from unitrain.graph.graph import Graph
from unitrain.graph.resolve import resolve
from unitrain.spec.errors import InputError
from unitrain.spec.model import ModelSpec
from unitrain.verify.fuzz.case import VerifyCase
from unitrain.verify.fuzz.conditioning import well_conditioned
from unitrain.verify.fuzz.reductions import (
    Plain,
    Shapes,
    fewer_layers,
    fewer_outputs,
    flat_model,
    names_read,
    simpler_fields,
    simpler_training,
    smaller_numbers,
    windows,
    without_arguments,
    without_names,
)

Measure = tuple[int, int, int, float, int]


def shrink(
    case: VerifyCase,
    fails: Callable[[VerifyCase], bool],
    *,
    deadline: float | None = None,
    tries: int = 500,
    tell: Callable[[str], None] = lambda message: None,
) -> VerifyCase:
    """Return the smallest case found that still fails.

    Parameters
    ----------
    case
        A case that fails.
    fails
        Tells whether a case fails in the same way.
    deadline
        Value of `time.monotonic` at which to stop with what has been found.
    tries
        How often ``fails`` is asked at most.
    tell
        Told how far it is.
    """
    best, asked = case, 0
    conditioned = _conditioned(case)
    seen = {case.to_yaml()}
    progress = True
    while progress:
        progress = False
        for candidate in _candidates(best):
            text = candidate.to_yaml()
            if text in seen or not measure(candidate) < measure(best):
                continue
            if conditioned and not _conditioned(candidate):
                # It would fail for another reason than the case does.
                continue
            if asked >= tries or (deadline is not None and time.monotonic() >= deadline):
                return best
            seen.add(text)
            asked += 1
            if fails(candidate):
                best, progress = candidate, True
                tell(f"{len(best.graph().nodes)} layers left after {asked} tries")
                break
    return best


def _conditioned(case: VerifyCase) -> bool:
    return well_conditioned(case.graph(), case.training.batch_size)


def measure(case: VerifyCase) -> Measure:
    """Return how large a case is: layers, then blocks and sharing, then fields written, their sizes, and words."""
    plain = case.to_plain()
    layers = plain["model"]["layers"]
    calls = sum(layer["type"] in ("block", "shared") for layer in layers)
    leaves = list(_leaves(plain))
    # The seed is no part of what is shown.
    size = sum(abs(leaf) for leaf in leaves if isinstance(leaf, (int, float))) - plain.get("seed", 0)
    return (
        len(case.graph().nodes),
        calls + len(case.model.blocks) + len(case.model.arguments),
        len(leaves),
        float(size),
        len(case.to_yaml()),
    )


def _candidates(case: VerifyCase) -> Iterator[VerifyCase]:
    """Yield simpler cases that resolve, the boldest first."""
    graph = case.graph()
    for plain in _simplified(case.to_plain(), case.model, graph):
        candidate = _checked(plain)
        if candidate is not None:
            yield candidate


def _simplified(plain: Plain, model: ModelSpec, graph: Graph) -> Iterator[Plain]:
    yield from simpler_training(plain)
    flat = flat_model(graph)
    called = model.blocks or model.arguments or any(layer["type"] == "shared" for layer in plain["model"]["layers"])
    if called:
        yield _with_model(plain, flat)
    models: list[Callable[[], Iterator[Plain]]] = [
        lambda: windows(plain["model"], _shapes(model, graph)),
        lambda: windows(flat, _flat_shapes(graph)) if called else iter(()),
        lambda: fewer_outputs(plain["model"], tuple(graph.outputs)),
        lambda: fewer_layers(plain["model"]),
        lambda: simpler_fields(plain["model"]),
        lambda: smaller_numbers(plain["model"]),
        lambda: without_arguments(plain["model"]),
        lambda: without_names(plain["model"]),
    ]
    for make in models:
        for simpler in make():
            yield _with_model(plain, simpler)


def _with_model(plain: Plain, model: Plain) -> Plain:
    """Put another model into a case; the losses of outputs that are gone go with them."""
    return {**plain, "model": model}


def _checked(plain: Plain) -> VerifyCase | None:
    """Return a case that resolves; None where the candidate does not."""
    try:
        model = ModelSpec.model_validate(plain["model"])
        outputs = resolve(model).outputs
        losses = {name: loss for name, loss in plain.get("loss", {}).items() if name in outputs}
        case = VerifyCase.model_validate({**plain, "model": model, "loss": losses})
        case.graph()
    except (InputError, ValidationError):
        return None
    return case


def _shapes(model: ModelSpec, graph: Graph) -> Shapes:
    """Return shape and kind of what every name in a model stands for, a block's outputs included."""
    found = {name: (list(given.shape), str(given.dtype)) for name, given in graph.inputs.items()}
    plain = model.to_plain()
    read = [name for layer in plain["layers"] for name in names_read(layer)]
    for name in dict.fromkeys([*read, *(layer["name"] for layer in plain["layers"] if "name" in layer)]):
        if name in found:
            continue
        outputs = dict.fromkeys([*graph.outputs, name])
        try:
            one = resolve(ModelSpec.model_validate({**plain, "outputs": list(outputs)}))
        except InputError:
            continue
        node = one.node(one.outputs[name])
        found[name] = (list(node.output_shape), str(node.dtype))
    return found


def _flat_shapes(graph: Graph) -> Shapes:
    found: dict[str, Any] = {name: (list(given.shape), given.dtype) for name, given in graph.inputs.items()}
    return found | {node.name.replace(".", "_"): (list(node.output_shape), node.dtype) for node in graph.nodes}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
