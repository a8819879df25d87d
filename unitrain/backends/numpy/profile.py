"""Seconds of each layer, forward and backward, and of what a step does beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any
from unittest.mock import patch

from unitrain.backends.numpy import program as steps
from unitrain.backends.numpy.program import NumpyProgram
from unitrain.backends.numpy.registry import IMPLEMENTATIONS, Array, Context, Forward, Gradients, Result
from unitrain.spans import Recorder


@contextmanager
def watch(program: NumpyProgram, recorder: Recorder) -> Iterator[None]:
    """Record a span for everything of a training step, for a while.

    The implementations in the table of layers are exchanged for ones that look at the clock, so that nothing is
    asked of them at other times.
    """
    with ExitStack() as stack:
        # Where two layers have changed places, as pooling and ReLU have, each is called by its own name.
        names = {id(node.layer): node.name for node in program.graph.nodes}
        timed = {layer: _timed_layer(forward, recorder, names) for layer, forward in IMPLEMENTATIONS.items()}
        stack.enter_context(patch.dict(IMPLEMENTATIONS, timed))
        parts: list[tuple[Any, str, str]] = [
            (steps, "_gather", "gather batch"),
            (program, "_loss", "loss"),
            (program, "_accumulate", "sum gradients"),
        ]
        if program._flat is not None:
            parts.append((program._flat, "update", "optimizer"))
        for owner, attribute, name in parts:
            timed_part = _timed(getattr(owner, attribute), recorder, name)
            stack.enter_context(patch.object(owner, attribute, timed_part))
        yield


def _timed(call: Callable[..., Any], recorder: Recorder, name: str) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        start = perf_counter()
        result = call(*arguments)
        recorder.add(name, start, "operator")
        return result

    return timed


def _timed_layer(forward: Forward, recorder: Recorder, names: Mapping[int, str]) -> Forward:
    def timed(layer: Any, context: Context, parameters: Any, *inputs: Array) -> Result:
        name = names.get(id(layer), context.node.name)
        start = perf_counter()
        result, back = forward(layer, context, parameters, *inputs)
        recorder.add(f"{name} ({layer.type}) forward", start, "operator", name)

        def timed_back(dy: Array) -> Gradients:
            start = perf_counter()
            gradients = back(dy)
            recorder.add(f"{name} ({layer.type}) backward", start, "operator", name)
            return gradients

        return result, timed_back

    return timed
