"""A user's ``torch.nn.Module``, taken apart by recording every torch function that its forward pass calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from unitrain.backends.foreign import (
    Array,
    ForeignParameter,
    Operation,
    Ran,
    Role,
    Trace,
    float32,
    in_order_of_use,
    output_names,
)
from unitrain.backends.torch.runtime import differentiable
from unitrain.spec.errors import InputError

_DROPOUTS = {
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
}
# Functions of chance, beside dropout.
_CHANCE = ("rand", "normal", "uniform_", "bernoulli", "multinomial", "rrelu", "gumbel", "dropout")

# What the tensor arguments of a function are, by position and name: role and axes.
_Places = Mapping[int | str, tuple[Role, str]]
_LINEAR: _Places = {1: ("kernel", "oi"), 2: ("bias", "c"), "weight": ("kernel", "oi"), "bias": ("bias", "c")}
_NORM: _Places = {"weight": ("scale", "c"), "bias": ("bias", "c")}


def _convolution(axes: str) -> _Places:
    return {1: ("kernel", axes), 2: ("bias", "c"), "weight": ("kernel", axes), "bias": ("bias", "c")}


_ROLES: dict[str, _Places] = {
    "linear": _LINEAR,
    "conv1d": _convolution("oiw"),
    "conv2d": _convolution("oihw"),
    "conv_transpose1d": _convolution("iow"),
    "conv_transpose2d": _convolution("iohw"),
    "batch_norm": {
        1: ("running_mean", "c"), 2: ("running_variance", "c"), 3: ("scale", "c"), 4: ("bias", "c"),
        "running_mean": ("running_mean", "c"), "running_var": ("running_variance", "c"), **_NORM,
    },
    "layer_norm": {2: ("scale", ""), 3: ("bias", ""), "weight": ("scale", ""), "bias": ("bias", "")},
    "group_norm": {2: ("scale", "c"), 3: ("bias", "c"), **_NORM},
    "rms_norm": {2: ("scale", ""), "weight": ("scale", "")},
    "embedding": {1: ("table", "vd"), "weight": ("table", "vd")},
    "prelu": {1: ("slope", "c"), "weight": ("slope", "c")},
    "matmul": {1: ("kernel", "io"), "other": ("kernel", "io")},
    "mm": {1: ("kernel", "io"), "mat2": ("kernel", "io")},
    "addmm": {0: ("bias", "c"), 2: ("kernel", "io")},
}  # fmt: skip
_ROLES["__matmul__"] = _ROLES["matmul"]


@dataclass(frozen=True)
class _Value:
    """Stands for a tensor of the trace among a function's arguments."""

    number: int


@dataclass(frozen=True)
class _Name:
    """Stands for a parameter or buffer among a function's arguments."""

    name: str


@dataclass
class _Call:
    """A function with its arguments, `_Value` and `_Name` in the place of tensors.

    Parameters
    ----------
    changes
        Numbers of the tensors that it overwrites, and the numbers of what they hold afterwards.
    gives
        Number of each tensor of its result, in order; None for what is no float or index tensor of the trace.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    gives: list[int] = field(default_factory=list)
    changes: dict[int, int] = field(default_factory=dict)


def _mapped(change: Callable[[Any], Any], value: Any, kind: type | tuple[type, ...] = torch.Tensor) -> Any:
    """Apply ``change`` to all of ``kind`` in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, (tuple, list)):
        parts = [_mapped(change, part, kind) for part in value]
        if hasattr(value, "_fields"):
            return type(value)(*parts)
        return type(value)(parts) if type(value) in (tuple, list) else tuple(parts)
    if isinstance(value, dict):
        return {key: _mapped(change, part, kind) for key, part in value.items()}
    return value


def _tensors(value: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    _mapped(found.append, value)
    return found


class _Recorder(TorchFunctionMode):
    """Writes down every torch function that is called while it is on, and lets nothing be dropped."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.numbers: dict[int, int] = {}
        self.kept: list[torch.Tensor] = []  # so that no other tensor gets the identity of one that is gone
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.calls: list[_Call] = []
        self.operations: list[Operation] = []
        self.roles: dict[str, tuple[Role, str]] = {}
        self.turned: dict[int, str] = {}  # matrices that are a parameter's transpose
        self.moves: list[int] = []  # calls that overwrite a buffer
        self.drops: list[float] = []
        self.draws = False
        self.owners: list[str] = [""]

    def number(self, tensor: torch.Tensor) -> int:
        """Give a tensor a new number."""
        number = len(self.shapes)
        self.numbers[id(tensor)] = number
        self.kept.append(tensor)
        self.shapes[number] = tuple(tensor.shape)
        return number

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            bound = inspect.signature(func).bind(*args, **kwargs)
            bound.apply_defaults()
            self.drops.append(float(bound.arguments["p"]))
            bound.arguments["training"] = False
            args, kwargs = bound.args, bound.kwargs
        given = _tensors((args, kwargs))
        versions = [tensor._version for tensor in given]
        call = _Call(func, self._named(args), self._named(kwargs))
        result = func(*args, **kwargs)
        name = str(getattr(func, "__name__", func))
        results = _tensors(result)
        changed = [tensor for tensor, version in zip(given, versions, strict=True) if tensor._version != version]
        if not results and not changed:
            return result
        if name.startswith(_CHANCE) and func not in _DROPOUTS:
            self.draws = True
        read = [self.numbers[id(tensor)] for tensor in given if id(tensor) in self.numbers]
        used = [self.names[id(tensor)] for tensor in given if id(tensor) in self.names]
        for tensor in changed:
            if id(tensor) in self.numbers:
                before = self.numbers[id(tensor)]
                call.changes[before] = self.number(tensor)
        if any(id(tensor) in self.names for tensor in changed):
            self.moves.append(len(self.calls))
        call.gives = [
            self.numbers[id(tensor)]
            if any(tensor is other for other in changed) and id(tensor) in self.numbers
            else self.number(tensor)
            for tensor in results
        ]
        if len(used) == 1 and not read and given[0].dim() == 2 and results and _transposed(given[0], results[0]):
            self.turned[id(results[0])] = used[0]
        self._note_roles(name, args, kwargs)
        outputs = tuple(dict.fromkeys([*call.gives, *call.changes.values()]))
        if outputs or used:
            self.calls.append(call)
            owner = self.owners[-1]
            self.operations.append(
                Operation(name.strip("_"), owner, tuple(dict.fromkeys(read)), outputs, tuple(dict.fromkeys(used)))
            )
        return result

    def _named(self, value: Any) -> Any:
        def stand_in(tensor: torch.Tensor) -> Any:
            if id(tensor) in self.names:
                return _Name(self.names[id(tensor)])
            return _Value(self.numbers[id(tensor)]) if id(tensor) in self.numbers else tensor

        return _mapped(stand_in, value)

    def _note_roles(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        table = _ROLES.get(name, {})
        places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for place, tensor in places:
            if not isinstance(tensor, torch.Tensor) or place not in table:
                continue
            role, axes = table[place]
            if id(tensor) in self.names:
                self.roles.setdefault(self.names[id(tensor)], (role, axes))
            elif id(tensor) in self.turned:
                self.roles.setdefault(self.turned[id(tensor)], (role, axes[::-1]))


def _transposed(matrix: torch.Tensor, result: torch.Tensor) -> bool:
    """Tell whether a tensor is the transpose of a matrix, in the same memory."""
    return result.data_ptr() == matrix.data_ptr() and result.stride() == matrix.stride()[::-1]


@dataclass(frozen=True)
class _Recorded:
    calls: list[_Call]
    roles: dict[str, tuple[Role, str]]
    moves: list[int]


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
        recorder = _Recorder({id(tensor): name for name, tensor in self._tensors.items()})
        arrays = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        tensors = [_tensor(array) for array in arrays]
        numbers = tuple(recorder.number(tensor) for tensor in tensors)
        given = dict(zip(inputs, tensors, strict=True)) if isinstance(inputs, Mapping) else {}
        with self._kept(training), _owners(self.model, recorder), torch.no_grad(), recorder:
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
            _Recorded(recorder.calls, recorder.roles, recorder.moves),
        )

    def _outputs(self, result: Any, recorder: _Recorder) -> dict[str, int]:
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
            found.append(ForeignParameter(name, shape, owner, kind, role, axes, name in self._trained))
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
        values = {number: _tensor(array) for number, array in feeds.items()}
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
            _again(trace.recorded.calls[number], values, own)
        found = {number: values[number] for number in fetches}
        statistics = {name: tensor.detach().numpy() for name, tensor in own.items() if name not in self._trained}
        arrays = {number: tensor.detach().numpy().copy() for number, tensor in found.items()}
        if upstream is None:
            return Ran(arrays, statistics=statistics)
        by_feed = {number: leaf for number, leaf in leaves.items() if leaf.requires_grad}
        by_name = {name: tensor for name, tensor in own.items() if tensor.requires_grad}
        wanted = [*by_feed.values(), *by_name.values()]
        sources = [(found[number], _tensor(gradient)) for number, gradient in upstream.items()]
        sources = [(tensor, gradient) for tensor, gradient in sources if tensor.requires_grad]
        gradients: Sequence[torch.Tensor | None] = [None] * len(wanted)
        if sources and wanted:
            gradients = torch.autograd.grad(
                [tensor for tensor, _ in sources], wanted, [gradient for _, gradient in sources], allow_unused=True
            )
        filled = [
            np.zeros(tuple(leaf.shape), np.float32) if gradient is None else gradient.detach().numpy().copy()
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


def _again(call: _Call, values: dict[int, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Call a function again; what it overwrites is copied before."""
    copies = {number: values[number].clone() for number in call.changes if number in values}

    def filled(stand_in: _Value | _Name) -> torch.Tensor:
        if isinstance(stand_in, _Name):
            return own[stand_in.name]
        return copies[stand_in.number] if stand_in.number in copies else values[stand_in.number]

    kinds = (_Value, _Name)
    result = call.function(*_mapped(filled, call.args, kinds), **_mapped(filled, call.kwargs, kinds))
    for before, after in call.changes.items():
        if before in copies:
            values[after] = copies[before]
    values.update(zip(call.gives, _tensors(result), strict=True))


@contextmanager
def _owners(model: torch.nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder which module is at work."""
    handles = []
    for name, module in model.named_modules():

        def enter(module: torch.nn.Module, args: Any, name: str = name) -> None:
            recorder.owners.append(name)

        def leave(module: torch.nn.Module, args: Any, result: Any) -> None:
            recorder.owners.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_by_name: dict[str, tuple[Role, str]] = {
    "bias": ("bias", "c"),
    "running_mean": ("running_mean", "c"),
    "running_var": ("running_variance", "c"),
}
_MODULES: tuple[tuple[type[torch.nn.Module], str], ...] = (
    (torch.nn.Linear, "oi"),
    (torch.nn.Conv1d, "oiw"),
    (torch.nn.Conv2d, "oihw"),
    (torch.nn.ConvTranspose1d, "iow"),
    (torch.nn.ConvTranspose2d, "iohw"),
)


def _by_module(module: torch.nn.Module, last: str) -> tuple[Role, str] | None:
    """Tell what the weight of torch's own modules is, whatever a forward pass does with it."""
    axes = next((axes for kind, axes in _MODULES if isinstance(module, kind)), "")
    return ("kernel", axes) if axes and last == "weight" else None


def _tensor(array: Array) -> torch.Tensor:
    whole = np.array(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64, order="C")
    return torch.from_numpy(whole)


def wrap(model: torch.nn.Module) -> TorchModel:
    """Take a user's module. Raises `InputError` where it cannot be compared."""
    try:
        return TorchModel(model)
    except ValueError as error:
        raise InputError(str(error), hint="give it as model.float()") from None
