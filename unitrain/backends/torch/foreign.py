"""A user's ``torch.nn.Module``, taken apart by recording every torch function that its forward pass calls."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unitrain.backends.foreign import (
    Array,
    ForeignParameter,
    Ran,
    Role,
    Trace,
    blocks,
    float32,
    in_order_of_use,
    output_names,
    second_bias,
)
from unitrain.backends.torch.recording import Call, Recorder, again, owners
from unitrain.backends.torch.runtime import differentiable
from unitrain.spec.errors import InputError


@dataclass(frozen=True)
class _Recorded:
    calls: list[Call]
    roles: dict[str, tuple[Role, str]]
    moves: list[int]
    dtypes: dict[int, torch.dtype]


class TorchModel:
    """`backends.foreign.Foreign` of a ``torch.nn.Module``.

    Raises
    ------
    ValueError
        It holds parameters that are not float32.
    """

    label = "torch model"
    backend = "torch"
    trains = True
    channels_first: bool | None = True

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model.cpu()
        self._tensors = {
            name: tensor
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
            if tensor is not None and tensor.is_floating_point()
        }
        self._trained = {name for name, _ in model.named_parameters()}
        for name, tensor in self._tensors.items():
            float32(name, np.empty(0, str(tensor.dtype).removeprefix("torch.").replace("bfloat16", "float16")))
        signature = inspect.signature(model.forward).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self.input_names = tuple(item.name for item in signature if item.kind in kinds)

    def arrays(self) -> dict[str, Array]:
        """Copy out parameters and buffers."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self._tensors.items()}

    def record(self, inputs: Mapping[str, Array] | Sequence[Array], *, training: bool) -> Trace:
        """Record every torch function of a forward pass."""
        recorder = Recorder({id(tensor): name for name, tensor in self._tensors.items()})
        arrays = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        tensors = [_tensor(array) for array in arrays]
        numbers = tuple(recorder.number(tensor) for tensor in tensors)
        given = dict(zip(inputs, tensors, strict=True)) if isinstance(inputs, Mapping) else {}
        with self._kept(training), owners(self.model, recorder), torch.no_grad(), recorder:
            result = self.model(**given) if given else self.model(*tensors)
        outputs = self._outputs(result, recorder)
        return Trace(
            tuple(recorder.operations),
            recorder.shapes,
            numbers,
            outputs,
            training,
            tuple(recorder.drops),
            recorder.draws,
            _Recorded(recorder.calls, recorder.roles, recorder.moves, recorder.dtypes),
        )

    def _outputs(self, result: Any, recorder: Recorder) -> dict[str, int]:
        named: dict[str, Any]
        if isinstance(result, Mapping):
            named = dict(result)
        elif isinstance(result, (tuple, list)):
            named = dict(zip(output_names(len(result)), result, strict=True))
        else:
            named = {"output": result}
        found = {
            str(name): recorder.numbers[id(tensor)]
            for name, tensor in named.items()
            if isinstance(tensor, torch.Tensor) and id(tensor) in recorder.numbers
        }
        if not found:
            raise InputError(
                "the model gives no tensor that torch has computed from its inputs", found=type(result).__name__
            )
        return found

    @contextmanager
    def _kept(self, training: bool) -> Iterator[None]:
        """Switch to a mode for a while; modes and buffers are put back behind it."""
        modes = {module: module.training for module in self.model.modules()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers() if buffer is not None}
        self.model.train(training)
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for name, buffer in self.model.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])

    def parameters(self, trace: Trace) -> tuple[ForeignParameter, ...]:
        """Describe parameters and buffers by the functions that read them."""
        modules = dict(self.model.named_modules())
        found = []
        for name, tensor in self._tensors.items():
            owner, _, last = name.rpartition(".")
            role, axes = (
                _by_module(modules[owner], last) or trace.recorded.roles.get(name) or _by_name.get(last, ("", ""))
            )
            kind = type(modules[owner]).__name__
            shape = tuple(tensor.shape)
            trained = name in self._trained
            frozen = trained and not tensor.requires_grad
            recurrent = _recurrent(modules[owner], last)
            if recurrent is not None:
                level, stand = recurrent
                axes = "oi" if len(shape) == 2 else ""
                found.append(ForeignParameter(name, shape, f"{owner}{level}", kind, "", axes, trained, stand, frozen))
                continue
            found.append(ForeignParameter(name, shape, owner, kind, role, axes, trained, frozen=frozen))
        return in_order_of_use(trace, found)

    @differentiable()
    def run(
        self,
        trace: Trace,
        feeds: Mapping[int, Array],
        fetches: Sequence[int],
        upstream: Mapping[int, Array] | None = None,
    ) -> Ran:
        """Call the recorded functions again, on other tensors and on copies of the parameters."""
        dtypes = trace.recorded.dtypes
        values = {number: _tensor(array).to(dtypes[number]) for number, array in feeds.items()}
        leaves = dict(values)
        if upstream is not None:
            for tensor in leaves.values():
                tensor.requires_grad_(tensor.is_floating_point())
        chosen, missing = trace.section(feeds, fetches)
        if missing:
            raise ValueError("the section needs tensors that are not fed")
        chosen = _with_moves(trace, list(feeds), chosen)
        names = {name for number in chosen for name in trace.operations[number].parameters}
        own = {name: self._tensors[name].detach().clone() for name in names}
        if upstream is not None:
            for name, tensor in own.items():
                tensor.requires_grad_(name in self._trained)
        for number in chosen:
            again(trace.recorded.calls[number], values, own)
        found = {number: values[number] for number in fetches}
        statistics = {name: tensor.detach().numpy() for name, tensor in own.items() if name not in self._trained}
        arrays = {number: _array(tensor) for number, tensor in found.items()}
        if upstream is None:
            return Ran(arrays, statistics=statistics)
        by_feed = {number: leaf for number, leaf in leaves.items() if leaf.requires_grad}
        by_name = {name: tensor for name, tensor in own.items() if tensor.requires_grad}
        wanted = [*by_feed.values(), *by_name.values()]
        sources = [(found[number], _tensor(gradient).to(dtypes[number])) for number, gradient in upstream.items()]
        sources = [(tensor, gradient) for tensor, gradient in sources if tensor.requires_grad]
        gradients: Sequence[torch.Tensor | None] = [None] * len(wanted)
        if sources and wanted:
            gradients = torch.autograd.grad(
                [tensor for tensor, _ in sources], wanted, [gradient for _, gradient in sources], allow_unused=True
            )
        filled = [
            np.zeros(tuple(leaf.shape), np.float32) if gradient is None else _array(gradient)
            for leaf, gradient in zip(wanted, gradients, strict=True)
        ]
        return Ran(
            arrays,
            dict(zip(by_feed, filled[: len(by_feed)], strict=True)),
            dict(zip(by_name, filled[len(by_feed) :], strict=True)),
            statistics,
        )


def _with_moves(trace: Trace, feeds: Sequence[int], chosen: list[int]) -> list[int]:
    """Return a section with what its modules do to their buffers beside their results."""
    owners = {trace.operations[number].owner for number in chosen}
    every = set(chosen)
    for number in trace.recorded.moves:
        operation = trace.operations[number]
        if number in every or operation.owner not in owners:
            continue
        needed, missing = trace.section(feeds, operation.inputs)
        if not missing:
            every |= {number, *needed}
    return sorted(every)


_by_name: dict[str, tuple[Role, str]] = {
    "bias": ("bias", "c"),
    "running_mean": ("running_mean", "c"),
    "running_var": ("running_variance", "c"),
}
_MODULES: tuple[tuple[type[torch.nn.Module], str], ...] = (
    (torch.nn.Linear, "oi"),
    (torch.nn.Conv1d, "oiw"),
    (torch.nn.Conv2d, "oihw"),
    (torch.nn.Conv3d, "oithw"),
    (torch.nn.ConvTranspose1d, "iow"),
    (torch.nn.ConvTranspose2d, "iohw"),
)


def _by_module(module: torch.nn.Module, last: str) -> tuple[Role, str] | None:
    """Tell what the weight of torch's own modules is, whatever a forward pass does with it."""
    axes = next((axes for kind, axes in _MODULES if isinstance(module, kind)), "")
    return ("kernel", axes) if axes and last == "weight" else None


# Gates of torch's recurrent modules in its order of rows.
_GATES = {"LSTM": "ifgo", "GRU": "rzn"}
_RECURRENT_NAME = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh|recurrent_bias)(_l\d+)?(_reverse)?")


def _recurrent(module: torch.nn.Module, last: str) -> tuple[str, tuple[str, ...]] | None:
    """Tell to which of its levels an array of a recurrent module belongs, and what stands in it."""
    if not isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
        return None
    parts = _RECURRENT_NAME.fullmatch(last)
    if parts is None:  # as the matrix that makes an LSTM's state narrower, which the spec has not
        return None
    kind = str(module.mode) if isinstance(module, torch.nn.RNNBase) else type(module).__name__.removesuffix("Cell")
    gates, prefix = _GATES.get(kind, "h"), "backward_" if parts[3] else ""
    local = {"weight_ih": "kernel", "weight_hh": "recurrent", "bias_ih": "bias", "recurrent_bias": "recurrent_bias"}
    if parts[1] == "bias_hh":
        stand = second_bias(gates, prefix)
    else:
        stand = blocks(f"{prefix}{local[parts[1]]}", "n" if parts[1] == "recurrent_bias" else gates)
    return (f".{parts[2][1:]}" if parts[2] else ""), stand


def _tensor(array: Array) -> torch.Tensor:
    whole = np.array(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64, order="C")
    return torch.from_numpy(whole)


def _array(tensor: torch.Tensor) -> Array:
    """Copy out a tensor, float32 where it is in half precision: NumPy has no bfloat16."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy().copy()


def wrap(model: torch.nn.Module) -> TorchModel:
    """Take a user's module. Raises `InputError` where it cannot be compared."""
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a scripted or traced module cannot be taken apart", hint="give the module that it comes from")
    try:
        return TorchModel(model)
    except ValueError as error:
        raise InputError(str(error), hint="give it as model.float()") from None
