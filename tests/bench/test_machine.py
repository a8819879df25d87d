"""What is said of the machine: descriptions, peaks of memory, the bytes that a bandwidth is counted from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unitrain import machine
from unitrain.bench import machine as ceilings
from unitrain.bench.session import measure_ceilings
from unitrain.bench.sides import choose_sides


def test_the_machine_is_described():
    found = machine.describe()
    assert found["processor"]
    assert found["processors"] == machine.processors() >= 1
    assert "openblas" in found["blas"] or found["blas"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process' own peak")
def test_an_array_shows_in_the_peak_and_is_forgotten_by_the_next():
    before = machine.reset_peak_memory()
    if before is None:
        pytest.skip("this system does not let the peak be reset")
    array = np.ones(8 << 20)  # 64 MiB, written to
    assert machine.peak_memory() - before >= 0.95 * array.nbytes
    del array
    before = machine.reset_peak_memory()
    assert machine.peak_memory() - before < 16 << 20


def test_bandwidth_counts_what_is_read_and_written(monkeypatch):
    done: list[str] = []

    def one_second(call: Callable[[], Any], *_: Any) -> float:
        call()
        done.append("call")
        return 1.0

    monkeypatch.setattr(ceilings, "best_of", one_second)
    # Copy moves two arrays, add and triad three: of 1000 float32 in one second 12,000 bytes.
    assert ceilings.memory_bandwidth(2, size=1000) == 3 * 4 * 1000
    assert len(done) == 3


def test_best_of_is_the_shortest():
    assert 0.0 < ceilings.best_of(lambda: None, lambda: None, 0.0) < 1.0


def test_ceilings_are_those_of_the_side_that_is_best(monkeypatch):
    monkeypatch.setattr(ceilings, "memory_bandwidth", lambda *_: 7e9)
    sides = choose_sides(["numpy", "onnx"], ["cpu"], 1).by_device["cpu"]
    found = measure_ceilings(sides, "cpu", 1, quick=True)
    assert found.bandwidth == 7e9
    assert found.flops > 1e8
    assert list(found.empty) == ["numpy"]  # onnxruntime has no operations by themselves
    assert measure_ceilings(sides[1:], "cpu", 1, quick=True).flops > 1e8
