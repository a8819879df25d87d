"""ResNet50 and MobileNetV2 as `keras.applications` has them: our outputs and gradients are theirs, on every backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models.foreign_peers import INFERENCE, TRAINING, Array, Arrays, Theirs, drawn_images, drawn_upstream, mistakes, zoo

from unitrain.backends import load_backend
from unitrain.graph.graph import Graph

PARTS = {
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_variance",
}


def theirs(graph: Graph, make: Callable[..., Any], renamed: Callable[[str], str], samples: int) -> Theirs:
    """Build and run a model of theirs; ``renamed`` gives our layers theirs."""
    load_backend("keras")  # which quietens TensorFlow
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(5)  # its initializers draw anew in each process
    inputs = drawn_images(graph, samples)
    upstream = drawn_upstream(samples, 4)
    weights: Arrays = {}
    both = []
    usual = keras.config.dtype_policy()
    for dtype in ("float32", "float64"):
        keras.config.set_dtype_policy(dtype)
        try:
            model = make(weights=None, input_shape=inputs["image"].shape[1:], classes=4, classifier_activation=None)
        finally:
            keras.config.set_dtype_policy(usual)
        names = [canonical(variable.path, renamed) for variable in model.variables]
        weights = weights or shaken({name: v.numpy() for name, v in zip(names, model.variables, strict=True)})
        for name, variable in zip(names, model.variables, strict=True):
            variable.assign(weights[name].astype(dtype).reshape(variable.shape))
        given = inputs["image"].astype(dtype)
        inference = model(given, training=False)
        with tf.GradientTape() as tape:
            training = model(given, training=True)
        gradients = tape.gradient(
            training, [variable.value for variable in model.trainable_variables], upstream.astype(dtype)
        )
        found = {
            canonical(variable.path, renamed): gradient.numpy()
            for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        }
        both.append({TRAINING: training.numpy(), INFERENCE: inference.numpy(), **found})
    return Theirs(ours(weights, graph), inputs, upstream, ours(both[1], graph), ours(both[0], graph))


def canonical(path: str, renamed: Callable[[str], str]) -> str:
    """Turn the path of a variable, ``layer/gamma``, into our name of it."""
    layer, part = path.rsplit("/", 1)
    return f"{renamed(layer)}.{PARTS[part]}"


def ours(arrays: Arrays, graph: Graph) -> Arrays:
    """Give arrays our shapes: kernels of depthwise convolutions differ by an axis of 1."""
    return {
        name: array.reshape(graph.parameters[name].shape) if name in graph.parameters else array
        for name, array in arrays.items()
    }


def shaken(arrays: Arrays) -> Arrays:
    """Give norms, biases and running statistics numbers of which none is constant; kernels stay as drawn."""
    generator = np.random.default_rng(5)

    def moved(array: Array) -> Array:
        return array + generator.uniform(0.0, 0.2, array.shape).astype(np.float32) if array.ndim == 1 else array

    return {name: moved(array) for name, array in arrays.items()}


def resnet(layer: str) -> str:
    """``conv3_block2_1_bn`` is ``stage2.0.branch.reduce.norm``."""
    if layer == "predictions":
        return "logits"
    kind = {"conv": "conv", "bn": "norm"}[layer.rsplit("_", 1)[1]]
    if layer.startswith("conv1_"):
        return f"stem.{kind}"
    stage, block, part = map(int, re.match(r"conv(\d)_block(\d)_(\d)_", layer).groups())
    place = f"project{stage - 1}" if block == 1 else f"stage{stage - 1}.{block - 2}"
    return f"{place}.{('shortcut', 'branch.reduce', 'branch.middle', 'branch.expand')[part]}.{kind}"


def mobilenet(layer: str) -> str:
    """``block_4_depthwise_BN`` is ``stage3.0.branch.depthwise.norm``."""
    if layer == "predictions":
        return "logits"
    known = {"Conv1": "stem.conv", "bn_Conv1": "stem.norm", "Conv_1": "head.conv", "Conv_1_bn": "head.norm"}
    if layer in known:
        return known[layer]
    kind = "norm" if layer.endswith("_BN") else "conv"
    part = layer.removesuffix("_BN").rsplit("_", 1)[1]
    if layer.startswith("expanded_conv"):
        return f"first_{part}.{kind}"
    number = int(layer.split("_")[1])
    changing = {1: "down2", 3: "down3", 6: "down4", 10: "widen5", 13: "down6", 16: "widen7"}
    if number in changing:
        return f"{changing[number]}.{part}.{kind}"
    before = max(block for block in changing if block < number)
    place = f"stage{changing[before][-1]}"
    repeated = place not in ("stage2",)  # what stands once has no number
    return f"{place}{f'.{number - before - 1}' if repeated else ''}.branch.{part}.{kind}"


@pytest.mark.parametrize(
    ("name", "make", "renamed", "arguments"),
    [
        ("resnet50", "ResNet50", resnet, {"early": 1, "bias": True, "epsilon": 1.001e-5}),
        ("mobilenet_v2", "MobileNetV2", mobilenet, {"padding": "same", "epsilon": 1e-3, "dropout": 0.0}),
    ],
)
def test_it_computes_what_keras_applications_does(name, make, renamed, arguments):
    graph = zoo(name, size=32, classes=4, **arguments)
    load_backend("keras")
    import keras

    # The last images have one pixel. The spread of four numbers, by which a batch norm divides, can be so small that
    # what rounding costs differs by more than the verdict's bound from one computation to the next.
    peer = theirs(graph, getattr(keras.applications, make), renamed, 12)
    assert not mistakes(graph, peer, float32=[TRAINING, INFERENCE])
