"""Writes down every torch function that a module calls, so that any section of a forward pass can be called again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from unitrain.backends.foreign import Operation, Role

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
class Value:
    """Stands for a tensor of the trace among a function's arguments."""

    number: int


@dataclass(frozen=True)
class Name:
    """Stands for a parameter or buffer among a function's arguments."""

    name: str


@dataclass
class Call:
    """A function with its arguments, `Value` and `Name` in the place of tensors.

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


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested tuples, lists and dicts, in order."""
    found: list[torch.Tensor] = []
    _mapped(found.append, value)
    return found


class Recorder(TorchFunctionMode):
    """Writes down every torch function that is called while it is on, and lets nothing be dropped."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.numbers: dict[int, int] = {}
        self.kept: list[torch.Tensor] = []  # so that no other tensor gets the identity of one that is gone
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.dtypes: dict[int, torch.dtype] = {}
        self.calls: list[Call] = []
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
        self.dtypes[number] = tensor.dtype
        return number

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            bound = inspect.signature(func).bind(*args, **kwargs)
            bound.apply_defaults()
            self.drops.append(float(bound.arguments["p"]))
            bound.arguments["training"] = False
            args, kwargs = bound.args, bound.kwargs
        given = tensors_in((args, kwargs))
        versions = [tensor._version for tensor in given]
        call = Call(func, self._named(args), self._named(kwargs))
        result = func(*args, **kwargs)
        name = str(getattr(func, "__name__", func))
        results = tensors_in(result)
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
                return Name(self.names[id(tensor)])
            return Value(self.numbers[id(tensor)]) if id(tensor) in self.numbers else tensor

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


def again(call: Call, values: dict[int, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    """Call a function again; what it overwrites is copied before."""
    copies = {number: values[number].clone() for number in call.changes if number in values}

    def filled(stand_in: Value | Name) -> torch.Tensor:
        if isinstance(stand_in, Name):
            return own[stand_in.name]
        return copies[stand_in.number] if stand_in.number in copies else values[stand_in.number]

    kinds = (Value, Name)
    result = call.function(*_mapped(filled, call.args, kinds), **_mapped(filled, call.kwargs, kinds))
    for before, after in call.changes.items():
        if before in copies:
            values[after] = copies[before]
    values.update(zip(call.gives, tensors_in(result), strict=True))


@contextmanager
def owners(model: torch.nn.Module, recorder: Recorder) -> Iterator[None]:
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
