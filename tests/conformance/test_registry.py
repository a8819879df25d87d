"""Every backend implements every layer: a missing cell fails."""

from __future__ import annotations

import pytest

from unitrain.backends import BACKENDS, TRAINING_BACKENDS, load_backend
from unitrain.spec.layers import LAYER_TYPES


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_layer_has_its_cell(backend: str) -> None:
    assert load_backend(backend).layer_types() == set(LAYER_TYPES)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_backends_that_train_are_listed(backend: str) -> None:
    assert load_backend(backend).trains == (backend in TRAINING_BACKENDS)
