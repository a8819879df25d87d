"""The whole chain, with a fault planted in a real backend: drawn, checked, shrunk, written, and seen again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from unitrain.spec.yaml import read_yaml
from unitrain.verify.fuzz.case import VerifyCase, read_case
from unitrain.verify.fuzz.check import Failure, failures
from unitrain.verify.fuzz.generate import draw_case
from unitrain.verify.fuzz.session import run_fuzz

BACKENDS = {"torch": "cpu"}
check = partial(failures, backends=BACKENDS, levels=("forward",))


def _has(case: VerifyCase, kind: str) -> bool:
    return any(node.layer.type == kind for node in case.graph().nodes)


def _has_alone(case: VerifyCase, kind: str) -> bool:
    """Tell whether a layer is of a kind, and not only the activation of another, with which it stays."""
    return any(node.layer.type == kind and not node.name.endswith("_activation") for node in case.graph().nodes)


def test_a_fault_in_torch_is_found_and_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in range(200) if _has_alone(draw_case(seed, 0), "leaky_relu"))

    def forward(self: torch.nn.LeakyReLU, x: torch.Tensor) -> torch.Tensor:
        # Keras' slope, whatever the spec says.
        return torch.nn.functional.leaky_relu(x, 0.3001)

    monkeypatch.setattr(torch.nn.LeakyReLU, "forward", forward)
    result = run_fuzz(1, seed, None, tmp_path, check)
    assert [found.kind for found in result.failures] == ["torch forward leaky_relu"]
    case = read_case(read_yaml(tmp_path / "failure-0.yaml"))
    assert [node.layer.type for node in case.graph().nodes] == ["leaky_relu"]
    assert check(case)
    monkeypatch.undo()
    assert not check(case)


@pytest.mark.parametrize("number", range(4))
def test_drawn_cases_pass(number: int) -> None:
    assert failures(draw_case(11, number), {"numpy": "cpu", **BACKENDS}) == []


def test_what_a_framework_raises_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(torch.nn.LeakyReLU, "forward", broken)
    case = next(case for case in (draw_case(seed, 0) for seed in range(200)) if _has(case, "leaky_relu"))
    found = check(case)
    assert found
    assert all(isinstance(failure, Failure) for failure in found)
    assert "no kernel for this" in " ".join(failure.message for failure in found)
