"""Pictures in folders, with a class or a mask each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from unitrain.spec.base import Spec


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
