"""`predict` and `label` for images as users have them: one, a list, or a folder of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.inference.inputs import (
    ImageLike,
    ImageList,
    Tags,
    decode_image,
    folder_images,
    is_folder,
    tag_names,
    tag_row,
    tags_of_list,
)
from tag2mask.io.depth import ValueRange
from tag2mask.types import Image, Prediction

Pixels = npt.NDArray[Any] | PILImage.Image
"""A decoded image."""


class ImageCalls(ABC):
    """Takes images in every form, for classes that segment decoded ones."""

    class_names: tuple[str, ...]
    """Foreground names in the order of mask values 1..F."""
    value_range: ValueRange | None = None
    """Values of 16-bit pixels that become 0 and 255; None: each image's own range."""

    @abstractmethod
    def segment(
        self,
        image: Image,
        tags: npt.NDArray[np.uint8] | None = None,
        *,
        keep_cam: bool = False,
        name: str = "",
    ) -> Prediction:
        """Segment one (H, W, 3) image; (F,) tags select the classes, else the classifier does."""

    @abstractmethod
    def with_settings(
        self,
        *,
        background: float | None = None,
        class_threshold: float | None = None,
        refiner: str | None = None,
    ) -> Self:
        """Return the same network with other test-time settings; None keeps a setting."""

    @abstractmethod
    def tagged_images(self, folder: Path) -> Source:
        """Open the images and tags of a folder."""

    @overload
    def predict(
        self,
        image: Pixels,
        *,
        keep_cam: bool = ...,
        background: float | None = ...,
        class_threshold: float | None = ...,
        refiner: str | None = ...,
    ) -> Prediction: ...
    @overload
    def predict(
        self,
        image: str | Path,
        *,
        keep_cam: bool = ...,
        background: float | None = ...,
        class_threshold: float | None = ...,
        refiner: str | None = ...,
    ) -> Prediction | Any: ...
    @overload
    def predict(
        self,
        image: ImageList,
        *,
        keep_cam: bool = ...,
        background: float | None = ...,
        class_threshold: float | None = ...,
        refiner: str | None = ...,
    ) -> list[Prediction]: ...
    def predict(
        self,
        image: ImageLike | ImageList,
        *,
        keep_cam: bool = False,
        background: float | None = None,
        class_threshold: float | None = None,
        refiner: str | None = None,
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """Segment untagged images; the classifier selects their classes.

        Args:
            image: An (H, W, 3) array (also gray, RGBA, uint16, or float in [0, 1]), a Pillow image
                or a path; a list of these; or the path of a folder.
            keep_cam: Keep the CAM that the mask was made from.
            background: Background score in [0, 1] for this call, see `with_settings`.
            class_threshold: Class threshold in [0, 1] for this call.
            refiner: Refiner for this call.

        Returns:
            A prediction; of a list a list of them; of a folder an iterator that segments one image
            after the other, in the order of their names.

        Raises:
            DataError: If an image cannot be read, or a folder has none.
            RecipeError: If a setting is out of range.
        """
        chosen = self._chosen(background, class_threshold, refiner)
        if is_folder(image):
            found = folder_images(Path(image), self.value_range)
            return (chosen.segment(one.image, keep_cam=keep_cam, name=one.name) for one in found)
        if isinstance(image, list | tuple):
            return [chosen._predict_one(one, keep_cam) for one in image]
        return chosen._predict_one(image, keep_cam)

    @overload
    def label(
        self,
        image: Pixels,
        tags: Tags,
        *,
        keep_cam: bool = ...,
        background: float | None = ...,
        refiner: str | None = ...,
    ) -> Prediction: ...
    @overload
    def label(
        self,
        image: str | Path,
        tags: Tags | None = ...,
        *,
        keep_cam: bool = ...,
        background: float | None = ...,
        refiner: str | None = ...,
    ) -> Prediction | Any: ...
    @overload
    def label(
        self,
        image: ImageList,
        tags: Tags | Sequence[Tags],
        *,
        keep_cam: bool = ...,
        background: float | None = ...,
        refiner: str | None = ...,
    ) -> list[Prediction]: ...
    def label(
        self,
        image: ImageLike | ImageList,
        tags: Tags | Sequence[Tags] | None = None,
        *,
        keep_cam: bool = False,
        background: float | None = None,
        refiner: str | None = None,
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """Segment tagged images; their tags select the classes.

        Args:
            image: As in `predict`. A folder has its tags in it, in any layout that `train` reads.
            tags: One tag (`"dog"`) or a list of tags. Of a list of images: one entry per image, or
                one tag for all of them. Of a folder: None.
            keep_cam: Keep the CAM that the mask was made from.
            background: Background score in [0, 1] for this call, see `with_settings`.
            refiner: Refiner for this call.

        Returns:
            As `predict`.

        Raises:
            DataError: If a tag is not one of the class names, tags are missing, or an image cannot
                be read.
            RecipeError: If a setting is out of range.
        """
        chosen = self._chosen(background, None, refiner)
        if is_folder(image):
            return chosen._label_folder(Path(image), tags, keep_cam)
        if tags is None:
            raise DataError("label() needs the tags of the image; predict() works without tags")
        if isinstance(image, list | tuple):
            pairs = zip(image, tags_of_list(tags, len(image)), strict=True)
            return [chosen._label_one(one, own, keep_cam) for one, own in pairs]
        return chosen._label_one(image, tags, keep_cam)

    def _chosen(
        self, background: float | None, class_threshold: float | None, refiner: str | None
    ) -> Self:
        """Apply the settings of one call; without any, everything stays as it is."""
        if background is None and class_threshold is None and refiner is None:
            return self
        return self.with_settings(
            background=background, class_threshold=class_threshold, refiner=refiner
        )

    def _predict_one(self, image: ImageLike, keep_cam: bool) -> Prediction:
        name, pixels = decode_image(image, self.value_range)
        return self.segment(pixels, keep_cam=keep_cam, name=name)

    def _label_one(
        self, image: ImageLike, tags: Tags | Sequence[Tags], keep_cam: bool
    ) -> Prediction:
        row = tag_row(tag_names(tags), self.class_names)
        name, pixels = decode_image(image, self.value_range)
        return self.segment(pixels, row, keep_cam=keep_cam, name=name)

    def _label_folder(self, folder: Path, tags: object, keep_cam: bool) -> Iterator[Prediction]:
        """Segment the images of a folder by the tags in it."""
        if tags is not None:
            raise DataError(f"{folder}: leave out tags; those of a folder are read from it")
        source = self.tagged_images(folder)
        samples = (source[index] for index in range(len(source)))
        return (
            self.segment(one.image, one.tags, keep_cam=keep_cam, name=one.name) for one in samples
        )
