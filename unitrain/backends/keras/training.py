"""The compiled block of training steps: one ``tf.function`` whose loop gathers, differentiates and updates.

The loop works on the model's variables in place. A step whose loss is not finite moves none of them: the model is
called without side effects, and what it moves is taken over together with the update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from unitrain.backends.contract import Plan, Statistics
from unitrain.backends.keras.call import Call, Tensors, compiled
from unitrain.backends.keras.candidates import ROWS, XLA
from unitrain.backends.keras.conv_rows import by_rows, eligible
from unitrain.backends.keras.loss_scale import all_finite, unscaled
from unitrain.backends.keras.namespace import NAMESPACE
from unitrain.backends.keras.update import Resources, Updates
from unitrain.backends.namespace import Tensor
from unitrain.backends.rule import TrainingRule


@dataclass(frozen=True)
class Placed:
    """A data set on the device: inputs and targets by name, one weight a sample; ``weights`` may be empty."""

    inputs: Tensors
    targets: Tensors
    weights: tuple[Tensor, ...]

    def tensors(self) -> Any:
        """Return all tensors, as one structure."""
        return self.inputs, self.targets, self.weights

    @cached_property
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
    execution
        Name of the form that trains, one of `candidates`; None for the standard one.
    """

    def __init__(self, call: Call, rule: TrainingRule, execution: str | None = None) -> None:
        self.call = call
        self._xla = execution == XLA
        self._by_rows = [layer for layer in call.built.model.layers if execution == ROWS and eligible(layer)]
        self.rule = rule
        self.parameters: Resources = {name: variable.value for name, variable in call.parameters.items()}
        self.slots = {slot: self._beside(copied=slot == "ema") for slot in rule.updater.slots}
        self._updates = Updates(rule.updater, self.parameters, self.slots)
        self._pending: Resources = {}
        self._unapplied = False
        self._blocks: dict[Any, Callable[..., Any]] = {}

    def _beside(self, *, copied: bool = False) -> Resources:
        """Make a variable beside each parameter: zeros, or a copy."""
        return {
            name: tf.Variable(variable if copied else tf.zeros_like(variable), trainable=False)
            for name, variable in self.parameters.items()
        }

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
            self._pending = self._beside()
        dtype = self.call.dtype.as_numpy_dtype
        scaled = plan.loss_scale is not None
        loss_scale = np.asarray(plan.loss_scale or 1.0, dtype)
        planned = (plan.indices, plan.coefficients.astype(dtype), plan.scale.astype(dtype), plan.apply, loss_scale)
        block = self._block(placed.kinds, plan.coefficients.shape[1], accumulate, scaled)
        losses, counted, done, going = block(
            placed.tensors(),
            tuple(map(tf.constant, planned)),
            tf.constant(plan.first_step, tf.int64),
        )
        completed = losses.numpy()[: int(done)].astype(np.float64)
        finite = bool(np.isfinite(completed).all())
        if len(completed) and finite:
            self._unapplied = not plan.apply[len(completed) - 1]
        pairs = counted.numpy()[: int(np.isfinite(completed).sum())].astype(np.float64)
        terms = {label: pairs[:, number] for number, (label, _, _) in enumerate(self.rule.metrics)}
        return Statistics(completed, terms, skipped=finite and not bool(going))

    def _block(self, kinds: Any, coefficients: int, accumulate: bool, scaled: bool) -> Callable[..., Any]:
        """Return the compiled block for data of these kinds; samples, steps and batch size stay free."""
        inputs, targets, weights = kinds
        key = (tuple(inputs.items()), tuple(targets.items()), weights, coefficients, accumulate, scaled)
        if key not in self._blocks:
            dtype = self.call.dtype
            plan = (
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None, coefficients], dtype),
                tf.TensorSpec([None], dtype),
                tf.TensorSpec([None], tf.bool),
                tf.TensorSpec([], dtype),
            )

            def block(data: Any, plan: Any, first_step: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
                return self._trace(data, plan, first_step, accumulate, scaled)

            signature = [kinds, plan, tf.TensorSpec([], tf.int64)]
            self._blocks[key] = compiled(block, signature)
        return self._blocks[key]

    def _trace(
        self, data: Any, plan: Any, first_step: Tensor, accumulate: bool, scaled: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Write the block as a graph.

        It returns losses ``[steps]``, metric terms ``[steps, metric, 2]``, steps done, whether all went well.
        """
        indices, coefficients, scale, apply, loss_scale = plan
        steps = tf.shape(indices)[0]

        pending = self._pending if accumulate else {}

        def compute(
            batch: Any, number: Tensor, factor: Tensor, row: Tensor, due: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            inputs, targets, weights = batch
            weight = weights[0] if weights else None
            loss, gradients, moved, terms = self._differentiate(inputs, targets, weight, number, factor)
            gradients = unscaled(gradients, loss_scale) if scaled else gradients

            def advance() -> Tensor:
                taken = all_finite(gradients) if scaled else None
                for variable, value in zip(self.call.moving, moved, strict=True):
                    variable.assign(value if taken is None else tf.where(taken, value, variable))
                return self._advance(gradients, pending, row, due, scaled)

            finite = tf.math.is_finite(loss)
            return loss, tf.cond(finite, advance, lambda: finite), terms

        run = tf.function(compute, jit_compile=True, autograph=False) if self._xla else compute

        def step(index: Tensor, _: Tensor, losses: Any, counted: Any) -> tuple[Tensor, Tensor, Any, Any]:
            batch = tf.nest.map_structure(lambda x: tf.gather(x, indices[index]), data)
            number = first_step + tf.cast(index, tf.int64)
            factor = scale[index] * loss_scale if scaled else scale[index]
            loss, going, terms = run(batch, number, factor, coefficients[index], apply[index])
            return index + 1, going, losses.write(index, loss), counted.write(index, terms)

        shape = (len(self.rule.metrics), 2)
        done, going, losses, counted = tf.while_loop(
            lambda index, going, *_: tf.logical_and(going, index < steps),
            step,
            (
                tf.constant(0),
                tf.constant(True),
                tf.TensorArray(self.call.dtype, steps, element_shape=()),
                tf.TensorArray(self.call.dtype, steps, element_shape=shape),
            ),
        )
        return losses.stack(), counted.stack(), done, going

    def _differentiate(
        self,
        inputs: Tensors,
        targets: Tensors,
        weight: Tensor | None,
        step: Tensor,
        scale: Tensor,
    ) -> tuple[Tensor, Tensors, list[Tensor], Tensor]:
        """Return a batch's total loss, the gradients of ``scale`` times it, moved variables, metric terms."""
        moving = [tf.convert_to_tensor(variable) for variable in self.call.moving]
        with tf.GradientTape(watch_accessed_variables=False) as tape, by_rows(self._by_rows):
            tape.watch(self.parameters)
            outputs, moved = self.call(self.call.prepare(inputs), {}, moving, training=True, step=step)
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
            self.parameters,
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
            name: tf.ensure_shape(tf.convert_to_tensor(gradient), self.parameters[name].shape)
            for name, gradient in gradients.items()
        }
        return total, dense, moved, tf.reshape(tf.convert_to_tensor(terms, self.call.dtype), [-1, 2])

    def _advance(
        self, gradients: Tensors, pending: Resources, coefficients: Tensor, apply: Tensor, scaled: bool
    ) -> Tensor:
        """Take a step over: add its gradients to the pending ones, and apply them if it is time.

        Under a loss scale only where they are finite. Return whether nothing was skipped.
        """
        total = {name: variable.assign_add(gradients[name]).read_value() for name, variable in pending.items()}
        total = total or gradients

        def update() -> Tensor:
            self._updates.apply(total, coefficients)
            return tf.constant(True)

        def due() -> Tensor:
            sound = tf.cond(all_finite(total), update, lambda: tf.constant(False)) if scaled else update()
            for variable in pending.values():
                variable.assign(tf.zeros_like(variable))
            return sound

        return tf.cond(apply, due, lambda: tf.constant(True)) if pending else due()
