"""Softmax in its parts and by TensorFlow's own, against scipy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from unitrain.backends.keras.namespace import NAMESPACE


@pytest.mark.parametrize("shape", [(7, 10), (3, 128), (4, 129), (2, 3, 5), (2, 1, 3, 1, 2, 4)])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax(shape: tuple[int, ...], scale: float) -> None:
    x = (scale * np.random.default_rng(1).normal(size=shape)).astype(np.float32)
    found = NAMESPACE.softmax(tf.constant(x)).numpy()
    np.testing.assert_allclose(found, softmax(x.astype(np.float64), axis=-1), rtol=2e-6, atol=1e-37)
