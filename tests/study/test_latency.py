"""Files are loaded anew from round to round, as often as their loading time allows."""

from __future__ import annotations

import time

import numpy as np
import pytest

from unitrain.backends.onnx.deployed import Deployed, Port
from unitrain.study.latency import LOADING_SECONDS, loaded
from unitrain.timing import measure

PORT = Port("x", "float32", (None, 1))


class Session:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.calls += 1
        return list(inputs.values())


@pytest.mark.parametrize(("seconds", "sessions"), [(0.0, 7), (1.5 * LOADING_SECONDS, 4)])
def test_files_are_loaded_anew_in_rounds(tmp_path, monkeypatch, seconds, sessions):
    clock = [0.0]
    made: list[Session] = []

    def load() -> Deployed:
        clock[0] += seconds
        made.append(Session())
        return Deployed(tmp_path / "model.onnx", made[-1], (PORT,), (PORT,))

    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: clock[0])
        contender = loaded("fp32", load, {"x": np.zeros((1, 1), np.float32)})
    # A first run makes the caller's memory; the first session serves while calls are counted, before the rounds.
    assert [session.calls for session in made] == [1]
    measure([contender], rounds=6, generator=np.random.default_rng(0), sample_seconds=1e-4, each=True)
    # Six rounds: each has its own where loading is quick, every second where it takes one and a half times what it may.
    assert len(made) == sessions
    assert all(session.calls >= 3 for session in made)
