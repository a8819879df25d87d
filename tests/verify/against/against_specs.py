"""Specs that several tests hold users' models to."""

from __future__ import annotations

from typing import Any

from unitrain.graph.resolve import resolve
from unitrain.spec.model import ModelSpec
from unitrain.verify.against import verify_against
from unitrain.verify.findings import Report
from unitrain.verify.subject import Subject, model_subject


def subject(inputs: dict[str, Any], *layers: dict[str, Any], **more: Any) -> Subject:
    spec = ModelSpec.model_validate({"name": "spec", "inputs": inputs, "layers": list(layers), **more})
    return model_subject("spec", resolve(spec))


def image(*shape: int) -> dict[str, Any]:
    return {"image": {"shape": list(shape)}}


SMALL = (
    {"type": "conv2d", "name": "conv1", "filters": 8, "kernel_size": 3, "padding": "same", "strides": 2},
    {"type": "batch_norm", "name": "bn1"},
    {"type": "relu", "name": "relu1"},
    {"type": "average_pool2d", "name": "pool1", "kernel_size": 3, "strides": 2, "padding": 1},
    {"type": "conv2d", "name": "conv2", "filters": 8, "kernel_size": 3, "padding": "same", "activation": "relu"},
    {"type": "add", "name": "sum", "inputs": ["pool1", "conv2"]},
    {"type": "flatten", "name": "flat"},
    {"type": "dropout", "name": "drop", "rate": 0.5},
    {"type": "dense", "name": "fc1", "units": 16, "activation": "gelu"},
    {"type": "dense", "name": "fc2", "units": 16, "activation": "tanh"},
    {"type": "dense", "name": "logits", "units": 10},
)


def small() -> Subject:
    return subject(image(12, 12, 3), *SMALL)


def against(subject: Subject, foreign: Any, **options: Any) -> Report:
    return verify_against(subject, foreign, **options).report


def told(report: Report) -> list[tuple[str, str]]:
    """The causes: which layer, and why."""
    return [(cause.part, cause.diagnosis) for cause in report.causes]
