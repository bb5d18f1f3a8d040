"""The images on the page: of a folder of masks, or of masks made for the page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.errors import DataError, NothingHeldOutError, Tag2MaskError
from tag2mask.evaluation.folders import open_pairs
from tag2mask.io.images import read_image
from tag2mask.io.mask_folder import read_classes, read_scores
from tag2mask.io.masks import read_mask
from tag2mask.types import ClassSource, Image, Mask, Prediction

PARTS = ("train", "val")
"""Parts of a data set: training images and held-out images."""


class TrueMasks(NamedTuple):
    """True masks by image name, in the values of the run's classes."""

    origin: str
    """Where they come from, for the page."""
    names: frozenset[str]
    read: Callable[[str], Mask]


class RunData:
    """The data set that a recipe names; parts that cannot be opened are empty."""

    def __init__(self, recipe: Recipe | None) -> None:
        """Open both parts.

        Args:
            recipe: Of the run; None: nothing is known about its data.
        """
        self.parts: dict[str, Source] = {}
        self.error = ""
        """Why the training images cannot be opened."""
        for part in PARTS if recipe is not None else ():
            assert recipe is not None
            try:
                self.parts[part] = plugins.load("data", recipe.data.name)(recipe.data, part)
            except NothingHeldOutError:
                continue
            except Tag2MaskError as error:
                self.error = self.error or str(error).splitlines()[0]
        self._index = {
            name: (source, index)
            for source in self.parts.values()
            for index, name in enumerate(source.names)
        }

    @property
    def trained_on(self) -> frozenset[str]:
        """Names of the training images."""
        return frozenset(self.parts["train"].names if "train" in self.parts else ())

    def image(self, name: str) -> Image:
        """Decode an image.

        Raises:
            DataError: If the data set does not have it, or it cannot be read.
        """
        if name not in self._index:
            raise DataError(f"{name}: no image file is known")
        source, index = self._index[name]
        return source[index].image

    def true_masks(self, class_names: Sequence[str]) -> TrueMasks | None:
        """Return the true masks of the data set; None without any or with other classes."""
        known = {
            source.names[index]: (source, index)
            for source in self.parts.values()
            if tuple(source.class_names) == tuple(class_names)
            for index in source.mask_indices
        }

        def read(name: str) -> Mask:
            source, index = known[name]
            mask = source[index].mask
            if mask is None:
                raise DataError(f"{name}: has no true mask")
            return mask

        return TrueMasks("the data set", frozenset(known), read) if known else None


class ReportImages(ABC):
    """Images with their masks, and with true masks if there are some."""

    class_names: tuple[str, ...]
    class_source: ClassSource | None
    """Who chose the classes of the masks; None if unknown."""
    names: tuple[str, ...]
    tags: Mapping[str, Sequence[str]]
    """Name -> tags that chose the classes; empty if the classifier chose them."""
    scores: Mapping[str, Mapping[str, float]]
    """Name -> class -> probability of the classifier."""
    uncertainty: Mapping[str, float]
    has_background: bool = True
    """Whether pixels may belong to no class."""
    truth: TrueMasks | None = None

    @abstractmethod
    def image(self, name: str) -> Image:
        """Decode an image; raises DataError if it cannot be read."""

    @abstractmethod
    def mask(self, name: str) -> Mask:
        """Return the mask of an image; raises DataError if it cannot be read."""

    @property
    def with_truth(self) -> tuple[str, ...]:
        """Names of the images that have a true mask, in order."""
        known = frozenset[str]() if self.truth is None else self.truth.names
        return tuple(name for name in self.names if name in known)


class FolderImages(ReportImages):
    """The images of a folder that `label` or `predict` wrote."""

    def __init__(self, folder: Path, data: RunData) -> None:
        """Read the rows of a folder.

        Args:
            folder: Has `classes.json` and `scores.jsonl`.
            data: Has the images that are no files, or have moved.

        Raises:
            DataError: If `classes.json` cannot be read.
        """
        self.folder, self._data = folder, data
        described = read_classes(folder)
        self.class_names = tuple(described["classes"])
        self.class_source = described.get("class_source")
        self.has_background = described.get("settings", {}).get("has_background") is not False
        rows = read_scores(folder)
        self._rows = {n: row for n, row in rows.items() if (folder / f"{n}.png").is_file()}
        self.names = tuple(self._rows)
        self.tags = {name: row["tags"] for name, row in self._rows.items() if "tags" in row}
        self.scores = {name: row.get("scores", {}) for name, row in self._rows.items()}
        self.uncertainty = {
            name: row["uncertainty"] for name, row in self._rows.items() if "uncertainty" in row
        }

    def image(self, name: str) -> Image:
        """Decode the file of an image, or else the image of this name in the data set."""
        path = image_file(self._rows[name])
        return self._data.image(name) if path is None else read_image(path)

    def mask(self, name: str) -> Mask:
        """Read the mask of an image."""
        return read_mask(self.folder / f"{name}.png", len(self.class_names))

    def find_truth(self, chosen: Path | None, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Look for true masks: in a chosen folder, in one that was scored against, in the data.

        Args:
            chosen: As `evaluate` reads it; None: look in the other two.
            scores: Scores of the run, with the folders that were compared in their settings.

        Raises:
            DataError: If the chosen folder has no true mask for these masks.
        """
        if chosen is not None:
            self.truth = self._folder_truth(chosen)
            return
        for score in scores.values():
            settings = score.get("settings", {})
            if _is_same_path(settings.get("predictions"), self.folder):
                try:
                    self.truth = self._folder_truth(Path(settings["truth"]))
                except (Tag2MaskError, KeyError):
                    continue
                return
        self.truth = self._data.true_masks(self.class_names)

    def _folder_truth(self, truth: Path) -> TrueMasks:
        opened = open_pairs(self.folder, truth, limited=True)

        def read(name: str) -> Mask:
            mask: Mask = opened.table[read_mask(opened.pairs[name].truth, opened.true_classes)]
            return mask

        return TrueMasks(str(truth), frozenset(opened.pairs), read)


class PredictedImages(ReportImages):
    """Images whose masks were made for the page, because there is no folder of masks."""

    def __init__(
        self,
        class_names: Sequence[str],
        predictions: Mapping[str, Prediction],
        tags: Mapping[str, Sequence[str]],
        truth: TrueMasks | None,
    ) -> None:
        self._predictions = predictions
        self.class_names, self.names = tuple(class_names), tuple(predictions)
        self.class_source = "tags" if tags else "classifier"
        self.tags, self.truth = tags, truth
        self.scores = {name: one.scores for name, one in predictions.items()}
        self.uncertainty = {
            name: one.uncertainty.total
            for name, one in predictions.items()
            if one.uncertainty is not None
        }

    def image(self, name: str) -> Image:
        """Return the image that was segmented."""
        return self._predictions[name].image

    def mask(self, name: str) -> Mask:
        """Return the mask that was made."""
        return self._predictions[name].mask


def image_file(row: Mapping[str, Any]) -> Path | None:
    """Return the image file that a row of `scores.jsonl` names; None if it is not there."""
    if not isinstance(row.get("image"), str) or not isinstance(row.get("folder"), str):
        return None
    path = Path(row["folder"], row["image"])
    return path if path.is_file() else None


def _is_same_path(one: object, other: Path) -> bool:
    return isinstance(one, str) and Path(one).resolve() == other.resolve()
