"""What a run of ours needs of torch's global state: set for its duration, restored behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unitrain.backends.contract import Settings
from unitrain.spec.errors import InputError


def dtype_of(settings: Settings) -> torch.dtype:
    """Return the working dtype.

    Raises
    ------
    InputError
        The device has no such numbers.
    """
    if settings.device.startswith("mps") and settings.precision == "float64":
        raise InputError("the device 'mps' has no float64", field=("precision",), found="float64", allowed="float32")
    dtype: torch.dtype = getattr(torch, settings.precision)
    return dtype


def widened(x: torch.Tensor) -> torch.Tensor:
    """Return numbers of 16 bits as float32, in which a formula of several operations then rounds only at its end.

    In them x + 3 is 6 for some x below 3, the edge of hard sigmoid.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@contextmanager
def differentiable() -> Iterator[None]:
    """Record for differentiation even where the caller has switched that off: a loss would not reach the weights."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Choose algorithms whose sums have one order, in full float32; matters on CUDA alone.

    An operation that has no such algorithm runs all the same, and torch warns.
    """
    if device.type != "cuda":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        cudnn = torch.backends.cudnn
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the device's generator for a while; afterwards it goes on where it was."""
    generator = _generator(device)
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


def _generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator
