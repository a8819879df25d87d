"""The node test cases that come with the onnx package, read into plain NumPy, and one layer of ours to run on them.

A translator turns a case into one layer (or a loss, or an optimizer's rule): fields from the node's attributes,
canonical weights from its inputs. It may rearrange data (transpose, reshape, add a batch axis) and fold constants into
weights; it never computes what the layer is there to compute. What no layer of ours means is `NotApplicable`, with
what it is about the case that is the reason.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from traceback import format_exc
from typing import Any

import numpy as np

from unitrain.backends.contract import Settings
from unitrain.backends.numpy.execution import Mode, Pass, backward
from unitrain.backends.numpy.model import NumpyModel
from unitrain.graph.resolve import resolve
from unitrain.spec.model import InputSpec, ModelSpec, layer_from_plain

Array = np.ndarray[Any, Any]
# What a translator gives: the node's outputs in their order, None for one that the layer keeps to itself.
Outputs = list[Array | None]

# Integers up to this size are float32 numbers: a layer that takes floats takes them as they are.
EXACT = 2**24


class NotApplicable(Exception):  # noqa: N818 - an answer, not an error
    """No layer of ours means this; the message is the reason."""


@dataclass(frozen=True)
class Applied:
    """A layer that has run on one batch."""

    done: Pass

    @property
    def output(self) -> Array:
        return self.done.outputs()["layer"]

    def updated(self, local: str) -> Array:
        """Return a running statistic as this batch left it."""
        return self.done.updates[f"layer.{local}"]

    def input_gradient(self, dy: Array) -> Array:
        return backward(self.done, {"layer": dy})[0]["x0"]


@dataclass
class NodeCase:
    """One node with its data.

    Parameters
    ----------
    name, operator, attributes
        The node's; attributes that it leaves to their defaults are missing.
    inputs, outputs
        In the order of the node, None for an input left out.
    rtol, atol
        The tolerance that the case states.
    layers
        Types of the layers of ours that were run on it.
    """

    name: str
    operator: str
    attributes: dict[str, Any]
    inputs: list[Any]
    outputs: list[Any]
    rtol: float
    atol: float
    layers: set[str] = field(default_factory=set)

    def given(self, position: int) -> Array | None:
        """Return an input, or None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def need(self, position: int) -> Array:
        """Return an input that must be there."""
        found = self.given(position)
        if not isinstance(found, np.ndarray):
            raise NotApplicable("the value is a sequence or an optional, not a tensor")
        return found

    def numbers(self, position: int) -> Array:
        """Return an input for a layer that takes floats: integers are cast where that changes none of them."""
        found = self.need(position)
        if found.dtype in (np.float32, np.float64):
            return found
        if found.dtype.kind not in "iu" or np.any(np.abs(found.astype(np.float64)) > EXACT):
            raise NotApplicable(f"{found.dtype}: the reference computes in float32 and float64")
        return found.astype(np.float32)

    def integers(self, position: int) -> list[int]:
        """Return an input that states sizes, axes or the like."""
        return [int(number) for number in self.need(position)]

    def apply(self, fields: dict[str, Any], *inputs: Array, **weights: Array) -> Applied:
        """Run one layer for inference: the batch is the first axis of every input, the weights are canonical."""
        return self._run(fields, inputs, weights, Mode())

    def train(self, fields: dict[str, Any], *inputs: Array, **weights: Array) -> Applied:
        """Run one layer as training does."""
        return self._run(fields, inputs, weights, Mode(training=True))

    def _run(self, fields: dict[str, Any], inputs: tuple[Array, ...], weights: dict[str, Array], mode: Mode) -> Applied:
        for array in inputs:
            if array.size == 0:
                raise NotApplicable("an axis has size 0; ours have 1 or more")
        self.layers.add(fields["type"])
        names = [f"x{position}" for position in range(len(inputs))]
        # A field may name one as a side input.
        main = [name for name in names if name not in fields.values()]
        graph = resolve(
            ModelSpec(
                inputs={
                    name: InputSpec(shape=array.shape[1:], dtype="integer" if array.dtype.kind in "iu" else "float")
                    for name, array in zip(names, inputs, strict=True)
                },
                layers=(layer_from_plain({**fields, "name": "layer", "inputs": main}),),
            )
        )
        double = any(array.dtype == np.float64 for array in inputs)
        model = NumpyModel(
            graph,
            {f"layer.{local}": array for local, array in weights.items()},
            Settings(precision="float64" if double else "float32"),
        )
        data = model.prepare(dict(zip(names, inputs, strict=True)))
        return Applied(model.run(data, mode, differentiate=True, input_gradients=True))


Translator = Callable[[NodeCase], Outputs]


@dataclass(frozen=True)
class Outcome:
    """What became of a case: ``passed``, ``not applicable`` or ``failed``, and why."""

    case: NodeCase
    status: str
    reason: str = ""


def judge(case: NodeCase, translators: tuple[Translator, ...]) -> Outcome:
    """Run a case in each way that a layer of ours can express it; it passes when one can and none fails."""
    reasons, ways = [], 0
    for translate in translators:
        try:
            results = translate(case)
        except NotApplicable as reason:
            reasons.append(str(reason))
            continue
        except Exception:
            # One case that a layer stumbles over must not hide how the others fare.
            return Outcome(case, "failed", f"{translate.__name__}: {format_exc()}")
        try:
            _compare(case, results)
        except AssertionError as difference:
            return Outcome(case, "failed", f"{translate.__name__}: {difference}")
        ways += 1
    return Outcome(case, "passed") if ways else Outcome(case, "not applicable", reasons[0])


def _compare(case: NodeCase, results: Outputs) -> None:
    assert len(results) == len(case.outputs), f"{len(results)} outputs for {len(case.outputs)}"
    assert results[0] is not None
    for result, expected in zip(results, case.outputs, strict=True):
        if result is None:
            continue
        wanted = np.asarray(expected)
        assert result.shape == wanted.shape, f"shape {result.shape}, and {wanted.shape} is expected"
        if wanted.dtype.kind == "f":
            assert result.dtype == wanted.dtype, f"{result.dtype}, and {wanted.dtype} is expected"
            np.testing.assert_allclose(result, wanted, rtol=case.rtol, atol=case.atol)
        else:
            np.testing.assert_array_equal(result, wanted)


@cache
def node_cases() -> dict[str, list[NodeCase]]:
    """Read the cases of a single node each, by operator. (The others are functions spelt out in other operators.)"""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.helper import get_attribute_value

    # Collecting seeds and draws from NumPy's global generator, which other tests may use.
    state = np.random.get_state()  # noqa: NPY002 - it is the legacy generator that is to be put back
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cases that overflow or divide by 0 on purpose
        collected = collect_testcases(None)
    np.random.set_state(state)  # noqa: NPY002 - as above
    cases: dict[str, list[NodeCase]] = defaultdict(list)
    for test in collected:
        if test.model is None or len(test.model.graph.node) != 1:
            continue
        node = test.model.graph.node[0]
        attributes = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
        for given, outputs in test.data_sets or ():
            values = iter(given)
            cases[node.op_type].append(
                NodeCase(
                    test.name.removeprefix("test_"),
                    node.op_type,
                    {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()},
                    [_tensor(next(values)) if name else None for name in node.input],
                    list(outputs),
                    test.rtol,
                    test.atol,
                )
            )
    return cases


def _tensor(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else value
