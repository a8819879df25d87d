"""The compiled block of training steps: one ``tf.function`` whose loop gathers, differentiates and updates.

The loop carries the whole state of training as tensors and calls the model without side effects. So a step
whose loss is not finite is thrown away whole: neither weights nor running statistics have moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from unitrain.backends.contract import Plan, Statistics, Tensor, TrainingRule
from unitrain.backends.keras.call import Call, Tensors, compiled
from unitrain.backends.keras.namespace import NAMESPACE
from unitrain.backends.keras.registry import Variable

# What the loop carries: parameters, optimizer slots, moving variables, gradients not applied, metric sums.
State = tuple[Tensors, dict[str, Tensors], list[Tensor], Tensors, list[Tensor]]
Variables = dict[str, Variable]


@dataclass(frozen=True)
class Placed:
    """A data set on the device: inputs and targets by name, one weight a sample; ``weights`` may be empty."""

    inputs: Tensors
    targets: Tensors
    weights: tuple[Tensor, ...]

    def tensors(self) -> Any:
        """Return all tensors, as one structure."""
        return self.inputs, self.targets, self.weights

    def kinds(self) -> Any:
        """Describe the tensors, the number of samples left free."""
        return tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), self.tensors())


class Training:
    """Optimizer state and compiled blocks of one program.

    Parameters
    ----------
    call
        The model.
    rule
        What a step computes.
    """

    def __init__(self, call: Call, rule: TrainingRule) -> None:
        self.call = call
        self.rule = rule
        self.slots: dict[str, Variables] = {
            slot: {
                name: tf.Variable(value if slot == "ema" else tf.zeros_like(value), trainable=False)
                for name, value in call.state()[0].items()
            }
            for slot in rule.updater.slots
        }
        self._pending: Variables = {}
        self._unapplied = False
        self._blocks: dict[Any, Callable[..., Any]] = {}

    def forget_gradients(self) -> None:
        """Drop what is accumulated and not applied."""
        self._unapplied = False
        for variable in self._pending.values():
            variable.assign(tf.zeros_like(variable))

    def run(self, placed: Placed, plan: Plan) -> Statistics:
        """Run a block of steps and read its statistics."""
        # Only plans that accumulate pay for it.
        accumulate = self._unapplied or not plan.apply.all()
        if accumulate and not self._pending:
            self._pending = {
                name: tf.Variable(tf.zeros_like(value), trainable=False) for name, value in self.call.state()[0].items()
            }
        dtype = self.call.dtype.as_numpy_dtype
        planned = (plan.indices, plan.coefficients.astype(dtype), plan.scale.astype(dtype), plan.apply)
        block = self._block(placed.kinds(), plan.coefficients.shape[1], accumulate)
        losses, sums, done = block(
            placed.tensors(),
            tuple(map(tf.constant, planned)),
            tf.constant(plan.first_step, tf.int64),
        )
        completed = losses.numpy()[: int(done)].astype(np.float64)
        if len(completed) and np.isfinite(completed[-1]):
            self._unapplied = not plan.apply[-1]
        numbers = [float(value) for value in sums]
        labels = [label for label, _, _ in self.rule.metrics]
        terms = dict(zip(labels, zip(numbers[::2], numbers[1::2], strict=True), strict=True))
        return Statistics(completed, terms)

    def _block(self, kinds: Any, coefficients: int, accumulate: bool) -> Callable[..., Any]:
        """Return the compiled block for data of these kinds; samples, steps and batch size stay free."""
        inputs, targets, weights = kinds
        key = (tuple(inputs.items()), tuple(targets.items()), weights, coefficients, accumulate)
        if key not in self._blocks:
            dtype = self.call.dtype
            plan = (
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None, coefficients], dtype),
                tf.TensorSpec([None], dtype),
                tf.TensorSpec([None], tf.bool),
            )

            def block(data: Any, plan: Any, first_step: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
                return self._trace(data, plan, first_step, accumulate)

            signature = [kinds, plan, tf.TensorSpec([], tf.int64)]
            self._blocks[key] = compiled(block, signature)
        return self._blocks[key]

    def _trace(self, data: Any, plan: Any, first_step: Tensor, accumulate: bool) -> tuple[Tensor, list[Tensor], Tensor]:
        """Write the block as a graph: losses ``[steps]``, sums of the metrics' terms, steps done."""
        indices, coefficients, scale, apply = plan
        steps = tf.shape(indices)[0]

        def step(index: Tensor, _: Tensor, losses: Any, state: State) -> tuple[Tensor, Tensor, Any, State]:
            inputs, targets, weights = tf.nest.map_structure(lambda x: tf.gather(x, indices[index]), data)
            weight = weights[0] if weights else None
            number = first_step + tf.cast(index, tf.int64)
            loss, gradients, moved, terms = self._differentiate(inputs, targets, weight, state, number, scale[index])
            finite = tf.math.is_finite(loss)
            state = tf.cond(
                finite,
                lambda: self._advance(state, gradients, moved, terms, coefficients[index], apply[index]),
                lambda: state,
            )
            return index + 1, finite, losses.write(index, loss), state

        done, _, losses, state = tf.while_loop(
            lambda index, finite, *_: tf.logical_and(finite, index < steps),
            step,
            (
                tf.constant(0),
                tf.constant(True),
                tf.TensorArray(self.call.dtype, steps, element_shape=()),
                self._read(accumulate),
            ),
        )
        self._write(state)
        return losses.stack(), state[-1], done

    def _read(self, accumulate: bool) -> State:
        parameters, moving = self.call.state()
        slots = {slot: _values(variables) for slot, variables in self.slots.items()}
        sums = [tf.zeros([], self.call.dtype) for _ in range(2 * len(self.rule.metrics))]
        return parameters, slots, moving, _values(self._pending) if accumulate else {}, sums

    def _write(self, state: State) -> None:
        parameters, slots, moving, pending, _ = state
        for name, value in parameters.items():
            self.call.parameters[name].assign(value)
        for slot, values in slots.items():
            for name, value in values.items():
                self.slots[slot][name].assign(value)
        for variable, value in zip(self.call.moving, moving, strict=True):
            variable.assign(value)
        for name, value in pending.items():
            self._pending[name].assign(value)

    def _differentiate(
        self,
        inputs: Tensors,
        targets: Tensors,
        weight: Tensor | None,
        state: State,
        step: Tensor,
        scale: Tensor,
    ) -> tuple[Tensor, Tensors, list[Tensor], list[Tensor]]:
        """Return a batch's total loss, the gradients of ``scale`` times it, moved variables, metric terms."""
        parameters, _, moving, _, _ = state
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            outputs, moved = self.call(self.call.prepare(inputs), parameters, moving, training=True, step=step)
            predictions = self.call.named(outputs)
        total = tf.zeros([], self.call.dtype)
        seeds = []
        for output, (factor, loss) in self.rule.losses.items():
            arguments = (NAMESPACE, predictions[output], targets[output], weight)
            numerator, denominator = loss.terms(*arguments)
            total += factor * tf.math.divide_no_nan(numerator, denominator)
            seeds.append(loss.gradient(*arguments) * tf.math.divide_no_nan(factor * scale, denominator))
        gradients = tape.gradient(
            [predictions[output] for output in self.rule.losses],
            parameters,
            output_gradients=seeds,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        terms = [
            tf.cast(term, self.call.dtype)
            for _, output, metric in self.rule.metrics
            for term in metric.terms(NAMESPACE, predictions[output], targets[output], weight)
        ]
        # Embeddings have sparse gradients; the optimizers take dense ones.
        dense = {
            name: tf.ensure_shape(tf.convert_to_tensor(gradient), parameters[name].shape)
            for name, gradient in gradients.items()
        }
        return total, dense, moved, terms

    def _advance(
        self,
        state: State,
        gradients: Tensors,
        moved: list[Tensor],
        terms: list[Tensor],
        coefficients: Tensor,
        apply: Tensor,
    ) -> State:
        """Take a step over: add its gradients to the pending ones, and apply them if it is time."""
        parameters, slots, _, pending, sums = state
        total = {name: pending[name] + gradients[name] for name in pending} or gradients

        def update() -> tuple[Tensors, dict[str, Tensors], Tensors]:
            new_parameters, new_slots = self.rule.updater.update(
                NAMESPACE, parameters, total, slots, tf.unstack(coefficients)
            )
            return new_parameters, new_slots, {name: tf.zeros_like(value) for name, value in pending.items()}

        if pending:
            new_parameters, new_slots, left = tf.cond(apply, update, lambda: (parameters, slots, total))
        else:
            new_parameters, new_slots, left = update()
        return new_parameters, new_slots, moved, left, [a + b for a, b in zip(sums, terms, strict=True)]


def _values(variables: Variables) -> Tensors:
    return {name: tf.convert_to_tensor(variable) for name, variable in variables.items()}
