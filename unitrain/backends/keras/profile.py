"""Operators of a step by TensorFlow's own profiler, by the layer whose scope they stand in."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import tensorflow as tf

from unitrain.backends.keras.program import KerasProgram
from unitrain.spans import Recorder, Span

# An executed operator of a graph: its scopes, a colon, its kind.
_OPERATOR = re.compile(r"^(?P<scopes>[^:]+):(?P<kind>\w+)$")
# Control flow, whose time is that of what it calls.
_CALLERS = ("While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall")
_LINES = -2000


@contextmanager
def watch(program: KerasProgram, recorder: Recorder) -> Iterator[None]:
    """Record a span for each executed operator, for a while."""
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, options)
        began = perf_counter()
        try:
            yield
        finally:
            tf.profiler.experimental.stop()
        layers = {re.sub(r"[^A-Za-z0-9_.-]", "_", node.name): node.name for node in program.graph.nodes}
        for path in Path(folder).rglob("*.xplane.pb"):
            recorder.spans += _spans(path.read_bytes(), began, layers)


def _spans(data: bytes, began: float, layers: Mapping[str, str]) -> list[Span]:
    """Read a profile: on the host the executors' lines, on a GPU the streams' kernels."""
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    found: list[Span] = []
    space = XSpace.FromString(data)
    on_gpu = any(plane.name.startswith("/device:GPU") and plane.lines for plane in space.planes)
    number = _LINES
    for plane in space.planes:
        if not plane.name.startswith("/device:GPU" if on_gpu else "/host:CPU"):
            continue
        names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
        for line in plane.lines:
            number -= 1
            for event in line.events:
                named = _named(names[event.metadata_id], layers, on_gpu)
                if named is not None:
                    start = began + 1e-9 * line.timestamp_ns + 1e-12 * event.offset_ps
                    found.append(Span(named[0], start, 1e-12 * event.duration_ps, number, "operator", named[1]))
    return found


def _named(name: str, layers: Mapping[str, str], on_gpu: bool) -> tuple[str, str | None] | None:
    """Return how an event is called and its layer; None for what is no operator."""
    match = _OPERATOR.match(name)
    if match is None or match["kind"] in _CALLERS:
        return (name, None) if on_gpu and match is None else None
    scopes = match["scopes"].split("/")
    # Keras numbers a scope that is entered again: conv1, conv1_1.
    places = [layers.get(scope) or layers.get(re.sub(r"_\d+$", "", scope)) for scope in scopes]
    layer: Any = next((place for place in reversed(places) if place is not None), None)
    if layer is None:
        return match["kind"], None
    backward = any("gradient_tape" in scope for scope in scopes)
    return f"{layer} {'backward' if backward else 'forward'}: {match['kind']}", layer
