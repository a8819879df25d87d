"""Values next to a tie of rounding fall to either level: counted, and excused behind the layer alone."""

from __future__ import annotations

import numpy as np

from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.verify.findings import Finding, TensorName
from unitrain.verify.kinks import count_flips
from unitrain.verify.rounding_flips import echoes_of_rounding
from unitrain.verify.session import verify
from unitrain.verify.subject import model_subject
from unitrain.verify.verdict import Verdict

# Levels lie at whole numbers, so that 2.5 is a tie.
MODEL = ModelSpec.model_validate(
    {
        "inputs": {"x": {"shape": [3]}},
        "layers": [
            {"type": "dense", "name": "first", "units": 3, "use_bias": False},
            {"type": "fake_quantize", "name": "levels", "range": [0.0, 255.0]},
            {"type": "dense", "name": "last", "units": 3, "use_bias": False, "kernel_quantizer": {}},
        ],
    }
)
GRAPH = resolve(MODEL)


def values(number: float) -> dict[str, np.ndarray]:
    x = np.array([[1.0, number, 255.0]])
    rounded = np.rint(x)
    return {"x": x, "first": x, "levels": rounded, "last": rounded}


def weights(number: float) -> dict[str, np.ndarray]:
    kernel = np.diag([127.0, number, 3.0])
    kernel[0] = 127.0
    return {"first.kernel": np.eye(3), "last.kernel": kernel}


def test_a_value_and_a_weight_on_either_side_of_a_tie_are_one_flip_each() -> None:
    ours, theirs = values(2.5 - 1e-9), values(2.5 + 1e-9)
    same = weights(4.0)
    assert count_flips(GRAPH, ours, theirs, (same, same)) == {"levels": 1}
    assert count_flips(GRAPH, ours, values(2.4), (same, same)) == {}
    assert count_flips(GRAPH, ours, ours, (weights(6.5 - 1e-9), weights(6.5 + 1e-9))) == {"last": 1}


def test_a_result_shows_a_level_that_the_input_does_not() -> None:
    """A backend that multiplies by the reciprocal of the step may round the same number otherwise."""
    same = weights(4.0)

    def flips(number: float) -> dict[str, int]:
        ours = values(number)
        theirs = {**ours, "levels": ours["levels"] + np.array([[0.0, 1.0, 0.0]])}
        return count_flips(GRAPH, ours, theirs, (same, same))

    assert flips(2.5 - 1e-7) == {"levels": 1}
    # Nothing but a fault takes a number to another level that is not next to a tie.
    assert flips(2.4) == {}


def test_what_fails_behind_a_flip_is_excused_and_what_fails_before_is_not() -> None:
    subject = model_subject("m", GRAPH)
    names = {part: TensorName("forward", part, "output", "training") for part in ("first", "levels", "last")}
    ours, theirs = values(2.5 - 1e-9), values(2.5 + 1e-9)
    findings = [Finding("torch", name, Verdict(False, 1e6, 1e6, 16.0)) for name in names.values()]

    def excuses(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
        held = [{name: run[part] for part, name in names.items()} for run in (one, other)]
        return [item.excuse for item in echoes_of_rounding(subject, findings, held[1], held[0])]

    assert excuses(ours, theirs) == ["", "flip in levels", "flip in levels"]
    assert excuses(ours, ours) == ["", "", ""]


def test_a_right_model_passes() -> None:
    report = verify(model_subject("m", GRAPH), {"numpy": "cpu", "torch": "cpu", "onnx": "cpu"}, steps=12)
    assert report.passed, report.failures
