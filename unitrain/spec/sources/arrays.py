"""Arrays in files of NumPy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unitrain.spec.base import Spec


class Npz(Spec):
    """Arrays in a NumPy ``.npz`` file, the samples on the first axis.

    Parameters
    ----------
    file
        Training samples, or all samples.
    validation_file, test_file
        Files of the other parts, where they exist, with the same keys.
    inputs
        Model input name -> key in the file.
    targets
        Model output name -> key in the file. A key may serve as input and target (an autoencoder).
    weight, group
        Keys of the sample weights and of the groups that a split keeps together.
    """

    type: Literal["npz"] = "npz"
    file: str
    validation_file: str | None = None
    test_file: str | None = None
    inputs: Annotated[dict[str, str], Field(min_length=1)]
    targets: dict[str, str] = {}
    weight: str | None = None
    group: str | None = None


class NpyFiles(Spec):
    """NumPy ``.npy`` files, an array each, the samples on the first axis.

    Parameters
    ----------
    inputs
        Model input name -> file.
    targets
        Model output name -> file. A file may serve as input and target (an autoencoder).
    weight, group
        Files of the sample weights and of the groups that a split keeps together.
    """

    inputs: Annotated[dict[str, str], Field(min_length=1)]
    targets: dict[str, str] = {}
    weight: str | None = None
    group: str | None = None


class Npy(NpyFiles):
    """NumPy ``.npy`` files, one for each model input and target; inputs may be larger than memory.

    Parameters
    ----------
    validation, test
        Files of the other parts, where they exist.
    """

    type: Literal["npy"] = "npy"
    validation: NpyFiles | None = None
    test: NpyFiles | None = None
