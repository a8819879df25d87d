"""Keras on TensorFlow: graphs as functional ``keras.Model`` objects, trained by compiled blocks of steps."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from unitrain.backends.contract import Arrays, Candidate, Precision, Program, Settings
from unitrain.backends.precision import HALF
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.spec.errors import InputError


@contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold back what is written to the process' standard error; show it only if the body fails.

    TensorFlow's compiled parts log to it while they are loaded, before any log level applies.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed, as under a daemon
        yield
        return
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            except BaseException:
                os.dup2(kept, 2)
                held.seek(0)
                os.write(2, held.read())
                raise
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)


os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# What goes wrong is raised. What it logs as an error is none: that oneDNN does not take some kind of number.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# On processors without AVX512_VNNI TensorFlow leaves oneDNN's kernels off unless told: a step of LeNet takes four times
# as long then. It reads this when it is loaded.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
with _held_stderr():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        GPUS = len(tf.config.list_physical_devices("GPU"))

if keras.backend.backend() != "tensorflow":
    raise InputError(
        "the backend 'keras' runs Keras on TensorFlow, and Keras is set to another backend in this process",
        found=keras.backend.backend(),
        allowed="tensorflow",
        hint="set the environment variable KERAS_BACKEND=tensorflow before Keras is imported",
    )


class KerasBackend:
    """The backend ``keras``."""

    name = "keras"
    trains = True
    precisions: tuple[Precision, ...] = ("float32", "float64", *HALF)

    def devices(self) -> list[str]:
        """Return ``cpu`` and one ``cuda:N`` for each GPU that TensorFlow sees."""
        return ["cpu", *(f"cuda:{index}" for index in range(GPUS))]

    def layer_types(self) -> frozenset[str]:
        """Return the layer types that have an implementation."""
        from unitrain.backends.keras.model import implemented_types

        return implemented_types()

    def candidates(self, graph: Graph, settings: Settings) -> tuple[Candidate, ...]:
        """List the forms in which programs of this graph can train here, the standard one first."""
        from unitrain.backends.keras.candidates import candidates

        return candidates(graph, settings)

    def build(self, graph: Graph, weights: Arrays, settings: Settings) -> Any:
        """Build a functional ``keras.Model`` with these weights.

        It is a model like any other: ``compile``, ``fit`` and ``save`` work. One input or output is a plain
        tensor; several are dictionaries keyed by the graph's names. Layers have the names of the nodes. Where
        the graph uses layers that Keras lacks, ``import unitrain.backends.keras.model`` before loading
        a saved model in another process.
        """
        from unitrain.backends.keras.model import build_model

        return build_model(graph, weights, settings).model

    def compile(self, graph: Graph, weights: Arrays, settings: Settings, rule: TrainingRule | None = None) -> Program:
        """Compile a program; without a ``rule`` it serves inference and differentiation only."""
        from unitrain.backends.keras.program import KerasProgram

        return KerasProgram(graph, weights, settings, rule)


BACKEND = KerasBackend()
