"""What a run of ours needs of TensorFlow's global state: set for its duration, restored behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def tensor_float32(allowed: bool) -> Iterator[None]:
    """Let products and convolutions of float32 use TensorFloat-32, or not; matters on CUDA alone.

    TensorFlow itself allows it.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
