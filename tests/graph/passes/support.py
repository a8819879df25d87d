"""What tests of passes share: models, weights that are nowhere trivial, and what NumPy in float64 makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.graph.resolve import resolve
from unitrain.spec.base import validate
from unitrain.spec.model import ModelSpec
from unitrain.spec.yaml import parse_yaml, read_yaml
from unitrain.verify.verdict import judge

ROOT = Path(__file__).parents[3]


def graph_of(text, **arguments):
    return resolve(validate(ModelSpec, parse_yaml(text, "model.yaml")), arguments)


def zoo(name, **arguments):
    """Return a model of models/ in the small size it is verified in, or with other arguments."""
    sizes = yaml.safe_load((ROOT / "scripts/zoo.yaml").read_text(encoding="utf-8"))
    small = next(part[name] for part in sizes.values() if name in part)
    return resolve(validate(ModelSpec, read_yaml(ROOT / f"models/{name}.yaml")), {**small, **arguments})


def random_weights(graph, seed=0):
    """Draw weights: no norm, bias or running statistic is 0 or 1; kernels keep the size of their results."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, parameter in graph.parameters.items():
        values = generator.normal(size=parameter.shape) / max(1.0, parameter.fans[0]) ** 0.5
        if name.endswith("running_variance"):
            values = generator.uniform(0.5, 2.0, parameter.shape)
        elif name.endswith("scale"):
            values = generator.uniform(0.5, 1.5, parameter.shape)
        elif not parameter.decay:
            values = generator.normal(0.0, 0.3, parameter.shape)
        weights[name] = values.astype(np.float32)
    return weights


def random_inputs(graph, samples=3, seed=1):
    generator = np.random.default_rng(seed)
    inputs = {}
    for name, spec in graph.inputs.items():
        shape = (samples, *spec.shape)
        if spec.dtype == "integer":
            inputs[name] = generator.integers(int(spec.low or 0), int(spec.high or 1) + 1, shape).astype(np.int32)
        else:
            inputs[name] = generator.normal(size=shape).astype(np.float32)
    return inputs


def outputs(graph, weights, inputs, backend="numpy", precision="float64"):
    program = load_backend(backend).compile(graph, weights, Settings(precision=precision))
    return program.predict(inputs)


def assert_same(before, after, inputs, backend="numpy"):
    """Hold a rewritten model on a backend to the model it came from, by the verdict rule."""
    reference = outputs(*before, inputs)
    yardstick = outputs(*before, inputs, precision="float32")
    candidate = outputs(*after, inputs, backend, "float32")
    assert candidate.keys() == reference.keys()
    for name, values in reference.items():
        verdict = judge(candidate[name], values, yardstick[name])
        assert verdict.passed, f"{name}: {verdict}"
