"""What a run of ours needs of torch's global state: set for its duration, restored behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from unitrain.backends.contract import Settings
from unitrain.backends.precision import stored_in
from unitrain.spec.errors import InputError

# From torch 2.9 on TensorFloat-32 is set by these words; the older switches cannot be read where a user has set these.
_WORDS = hasattr(torch._C, "_get_fp32_precision_getter")


def dtype_of(settings: Settings) -> torch.dtype:
    """Return the dtype of weights, gradients, losses and results.

    Raises
    ------
    InputError
        The device has no such numbers.
    """
    if settings.device.startswith("mps") and settings.precision == "float64":
        raise InputError("the device 'mps' has no float64", field=("precision",), found="float64", allowed="float32")
    dtype: torch.dtype = getattr(torch, stored_in(settings.precision))
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
    """Choose algorithms whose sums have one order; matters on CUDA alone.

    An operation that has no such algorithm runs all the same, and torch warns.
    """
    if device.type != "cuda":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    benchmark, deterministic = cudnn.benchmark, cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = benchmark, deterministic
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


@contextmanager
def tensor_float32(device: torch.device, allowed: bool) -> Iterator[None]:
    """Let products and convolutions of float32 use TensorFloat-32, or not; matters on CUDA alone.

    torch itself allows it for convolutions and not for products.
    """
    if device.type != "cuda":
        yield
        return
    cublas: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    owners = (cublas, cudnn.conv, cudnn.rnn) if _WORDS else (cublas, cudnn)
    name, value = ("fp32_precision", "tf32" if allowed else "ieee") if _WORDS else ("allow_tf32", allowed)
    before = [getattr(owner, name) for owner in owners]
    try:
        for owner in owners:
            setattr(owner, name, value)
        yield
    finally:
        for owner, old in zip(owners, before, strict=True):
            setattr(owner, name, old)


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


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Let torch compute on so many threads of the CPU; on as many as before for None."""
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
