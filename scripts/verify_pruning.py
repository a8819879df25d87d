"""Prunes models and holds them to the masked ones on every backend: see scripts/verify-pruning."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from unitrain.backends import load_backend
from unitrain.backends.contract import Settings
from unitrain.graph.passes.prune_channels import prune_channels
from unitrain.graph.resolve import resolve
from unitrain.spec.base import load_spec
from unitrain.spec.model import ModelSpec
from unitrain.verify.subject import draw_input, varied
from unitrain.verify.verdict import judge
from unitrain.weights.random import stream

ROOT = Path(__file__).parents[1]
# Arguments with which half of the channels can go where the sizes of zoo.yaml leave one or two.
WIDER = {
    "resnet18": {"size": 32, "filters": 8},
    "resnet50": {"size": 32, "filters": 8, "deep": 1},
    "mobilenet_v2": {"size": 32, "unit": 2},
    "densenet121": {"size": 32, "growth": 4},
    "unet": {"size": 16, "filters": 4},
    "vit_tiny": {"width": 24, "heads": 4},
    "gpt_mini": {"width": 24, "heads": 4},
}
BACKENDS = ("numpy", "keras", "torch", "onnx")


def check(name: str, small: dict[str, int]) -> bool:
    """Prune a model, print a line, and return whether it computes the same everywhere."""
    graph = resolve(load_spec(ModelSpec, ROOT / f"models/{name}.yaml"), {**small, **WIDER.get(name, {})})
    weights = varied(graph, 1)
    inputs = {one: draw_input(graph, one, 4, stream(1, "pruning", one)) for one in graph.inputs}
    pruned = prune_channels(graph, weights, 0.5, multiple=1)

    def run(model, values, backend, precision):
        return load_backend(backend).compile(model, values, Settings(precision=precision)).predict(inputs)

    reference = run(graph, pruned.masked, "numpy", "float64")
    yardstick = run(graph, pruned.masked, "numpy", "float32")
    ratios, passed = [], True
    for backend in BACKENDS:
        found = run(pruned.graph, pruned.weights, backend, "float32")
        verdicts = [judge(found[output], values, yardstick[output]) for output, values in reference.items()]
        ratios.append(f"{backend} {max(verdict.ratio for verdict in verdicts):.2f}")
        passed &= all(verdict.passed for verdict in verdicts)
    kept = 100 * pruned.graph.macs / graph.macs
    print(
        f"{'PASS' if passed else 'FAIL'}  {name:<20} {kept:5.1f} % of the MACs  ratios: {', '.join(ratios)}", flush=True
    )
    return passed


def main(names: list[str]) -> int:
    """Check the models that are named, or all; return the exit code."""
    sizes = yaml.safe_load((ROOT / "scripts/zoo.yaml").read_text(encoding="utf-8"))
    small = {name: arguments for part in sizes.values() for name, arguments in part.items()}
    results = [check(name, small[name]) for name in names or small]
    print(f"{sum(results)} of {len(results)} compute what the masked models compute")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
