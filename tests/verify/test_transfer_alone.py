"""Inference must not mix samples: found although each backend may choose other kernels for other batch sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitrain.backends.torch.program import TorchProgram
from unitrain.verify.session import verify
from unitrain.verify.source import read_subject

MODEL = """\
inputs: {x: {shape: [6]}}
layers:
  - {type: dense, name: hidden, units: 5, activation: tanh}
  - {type: dense, name: out, units: 3}
"""


@pytest.mark.parametrize("planted", [False, True])
def test_a_model_that_looks_at_other_samples_is_found(tmp_path: Path, monkeypatch, planted: bool) -> None:
    (tmp_path / "model.yaml").write_text(MODEL)
    right = TorchProgram.predict

    def mixed(self, inputs, batch_size=256):
        outputs = right(self, inputs, batch_size)
        return {name: array - 0.01 * array.mean(axis=0) for name, array in outputs.items()}

    if planted:
        monkeypatch.setattr(TorchProgram, "predict", mixed)
    report = verify(read_subject(tmp_path / "model.yaml"), {"torch": "cpu"}, levels=["transfer"])
    failed = [item.verdict.reason for item in report.findings if item.failed]
    assert failed == (["a sample alone gives something else than in a batch"] if planted else [])
