"""What a recipe says of its data: source, split, how columns and pixels become numbers, augmentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from unitrain.spec.base import Spec
from unitrain.spec.choice import Choice
from unitrain.spec.columns import Names
from unitrain.spec.sources import Source
from unitrain.spec.sources.arrays import Npz
from unitrain.spec.sources.bundled import Sunspots
from unitrain.spec.sources.images import ImageSize
from unitrain.spec.sources.series import Series
from unitrain.spec.sources.table import Table
from unitrain.spec.sources.tagged import TaggedTable
from unitrain.spec.vocabulary import NamedVocabulary

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
NumericScaling = Literal["standardise", "min_max", "none"]
CategoryEncoding = Literal["one_hot", "ordinal"]
ColumnMethod = Literal["standardise", "min_max", "none", "one_hot", "ordinal"]
PixelScaling = Literal["unit", "standardise", "none"]
Task = Literal["classification", "regression"]


class Missing(Spec):
    """What is done about missing values; fill values are fitted on the training part.

    Parameters
    ----------
    numeric
        ``error``, ``drop_row``, or the value put in its place.
    category
        The same for categories.
    target
        A missing target can only be an error or drop its row.
    numeric_value, category_value
        What ``constant`` puts in.
    """

    numeric: Literal["error", "drop_row", "mean", "median", "most_frequent", "constant"] = "error"
    category: Literal["error", "drop_row", "most_frequent", "constant"] = "error"
    target: Literal["error", "drop_row"] = "error"
    numeric_value: float = 0.0
    category_value: str = "missing"


class Normalise(Spec):
    """Fixed per-channel mean and standard deviation, of pixels in the range 0 to 1."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)]
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _same_length(self) -> Normalise:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std {len(self.std)}")
        return self


class Split(Spec):
    """Which samples train, validate and test.

    Parts that the source itself has (its own test files) are kept; the fractions divide the rest.

    Parameters
    ----------
    train
        Fraction for training; by default what the others leave.
    validation, test
        Fractions; 0 leaves the part out. By default 0.15 each.
    stratified
        Keep the proportions of the classes in every part; by default so for classification.
    group
        Column whose equal values stay in one part.
    ordered
        Nothing is drawn: the first samples train, the next validate, the last test. A series is always so.
    gap
        Samples (rows of a series) left out between two parts of ordered data.
    look_back
        Of a series: samples of the later parts see the rows before their part, as far as `Window.length` reaches. What
        they forecast lies in their part alone.
    """

    train: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    test: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    stratified: bool | None = None
    group: str | None = None
    ordered: bool | None = None
    gap: NonNegativeInt = 0
    look_back: bool = False

    @model_validator(mode="after")
    def _order_or_draw(self) -> Split:
        if self.gap and self.ordered is False:
            raise ValueError("a gap lies between parts that follow one another: state `ordered: true`")
        for name, value in (("stratified", self.stratified), ("group", self.group)):
            if self.ordered and value:
                raise ValueError(f"ordered parts are not drawn, so `{name}` has no meaning")
        return self


class Window(Spec):
    """How a series is cut into samples: ``length`` rows are seen, the ``horizon`` rows after them are forecast.

    Parameters
    ----------
    length
        Rows of the input: shape ``[length, feature]``.
    horizon
        Rows of the target: shape ``[horizon]``, or ``[horizon, column]`` for several columns.
    stride
        Rows from the start of one sample to the next.
    season
        Rows after which the series is expected to repeat itself, at most ``length``: the seasonal naive forecast, which
        stands beside the model in the results, says what was seen a season before; `mase` is in units of its error. 1
        repeats the last value.
    """

    length: PositiveInt
    horizon: PositiveInt = 1
    stride: PositiveInt = 1
    season: PositiveInt = 1

    @model_validator(mode="after")
    def _season_is_seen(self) -> Window:
        if self.season > self.length:
            raise ValueError(f"a season of {self.season} rows is more than the {self.length} that a sample sees")
        return self


class _Moving(Spec):
    """What pictures that move have: the pixels that come in from outside, and the class of these in a mask."""

    mode: Literal["constant", "edge", "reflect"] = "constant"
    fill: float = 0.0
    mask_fill: NonNegativeInt = 0


class Flip(Spec):
    """Mirror an image, left to right and, when asked for, top to bottom, each with ``probability``."""

    type: Literal["flip"] = "flip"
    horizontal: bool = True
    vertical: bool = False
    probability: Probability = 0.5


class Crop(_Moving):
    """Pad by ``padding`` pixels on all sides and cut out the original size at a random place.

    Parameters
    ----------
    padding
        Pixels; one number, or height and width.
    mode
        What the padding shows: ``fill``, the nearest pixel, or a mirror image (the border not repeated).
    fill
        In units of the raw pixels; 0 is black.
    mask_fill
        The class of the padding in a mask; the loss' ``ignore_index`` leaves it out.
    """

    type: Literal["crop"] = "crop"
    padding: ImageSize = (4, 4)


class Shift(_Moving):
    """Move an image by whole pixels, at most ``height`` up or down and ``width`` sideways, all as likely."""

    type: Literal["shift"] = "shift"
    height: NonNegativeInt = 2
    width: NonNegativeInt = 2


class Cutout(Spec):
    """Cover ``count`` squares of ``size`` pixels, centred anywhere in the image (DeVries & Taylor 2017)."""

    type: Literal["cutout"] = "cutout"
    size: PositiveInt = 8
    count: PositiveInt = 1
    probability: Probability = 1.0
    fill: float = 0.0


Augmentation = Annotated[Flip | Crop | Shift | Cutout, Choice()]


def _from_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


SourceName = Literal[
    "digits",
    "iris",
    "wine",
    "breast_cancer",
    "diabetes",
    "mnist_5k",
    "fashion_mnist",
    "sunspots",
    "italy_power",
    "austen",
    "brown_pos",
]
NamedSource = Annotated[Source, BeforeValidator(_from_name, json_schema_input_type=SourceName | Source)]
NamedAugmentation = Annotated[
    Augmentation,
    BeforeValidator(_from_name, json_schema_input_type=Literal["flip", "crop", "shift", "cutout"] | Augmentation),
]
Pixels = Annotated[
    Annotated[PixelScaling, Tag("name")] | Annotated[Normalise, Tag("values")],
    # Tells pydantic which of the two was meant, so that a mistake is answered once and not for each.
    Discriminator(lambda value: "values" if isinstance(value, (dict, Normalise)) else "name"),
]


class DataSpec(Spec):
    """The data of a recipe. Everything that is fitted is fitted on the training part only.

    Parameters
    ----------
    source
        Where the data comes from; a bare name stands for ``{type: name}``.
    features
        Model input -> the columns it is made of, in order. By default the only input gets all.
    window
        For a series: the rows that a sample sees, and those that it forecasts.
    split
        Fractions, stratification, groups, order.
    missing
        Policies for missing values.
    numeric
        Zero mean and unit variance, range 0 to 1, or as it is.
    category
        One column for each category, or one integer code (which an ``integer`` input always gets).
    per_column
        Column -> another scaling or encoding for this column alone.
    unseen_category
        A category that training did not have: an error, or all zeros (``one_hot``) and the reserved last code
        (``ordinal``). A tag of a token: an error, or left out as padding is.
    pixels
        Range 0 to 1, zero mean and unit variance for each channel, as they are, or stated mean and std.
    vocabulary
        What a token of a text is: ``bytes``, ``characters``, ``words``, ``{type: bpe, size: 2000}``. By default
        characters where the next token is predicted, else words.
    target_scaling
        Standardise the numbers of a regression; predictions are scaled back.
    invalid_image
        An image that does not decode: an error, or left out and reported.
    augment
        Changes to images of training batches, in order; masks are mirrored and moved with their images.
    limit
        Use this many training samples only, the classes in proportion.
    stream
        Leave inputs in their files and read each batch when it is due: ``auto`` does so where preparing them in
        memory would take more than half of what is available. For npy files, npz files that are not compressed, image
        folders and Parquet tables, of which targets and categories are held.
    workers
        Processes that decode the images of a folder; by default as many as there are processors (at most 8) where
        images stream, else none: the run decodes them itself.
    """

    source: NamedSource
    features: dict[str, Names] = {}
    window: Window | None = None
    split: Split = Split()
    missing: Missing = Missing()
    numeric: NumericScaling = "standardise"
    category: CategoryEncoding = "one_hot"
    per_column: dict[str, ColumnMethod] = {}
    unseen_category: Literal["error", "ignore"] = "error"
    pixels: Pixels = "unit"
    vocabulary: NamedVocabulary | None = None
    target_scaling: Literal["none", "standardise"] = "none"
    invalid_image: Literal["error", "skip"] = "error"
    augment: tuple[NamedAugmentation, ...] = ()
    limit: PositiveInt | None = None
    stream: Literal["auto", "always", "never"] = "auto"
    workers: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _series_have_windows(self) -> DataSpec:
        """A series is cut into windows, and nothing else is."""
        series = isinstance(self.source, (Series, Sunspots))
        if series and self.window is None:
            raise ValueError(
                "a series is cut into samples: state `window: {length: ROWS SEEN, horizon: ROWS FORECAST}`"
            )
        if not series and self.window is not None:
            raise ValueError(f"window is for a series, and the source is of type {self.source.type}")
        if series and self.split.ordered is False:
            raise ValueError("the parts of a series follow one another: leave out `split.ordered`")
        for name, value in (("stratified", self.split.stratified), ("group", self.split.group)):
            if series and value:
                raise ValueError(f"the parts of a series follow one another, so split.{name} has no meaning")
        if self.split.look_back and not series:
            raise ValueError(f"split.look_back is for a series, and the source is of type {self.source.type}")
        if self.split.gap and not (series or self.split.ordered):
            raise ValueError("split.gap lies between parts that follow one another: state `ordered: true`")
        return self

    def ordered(self) -> bool:
        """Whether the parts follow one another as the samples do."""
        return self.window is not None or bool(self.split.ordered)

    @model_validator(mode="after")
    def _one_group(self) -> DataSpec:
        """The group may be named at the source or at the split, but only once."""
        here = self.split.group
        if here is None:
            return self
        if not isinstance(self.source, (Table, Npz, TaggedTable)):
            raise ValueError(f"split.group: a source of type {self.source.type} has no columns to group by")
        if isinstance(self.source, Table):
            there: tuple[str, ...] = self.source.with_role("group")
        else:
            there = (self.source.group,) if self.source.group else ()
        if there and there != (here,):
            raise ValueError(f"the group is '{here}' in split and '{there[0]}' in source")
        return self

    def group(self) -> str | None:
        """Column or key of the groups, wherever it is stated."""
        if self.split.group is not None:
            return self.split.group
        if isinstance(self.source, Table):
            return next(iter(self.source.with_role("group")), None)
        return self.source.group if isinstance(self.source, (Npz, TaggedTable)) else None
