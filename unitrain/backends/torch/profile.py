"""Operators of a step by ``torch.profiler``, and the layer that each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from unitrain.backends.torch.program import TorchProgram
from unitrain.spans import Recorder, Span

_START = "unitrain: watched"
_LAYER = "unitrain: layer "
# A device's spans are kept under numbers that no thread has.
_DEVICES = -1000
# ``at::RecordScope::BACKWARD_FUNCTION``.
_BACKWARD = 1


@contextmanager
def watch(program: TorchProgram, recorder: Recorder) -> Iterator[None]:
    """Record a span for each operator, and each layer's forward pass, for a while.

    Where the program is on a GPU its kernels are the operators: the host merely starts them.
    """
    on_gpu = program._device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with ExitStack() as stack:
        for path, module in program.model.named_modules():
            if path and not any(module.children()):
                _name_layer(stack, path, module)
        measured = stack.enter_context(profile(activities=activities))
        began = perf_counter()
        with record_function(_START):
            pass
        yield
        if on_gpu:
            torch.cuda.synchronize(program._device)
    recorder.spans += _spans(list(measured.events()), began, on_gpu)


def _name_layer(stack: ExitStack, path: str, module: torch.nn.Module) -> None:
    """Let the profiler see where a layer's forward pass begins and ends, until the stack is left."""
    open_: list[ExitStack] = []

    def before(*_: Any) -> None:
        open_.append(ExitStack())
        open_[-1].enter_context(record_function(f"{_LAYER}{path}"))

    def after(*_: Any) -> None:
        if open_:
            open_.pop().close()

    stack.callback(module.register_forward_pre_hook(before).remove)
    stack.callback(module.register_forward_hook(after, always_call=True).remove)


def _spans(events: list[Any], began: float, on_gpu: bool) -> list[Span]:
    """Turn the profiler's events, microseconds on a clock of its own, into spans."""
    mark = next(event.time_range.start for event in events if event.name == _START)
    layers = _layers([event for event in events if event.device_type == DeviceType.CPU])
    found = []
    for event in events:
        on_device = event.device_type != DeviceType.CPU
        named = event.name.startswith(_LAYER)
        if event.name == _START or (on_device and named):
            continue
        layer, direction = layers.get(event.id, (None, "")) if not on_device else (None, "")
        name = "the module itself" if named else event.name
        found.append(
            Span(
                name if layer is None else f"{layer} {direction}: {name}",
                began + 1e-6 * (event.time_range.start - mark),
                1e-6 * (event.time_range.end - event.time_range.start),
                _DEVICES - event.device_index if on_device else event.thread,
                # On a GPU the host's operators are the starting of kernels, told apart from the work itself.
                "launch" if on_gpu and not on_device else "operator",
                layer,
            )
        )
    return found


def _layers(events: list[Any]) -> dict[int, tuple[str, str]]:
    """Return the layer and the direction of the host's events, by their number, where they are known.

    What a layer's forward pass encloses is the layer's. A backward function carries the sequence number of the
    operator that made it, and what it encloses is of the same layer.
    """
    found: dict[int, tuple[str, str]] = {}
    made_by: dict[int, str] = {}
    for backward in (False, True):
        by_thread: dict[int, list[Any]] = {}
        for event in events:
            by_thread.setdefault(event.thread, []).append(event)
        for own in by_thread.values():
            own.sort(key=lambda event: (event.time_range.start, -event.time_range.end))
            around: list[tuple[float, tuple[str, str]]] = []
            for event in own:
                while around and around[-1][0] <= event.time_range.start:
                    around.pop()
                if event.name.startswith(_LAYER) and not backward:
                    around.append((event.time_range.end, (event.name.removeprefix(_LAYER), "forward")))
                elif backward and event.scope == _BACKWARD and event.sequence_nr in made_by:
                    around.append((event.time_range.end, (made_by[event.sequence_nr], "backward")))
                if not around:
                    continue
                found[event.id] = around[-1][1]
                if not backward and event.sequence_nr >= 0:
                    made_by[event.sequence_nr] = around[-1][1][0]
    return found
