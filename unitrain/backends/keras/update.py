"""Updates of all parameters in place: Adam by TensorFlow's own kernels, every other rule by the one all backends share.

TensorFlow's Adam kernel adds (1 - b1) (g - m), where 1 - b1 is that of the rounded b1: for b2 = 0.999 it is 13
millionths off. So it does the last part alone here. With b1 = b2 = 1 it leaves the averages as they are, and without
the powers of b1 and b2 it computes

    w -= rate m / (sqrt(v) + e),

which with rate = a / r and e = eps / r is a m / (sqrt(v) r + eps), see `backends.torch.update`. The kernel shares its
work among the threads, and waking them takes longer than what there is to do for a small parameter: that is computed as
it stands. The averages are moved by the momentum kernel, c <- b c + (1 - b) g, whose own parameter nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from unitrain.backends.keras.call import Tensors
from unitrain.backends.keras.namespace import NAMESPACE
from unitrain.backends.namespace import Tensor
from unitrain.backends.rule import Updater
from unitrain.spec.optimizers import Adam

Resources = Mapping[str, tf.Variable]

KERNEL_ELEMENTS = 1 << 16
"""From this size on a parameter is moved by Adam's kernel: 40 us of 150 elements or 48,000, two threads of an EPYC."""


class Updates:
    """Changes parameters and slots in place.

    Parameters
    ----------
    updater
        The rule.
    parameters, slots
        Variables by name: ``slots[slot][parameter]``.
    """

    def __init__(self, updater: Updater, parameters: Resources, slots: Mapping[str, Resources]) -> None:
        self.updater, self.parameters, self.slots = updater, parameters, slots
        self.fused = updater.fusible and isinstance(updater.spec, Adam)
        shapes = {tuple(variable.shape): variable for variable in parameters.values()} if self.fused else {}
        self._unread = {
            shape: tf.Variable(tf.zeros_like(variable), trainable=False) for shape, variable in shapes.items()
        }

    def apply(self, gradients: Tensors, coefficients: Tensor) -> None:
        """Write one update into the graph under construction; ``coefficients`` is a row of `contract.Plan`'s."""
        if self.fused:
            self._adam(gradients, *tf.unstack(coefficients))
        else:
            self._rule(gradients, tf.unstack(coefficients))

    def _rule(self, gradients: Tensors, coefficients: list[Tensor]) -> None:
        slots = {slot: values(variables) for slot, variables in self.slots.items()}
        parameters, slots = self.updater.update(NAMESPACE, values(self.parameters), gradients, slots, coefficients)
        for name, value in parameters.items():
            self.parameters[name].assign(value)
            for slot, variables in self.slots.items():
                variables[name].assign(slots[slot][name])

    def _adam(self, gradients: Tensors, decay: Tensor, rate: Tensor, root: Tensor) -> None:
        spec = self.updater.spec
        assert isinstance(spec, Adam)
        step, epsilon = rate / root, spec.epsilon / root
        limited = self.updater.limited(NAMESPACE, values(self.parameters), gradients)
        for name, parameter in self.parameters.items():
            gradient = limited[name]
            mean, variance = self.slots["mean"][name], self.slots["variance"][name]
            self._average(mean, spec.beta1, gradient)
            self._average(variance, spec.beta2, tf.square(gradient))
            if spec.weight_decay and self.updater.decays[name]:
                parameter.assign_sub(decay * parameter)
            if parameter.shape.num_elements() < KERNEL_ELEMENTS:
                parameter.assign_sub(step * mean / (tf.sqrt(variance) + epsilon))
            else:
                kind = parameter.dtype
                tf.raw_ops.ResourceApplyAdam(
                    var=parameter.handle,
                    m=mean.handle,
                    v=variance.handle,
                    beta1_power=tf.zeros([], kind),
                    beta2_power=tf.zeros([], kind),
                    lr=step,
                    beta1=tf.ones([], kind),
                    beta2=tf.ones([], kind),
                    epsilon=epsilon,
                    grad=gradient,
                )
            if spec.ema is not None:
                average = self.slots["ema"][name]
                average.assign(spec.ema * average + (1.0 - spec.ema) * parameter)

    def _average(self, average: tf.Variable, beta: float, value: Tensor) -> None:
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=self._unread[tuple(average.shape)].handle,
            accum=average.handle,
            lr=tf.constant(beta - 1.0, average.dtype),
            grad=value,
            momentum=tf.constant(beta, average.dtype),
        )


def values(variables: Mapping[str, Any]) -> Tensors:
    """Read variables."""
    return {name: tf.convert_to_tensor(variable) for name, variable in variables.items()}
