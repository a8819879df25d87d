"""Recurrent layers: a state that each step of a sequence changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import FiniteFloat, PositiveInt

from unitrain.spec.initializers import Glorot, Initializer, Orthogonal, Zeros
from unitrain.spec.layers.base import (
    InputNames,
    LayerSpec,
    Parameter,
    Shape,
    ValueType,
    Wanted,
    bias_parameter,
    kernel_parameter,
    require_rank,
)


class RecurrentLayer(LayerSpec):
    """A layer over the steps of ``[length, channel]``.

    Parameters
    ----------
    units
        Size of the state.
    returns
        ``sequence``: the hidden state after each step, ``[length, units]``; ``last``: the one after all steps,
        ``[units]``; ``state``: the whole state after all steps, which of an LSTM is ``[2 * units]``, the hidden state
        and then the cell's.
    direction
        ``backward`` reads the sequence from its end; results stand at the positions that were read. ``both`` has two
        sets of parameters, and gives the channels of the forward direction, then those of the backward one.
    use_bias
        Whether steps have biases.
    mask
        Integers ``[length]``, not of a prefix necessarily: a step with 0 leaves the state as it was, and its result in
        a sequence is 0. Where all are 0 the state is the initial one in the end.
    initial_state
        The state before the first step that is read, zeros by default: ``[units]``; of an LSTM two, the hidden state
        and the cell's. For ``both`` directions twice as wide, the forward direction first.
    """

    side_inputs: ClassVar[Mapping[str, ValueType]] = {"mask": "integer", "initial_state": "float"}
    # How many blocks of ``units`` columns a kernel has, and how many arrays make a state.
    gates: ClassVar[int]
    states: ClassVar[int] = 1

    units: PositiveInt
    returns: Literal["sequence", "last", "state"] = "sequence"
    direction: Literal["forward", "backward", "both"] = "forward"
    use_bias: bool = True
    mask: InputNames | None = None
    initial_state: InputNames | None = None
    kernel_initializer: Initializer = Glorot()
    recurrent_initializer: Initializer = Orthogonal()
    bias_initializer: Initializer = Zeros()

    @property
    def directions(self) -> tuple[tuple[str, bool], ...]:
        """For each direction that the layer has, the prefix of its parameters, and whether it reads from the end."""
        if self.direction == "both":
            return (("", False), ("backward_", True))
        return (("", self.direction == "backward"),)

    @property
    def channels(self) -> int:
        """Channels of all directions."""
        return self.units * len(self.directions)

    @property
    def parts(self) -> int:
        """How many arrays of the state after all steps are returned, without a sequence."""
        return self.states if self.returns == "state" else 1

    def side_shapes(self, *inputs: Shape) -> dict[str, tuple[Wanted, ...]]:
        """Return the length, and the size of each array of the state."""
        require_rank(inputs[0], 2, "(length, channel)")
        return {"mask": ((inputs[0][0],),), "initial_state": ((self.channels,),) * self.states}

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the length and the channels of a sequence, else the size of the state."""
        require_rank(inputs[0], 2, "(length, channel)")
        return (inputs[0][0], self.channels) if self.returns == "sequence" else (self.parts * self.channels,)

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """``kernel`` ``(in, gates * units)``, ``recurrent`` ``(units, gates * units)``, ``bias`` ``(gates * units)``.

        Those of the second of ``both`` directions are called ``backward_kernel`` and so on.
        """
        width, columns = inputs[0][-1], self.gates * self.units
        shape, square = (width, columns), (self.units, columns)
        table = {}
        for prefix, _ in self.directions:
            table[f"{prefix}kernel"] = kernel_parameter(shape, self.kernel_initializer, shape)
            table[f"{prefix}recurrent"] = kernel_parameter(square, self.recurrent_initializer, square)
            if self.use_bias:
                table[f"{prefix}bias"] = bias_parameter(columns, self.bias_initializer)
        return table

    def macs(self, *inputs: Shape) -> int:
        """One for each weight of the kernels at each step."""
        table = self.parameters(*inputs)
        return inputs[0][0] * sum(parameter.size for name, parameter in table.items() if not name.endswith("bias"))


class Lstm(RecurrentLayer):
    """Long short-term memory (Hochreiter and Schmidhuber 1997; the forget gate is Gers et al. 2000).

    ``i, f, g, o = x W + h R + b`` in this order of columns, ``c' = sigmoid(f) c + sigmoid(i) tanh(g)`` and
    ``h' = sigmoid(o) tanh(c')``. The bias of the forget gate starts higher by ``forget_bias`` (Jozefowicz et al. 2015).
    """

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    type: Literal["lstm"] = "lstm"
    forget_bias: FiniteFloat = 1.0

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """As of every recurrent layer."""
        forget = (self.units, 2 * self.units, self.forget_bias)
        return {
            name: replace(parameter, raised=forget) if name.endswith("bias") else parameter
            for name, parameter in super().parameters(*inputs).items()
        }


class Gru(RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014), the reset gate behind the recurrent product as in cuDNN.

    Columns are in the order z, r, n: ``z = sigmoid(x W_z + h R_z + b_z)``, ``r`` alike,
    ``n = tanh(x W_n + b_n + r (h R_n + recurrent_bias))`` and ``h' = z h + (1 - z) n``.
    """

    gates: ClassVar[int] = 3

    type: Literal["gru"] = "gru"

    def parameters(self, *inputs: Shape) -> dict[str, Parameter]:
        """As of every recurrent layer, and ``recurrent_bias`` ``(units)``."""
        table = super().parameters(*inputs)
        if self.use_bias:
            for prefix, _ in self.directions:
                table[f"{prefix}recurrent_bias"] = bias_parameter(self.units, self.bias_initializer)
        return table


class SimpleRnn(RecurrentLayer):
    """``h' = tanh(x W + h R + b)`` (Elman 1990), or ReLU in the place of the tangent."""

    gates: ClassVar[int] = 1

    type: Literal["simple_rnn"] = "simple_rnn"
    nonlinearity: Literal["tanh", "relu"] = "tanh"
