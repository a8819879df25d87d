"""Who computes: the reference, the yardsticks that rounding is measured by, and the backends under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unitrain.backends import load_backend, resolve_device
from unitrain.backends.contract import Arrays, Backend, Precision, Program, Settings
from unitrain.backends.precision import check_precision
from unitrain.backends.rule import TrainingRule
from unitrain.graph.graph import Graph
from unitrain.verify.altered import AlteredBackend
from unitrain.verify.noise import HALF_ULP, noise
from unitrain.verify.rounding import rounded
from unitrain.verify.twins import twins
from unitrain.weights.random import stream

Array = npt.NDArray[Any]


@dataclass
class Runner:
    """A backend in one precision, with the programs compiled for it so far.

    Parameters
    ----------
    label
        ``numpy``, ``keras``, ...; ``reference``, ``numpy32`` and ``moved <n>`` for the reference and its yardsticks.
    backend, device, precision, seed
        How programs are compiled.
    moved
        Above 0: every number given is moved at random by up to half an ulp of float32, drawn by this number. Its
        backend moves every result likewise; see `noise`.
    initial_slots
        By program: the optimizer state that it had when it was compiled.
    """

    label: str
    backend: Backend
    device: str
    precision: Precision
    seed: int
    moved: int = 0
    initial_slots: dict[str, dict[str, dict[str, Array]]] = field(default_factory=dict)
    _programs: dict[str, Program] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether its programs train and differentiate, and do not infer only."""
        return getattr(self.backend, "trains", True)

    def program(self, key: str, graph: Graph, weights: Arrays, rule: TrainingRule | None = None) -> Program:
        """Return the program called ``key``, compiled at the first call."""
        if key not in self._programs:
            settings = Settings(self.device, self.precision, self.seed, deterministic=True)
            self._programs[key] = self.backend.compile(graph, self.given(weights, key), settings, rule)
            if rule is not None:
                self.initial_slots[key] = self._programs[key].slots()
        return self._programs[key]

    def given(self, arrays: Arrays, purpose: str) -> dict[str, Array]:
        """Return arrays in the working precision, as this runner is to be given them."""
        return {name: self._given(name, array, purpose) for name, array in arrays.items()}

    def _given(self, name: str, array: Array, purpose: str) -> Array:
        if array.dtype.kind != "f":
            return array
        if self.moved:
            sides = stream(self.moved, "moved", purpose, name).uniform(-1.0, 1.0, array.shape)
            return array.astype(np.float64) * (1.0 + HALF_ULP * sides)
        return rounded(array, self.precision)


@dataclass(frozen=True)
class Cast:
    """All who take part.

    Parameters
    ----------
    reference
        NumPy in float64.
    twin
        NumPy in float64 by other formulas: where it disagrees with the reference, NumPy itself is wrong.
    yardsticks
        NumPy in float32, by two ways to compute, and float64 runs from moved numbers.
    candidates
        The backends under test.
    left_out
        Those that do not compute in the wanted precision, and why.
    """

    reference: Runner
    twin: Runner
    yardsticks: tuple[Runner, ...]
    candidates: tuple[Runner, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, backends: Mapping[str, str], precision: Precision, seed: int, moved: int = 2) -> Cast:
        """Engage the ``backends`` (name to device, such as ``{"torch": "cuda:0"}``).

        Those that do not compute in ``precision`` are left out, unless none is left. Raises `InputError`.
        """
        numpy = load_backend("numpy")
        candidates = []
        left_out: dict[str, Backend] = {}
        for name, device in backends.items():
            backend = load_backend(name)
            if precision not in backend.precisions:
                left_out[name] = backend
                continue
            candidates.append(Runner(name, backend, resolve_device(backend, device), precision, seed))
        yardsticks = [Runner("numpy32", numpy, "cpu", "float32", seed)]
        yardsticks.append(Runner("twin", AlteredBackend(twins), "cpu", "float32", seed))
        for number in range(1, moved + 1):
            backend = AlteredBackend(noise(seed, number))
            yardsticks.append(Runner(f"moved {number}", backend, "cpu", "float64", seed, number))
        if not candidates:
            for name, backend in left_out.items():
                check_precision(name, backend.precisions, precision)
        notes = tuple(f"{name} is left out: it does not compute in {precision}" for name in left_out)
        reference = Runner("reference", numpy, "cpu", "float64", seed)
        twin = Runner("numpy", AlteredBackend(twins), "cpu", "float64", seed)
        return cls(reference, twin, tuple(yardsticks), tuple(candidates), notes)
