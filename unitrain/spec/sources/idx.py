"""Images and labels in idx files: MNIST, sets like it, and the user's own."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from unitrain.spec.base import Spec


class FashionMnist(Spec):
    """60,000 training and 10,000 test images of clothes, 28 x 28 grey pixels (Xiao, Rasul & Vollgraf 2017).

    Parameters
    ----------
    folder
        Where the four idx files lie; by default where the Debian package puts them.
    masks
        The target is a mask: 0 where a pixel is black, elsewhere 1 + the number of the class. It is derived from the
        pictures; nobody drew it.
    """

    type: Literal["fashion_mnist"] = "fashion_mnist"
    folder: str = "/usr/share/datasets/fashion-mnist"
    masks: bool = False


class Mnist(Spec):
    """MNIST, or any set in the same four idx files, gzipped or not.

    Parameters
    ----------
    folder
        Holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the two of ``t10k``.
    """

    type: Literal["mnist"] = "mnist"
    folder: str


class Idx(Spec):
    """Images and labels in idx files, gzipped or not.

    Parameters
    ----------
    images, labels
        Training files, or all samples.
    validation_images, validation_labels, test_images, test_labels
        Files of the other parts, where they exist.
    """

    type: Literal["idx"] = "idx"
    images: str
    labels: str
    validation_images: str | None = None
    validation_labels: str | None = None
    test_images: str | None = None
    test_labels: str | None = None

    @model_validator(mode="after")
    def _pairs(self) -> Idx:
        for part in ("validation", "test"):
            if (getattr(self, f"{part}_images") is None) != (getattr(self, f"{part}_labels") is None):
                raise ValueError(f"{part}_images and {part}_labels must be given together")
        return self
