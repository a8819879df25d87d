"""Recurrent layers: torch's fused kernels, with one bias where torch has two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.torch.registry import Layout, Made, Slot, implements
from unitrain.graph.node import Node
from unitrain.spec.layers.recurrent import Gru, Lstm, RecurrentLayer, SimpleRnn

_FUSED: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}
# torch has the gates of a GRU in the order r, z, n.
_GRU_BLOCKS = (1, 0, 2)

State = tuple[torch.Tensor, ...]


class Recurrent(torch.nn.RNNBase):
    """A recurrent layer over ``[batch, length, channel]``; its weights are those of ``torch.nn.LSTM`` and its like.

    Of the two biases that torch adds up the second is a zero that does not learn: else their sum would move at twice
    the rate. Of a GRU it is zero but for the candidate's, ``recurrent_bias_l0``.

    Parameters
    ----------
    layer
        What to compute.
    mode
        torch's name for it.
    channels
        Those of the input.
    """

    def __init__(self, layer: RecurrentLayer, mode: str, channels: int) -> None:
        both = layer.direction == "both"
        super().__init__(mode, channels, layer.units, bias=layer.use_bias, batch_first=True, bidirectional=both)
        self._sides: Callable[..., dict[str, State]] = layer.sides
        self.returns, self.states, self.parts = layer.returns, layer.states, layer.parts
        self.directions, self.reverse = len(layer.directions), layer.direction == "backward"
        self._suffixes = ("", "_reverse")[: self.directions]
        if layer.use_bias:
            for suffix in self._suffixes:
                self._part_second_bias(suffix)
            self._init_flat_weights()

    def _part_second_bias(self, suffix: str) -> None:
        second = getattr(self, f"bias_hh_l0{suffix}")
        delattr(self, f"bias_hh_l0{suffix}")
        self.register_buffer(f"bias_hh_l0{suffix}", torch.zeros_like(second, requires_grad=False), persistent=False)
        if self.mode == "GRU":
            learned = torch.nn.Parameter(torch.zeros(self.hidden_size, dtype=second.dtype))
            self.register_parameter(f"recurrent_bias_l0{suffix}", learned)

    def forward(self, x: torch.Tensor, *sides: torch.Tensor) -> torch.Tensor:
        """Read the sequence; ``sides`` are the mask and the initial state, as far as the layer has them."""
        named = self._sides((x, *sides))
        state = self._initial(x, named.get("initial_state", ()))
        if "mask" in named:
            return self._masked(x, named["mask"][0] != 0, state)
        weights = [weight for suffix in self._suffixes for weight in self._weights(suffix)]
        steps = x.flip(1) if self.reverse else x
        outputs, final = self._run(steps, state, tuple(weights), both=self.bidirectional)
        if self.returns != "sequence":
            return self._joined(final)
        return outputs.flip(1) if self.reverse else outputs

    def _masked(self, x: torch.Tensor, mask: torch.Tensor, state: State) -> torch.Tensor:
        """Run each direction over its steps brought to the front, and leave out what comes behind those that count."""
        length, counts = x.shape[1], mask.sum(1, keepdim=True)
        positions = torch.arange(length, device=x.device)
        sequences, finals = [], []
        for number, suffix in enumerate(self._suffixes):
            places = length - 1 - positions if self.reverse or number else positions
            order = torch.where(mask, places, places + length).argsort(1)
            begun = tuple(part[number : number + 1] for part in state)
            rows, weights = _taken(x, order), self._weights(suffix)
            if self.parts > 1:
                rows, weights = self._holding(rows, positions >= counts, weights)
            outputs, ended = self._run(rows, begun, weights, both=False)
            if self.returns == "sequence":
                sequences.append(_taken(outputs, order.argsort(1)))
                continue
            last = _taken(outputs, (counts - 1).clamp(min=0)).transpose(0, 1)
            finals.append((torch.where(counts > 0, last, begun[0]), *ended[1:]))
        if self.returns == "sequence":
            return torch.cat(sequences, 2).masked_fill(~mask[..., None], 0.0)
        return self._joined(tuple(torch.cat(parts) for parts in zip(*finals, strict=True)))

    def _holding(self, rows: torch.Tensor, over: torch.Tensor, weights: State) -> tuple[torch.Tensor, State]:
        """Let an LSTM's cell stay what it is in the steps behind the last that counts.

        One more channel, 1 there, closes the input gate and opens the forget gate so far that in all precisions they
        are 0 and 1, as their derivatives are 0.
        """
        closed = torch.full_like(weights[0][: self.hidden_size, :1], -1e4)
        gates = torch.cat([closed, -closed, torch.zeros_like(closed), torch.zeros_like(closed)])
        kernel = torch.cat([weights[0], gates], 1)
        return torch.cat([rows, over[..., None].to(rows.dtype)], 2), (kernel, *weights[1:])

    def _initial(self, x: torch.Tensor, given: State) -> State:
        """Return the state before all steps, ``[direction, batch, units]`` each."""
        if not given:
            return (x.new_zeros(self.directions, x.shape[0], self.hidden_size),) * self.states
        shape = (-1, self.directions, self.hidden_size)
        return tuple(part.reshape(shape).transpose(0, 1).contiguous() for part in given)

    def _run(self, x: torch.Tensor, state: State, weights: State, *, both: bool) -> tuple[torch.Tensor, State]:
        """Call the fused kernel: the hidden states ``[batch, length, units]``, and the state in the end."""
        started: Any = state if self.states > 1 else state[0]
        # cuDNN keeps what it needs on the way back in training only.
        keeps = torch.is_grad_enabled()
        outputs, *final = _FUSED[self.mode](x, started, list(weights), self.bias, 1, 0.0, keeps, both, True)
        return outputs, tuple(final)

    def _weights(self, suffix: str) -> State:
        """Return those of one direction; of mixed precision not what the module holds, but what it sees."""
        kernels = (getattr(self, f"weight_ih_l0{suffix}"), getattr(self, f"weight_hh_l0{suffix}"))
        if not self.bias:
            return kernels
        first = getattr(self, f"bias_ih_l0{suffix}")
        second = getattr(self, f"bias_hh_l0{suffix}").to(first.dtype)
        if self.mode == "GRU":
            second = torch.cat([second[: 2 * self.hidden_size], getattr(self, f"recurrent_bias_l0{suffix}")])
        return (*kernels, first, second)

    def _joined(self, final: State) -> torch.Tensor:
        """Put the arrays of a state side by side, in each the directions: ``[batch, parts * channels]``."""
        return torch.cat([part.transpose(0, 1).flatten(1) for part in final[: self.parts]], 1)


def _taken(x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Take the steps ``[batch, any]`` of ``[batch, length, channel]``."""
    return x.gather(1, steps[..., None].expand(-1, -1, x.shape[2]))


@implements(Lstm, Gru, SimpleRnn)
def recurrent(layer: RecurrentLayer, node: Node, settings: Settings) -> Made:
    """torch's fused kernels; a sequence that is read from its end is turned round."""
    mode = f"RNN_{layer.nonlinearity}".upper() if isinstance(layer, SimpleRnn) else layer.type.upper()
    blocks = _GRU_BLOCKS if isinstance(layer, Gru) else None
    matrix, vector = Layout((1, 0), blocks=blocks), Layout(blocks=blocks)
    slots = {}
    for (prefix, _), suffix in zip(layer.directions, ("", "_reverse"), strict=False):
        slots[f"{prefix}kernel"] = Slot(f"weight_ih_l0{suffix}", matrix)
        slots[f"{prefix}recurrent"] = Slot(f"weight_hh_l0{suffix}", matrix)
        if layer.use_bias:
            slots[f"{prefix}bias"] = Slot(f"bias_ih_l0{suffix}", vector)
        if layer.use_bias and isinstance(layer, Gru):
            slots[f"{prefix}recurrent_bias"] = Slot(f"recurrent_bias_l0{suffix}")
    return Made(Recurrent(layer, mode, node.input_shapes[0][-1]), slots)
