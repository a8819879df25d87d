"""What goes into a backend: weights and optimizer state must come out bit for bit, and wrong indices be refused."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from unitrain.spec.errors import InputError
from unitrain.verify.findings import MODEL, Finding, TensorName
from unitrain.verify.growth import inherited_growth
from unitrain.verify.runner import Array, Cast, Runner
from unitrain.verify.subject import Subject
from unitrain.verify.verdict import Verdict, judge
from unitrain.weights.random import stream
from unitrain.weights.store import load_weights, save_tensors

IN_AND_OUT = ", in and out"


def transfer(subject: Subject, cast: Cast, runner: Runner) -> Iterator[Finding]:
    """Load drawn weights and optimizer state, read them back, and predict anew from weights saved to a file."""
    rule = subject.rule() if runner.trains else None
    program = runner.program("model", subject.graph, subject.weights, rule)
    drawn = {
        name: stream(subject.seed, "verify", "transfer", name).uniform(0.5, 1.5, array.shape).astype(runner.precision)
        for name, array in subject.weights.items()
    }
    program.load_weights(drawn)
    owners = {name: node.owner for node in subject.graph.nodes for name in node.parameters.values()}
    read = program.weights()
    for name, array in drawn.items():
        yield _same(runner, owners[name], f"weights of {name}{IN_AND_OUT}", read.get(name), array)
    if runner.trains:
        slots = {
            slot: {
                name: stream(subject.seed, "verify", "transfer", slot, name)
                .uniform(size=array.shape)
                .astype(array.dtype)
                for name, array in arrays.items()
            }
            for slot, arrays in program.slots().items()
        }
        program.load_slots(slots)
        back = program.slots()
        for slot, arrays in slots.items():
            for name, array in arrays.items():
                yield _same(runner, owners[name], f"{slot} of {name}{IN_AND_OUT}", back[slot].get(name), array)
    program.load_weights(runner.given(subject.weights, "model"))
    inputs = subject.batch(0).inputs
    before = program.predict(inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_tensors(path, program.weights())
        program.load_weights(drawn)
        program.load_weights(load_weights(path, subject.graph))
    for output, array in program.predict(inputs).items():
        yield _same(runner, MODEL, f"output {output} after saving and loading", array, before[output])
    yield from _alone(subject, cast, runner, before)
    yield from _outside(subject, runner)


def _outside(subject: Subject, runner: Runner) -> Iterator[Finding]:
    """See that indices outside what they look up in are refused, where a framework may wrap or crash."""
    program = runner.program("model", subject.graph, subject.weights)
    inputs = subject.batch(0).inputs
    for lookup in subject.graph.lookups:
        for index in (-1, lookup.rows):
            wrong = inputs[lookup.source].copy()
            wrong.reshape(len(wrong), -1)[-1, lookup.places] = index
            try:
                program.predict({**inputs, lookup.source: wrong})
                reason = f"an index outside, {index} of 0 .. {lookup.rows - 1}, is not refused"
            except InputError:
                reason = ""
            except Exception as error:  # an error, and not the clear one
                reason = f"an index outside raises {type(error).__name__}, which does not name the layer"
            yield Finding(
                runner.label,
                TensorName("transfer", lookup.node, f"index {index}", "inference"),
                _exact(not reason, reason),
            )


def _alone(subject: Subject, cast: Cast, runner: Runner, whole: Mapping[str, Array]) -> Iterator[Finding]:
    """See that inference does not mix samples: the first of a batch alone gives what it gave among the others."""
    program = runner.program("model", subject.graph, subject.weights)
    inputs = {name: array[:1] for name, array in subject.batch(0).inputs.items()}
    for output, array in program.predict(inputs).items():
        wanted = whole[output][:1]
        scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
        # Frameworks choose other kernels for other batch sizes: a few roundings, and never another sample's values.
        close = array.shape == wanted.shape and bool(
            np.allclose(array, wanted, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)
            # Where nothing is left but rounding, as of a constant that is normalised, it is no less right than that.
            or _verdict(subject, cast, runner, output, inputs, array).passed
        )
        name = TensorName("transfer", MODEL, f"output {output} of a sample alone", "inference")
        yield Finding(runner.label, name, _exact(close, "a sample alone gives something else than in a batch"))


def _verdict(
    subject: Subject, cast: Cast, runner: Runner, output: str, inputs: Mapping[str, Array], found: Array
) -> Verdict:
    """Judge an output of inference as the forward level does."""
    graph, right = subject.graph, []
    for one in (cast.reference, *cast.yardsticks):
        program = one.program("model", graph, subject.weights)
        program.load_weights(one.given(subject.weights, "model"))
        right.append(program.predict(inputs)[output])
    growth = inherited_growth(graph, len(found), training=False, precision=runner.precision)[graph.outputs[output]]
    return judge(found, *right, growth=growth, precision=runner.precision)


def _same(runner: Runner, part: str, tensor: str, found: Array | None, wanted: Array) -> Finding:
    same = found is not None and found.dtype == wanted.dtype and np.array_equal(found, wanted, equal_nan=True)
    verdict = _exact(same, "not bit for bit what went in")
    return Finding(runner.label, TensorName("transfer", part, tensor, "inference"), verdict)


def _exact(passed: bool, reason: str) -> Verdict:
    ratio = 0.0 if passed else float("inf")
    return Verdict(passed, ratio, ratio, 1.0, "" if passed else reason)
