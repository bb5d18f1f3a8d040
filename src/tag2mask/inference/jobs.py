"""A labeling run as plain values: any process, on any machine, can open it and do a part of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tag2mask.config.overrides import apply_overrides
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.inference.open_job import OpenJob
from tag2mask.inference.run import Which
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.shards import Shard
from tag2mask.inference.tagged_folder import open_source, reject_unknown_tags
from tag2mask.inference.tar_job import OpenTarJob, tar_files
from tag2mask.inference.voc_server import SERVER_FOLDER, reject_other_classes, server_images
from tag2mask.inference.writer import (
    MaskWriter,
    OnImage,
    WriteSummary,
    label_dataset,
    predict_images,
)
from tag2mask.io.image_inputs import named_images
from tag2mask.io.images import read_image
from tag2mask.types import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(ABC):
    """What `label` and `predict` share."""

    run: str
    """Run folder, or a hub id such as `org/name`."""
    out: Path
    """Folder for the masks."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Dotted recipe key -> text of its value."""
    which: Which = "best"
    device: str = "auto"
    strict: bool = False
    """Whether an unreadable image is an error; otherwise it is skipped."""

    @abstractmethod
    def open(self) -> OpenJob:
        """Load the network and find the images.

        Raises:
            DataError: If the images or their tags cannot be used.
            RunError: If the run has no weights.
        """

    def open_network(self) -> Segmenter:
        """Load the network with its settings."""
        return open_segmenter(self.run, self.overrides, self.which, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelJob(Job):
    """Masks of tagged images; see `tag2mask.label`."""

    data: Path
    split: str | None = None
    skip_unknown_tags: bool = False

    def open(self) -> OpenJob:
        """See `Job.open`; tar files have their tags in them."""
        if files := tar_files([self.data]):
            return OpenTarJob(
                self.open_network(),
                self.out,
                files,
                strict=self.strict,
                skip_unknown_tags=self.skip_unknown_tags,
            )
        return OpenLabelJob(self)


class OpenLabelJob(OpenJob):
    """Tagged images and the network that labels them."""

    def __init__(self, job: LabelJob) -> None:
        self.job, self.out = job, job.out
        self.segmenter = job.open_network()
        self.source: Source
        recipe, overrides = self.segmenter.recipe, job.overrides
        self.source, part = open_source(recipe, job.data, job.split, overrides)
        if not job.skip_unknown_tags:
            reject_unknown_tags(self.source, job.data)
        self.source.reads_masks = False
        self.names = self.source.names
        self._index = {name: position for position, name in enumerate(self.names)}
        self._settings = {**self.segmenter.settings("tags"), "split": part}

    def read(self, name: str) -> Image:
        """See `OpenJob.read`."""
        return self.source[self._index[name]].image

    def _write(self, shard: Shard | None, workers: int, on_image: OnImage | None) -> WriteSummary:
        """See `OpenJob.write`."""
        classes = self.segmenter.class_names
        writer = MaskWriter(self.job.out, classes, "tags", self._settings, shard=shard)
        return label_dataset(
            self.segmenter,
            self.source,
            writer,
            strict=self.job.strict,
            workers=workers,
            on_image=on_image,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictJob(Job):
    """Masks of untagged images; see `tag2mask.predict`."""

    images: Sequence[Path] = ()
    listed: Path | None = None
    voc_server: str | None = None

    def open(self) -> OpenJob:
        """See `Job.open`."""
        if self.voc_server is None and self.listed is None and (files := tar_files(self.images)):
            return OpenTarJob(
                self.open_network(), self.out, files, tagged=False, strict=self.strict
            )
        return OpenPredictJob(self)


class OpenPredictJob(OpenJob):
    """Images and the network that segments them."""

    def __init__(self, job: PredictJob) -> None:
        self.job, self.out = job, job.out
        self.segmenter = job.open_network()
        self._settings = self.segmenter.settings("classifier")
        self._strict = job.strict
        paths = job.images
        if job.voc_server is not None:
            reject_other_classes(self.segmenter.class_names)
            paths, self.inside = server_images(paths, job.voc_server), SERVER_FOLDER
            self._settings, self._strict = {**self._settings, "split": job.voc_server}, True
        self._files = named_images(
            paths, job.listed
        )  # rejects what is no image before anything is written
        self.names = list(self._files)

    def read(self, name: str) -> Image:
        """See `OpenJob.read`."""
        return read_image(self._files[name], self.segmenter.value_range)

    def _write(self, shard: Shard | None, workers: int, on_image: OnImage | None) -> WriteSummary:
        """See `OpenJob.write`."""
        classes = self.segmenter.class_names
        writer = MaskWriter(self.job.out, classes, "classifier", self._settings, self.inside, shard)
        return predict_images(
            self.segmenter,
            self._files,
            writer,
            strict=self._strict,
            workers=workers,
            on_image=on_image,
        )


def open_segmenter(
    run: str | Path, overrides: Mapping[str, str], which: Which = "best", device: str = "auto"
) -> Segmenter:
    """Open a run with overridden inference settings.

    A refiner named in the overrides is applied even where the inference protocol applies none. A
    method named there reads the run's weights.

    Args:
        run: Run folder, or a hub id such as `org/name`.
        overrides: Dotted recipe key -> text of its value.
        which: Weights of the run to use.
        device: Where the network runs.

    Raises:
        RecipeError: If an override does not fit.
        RunError: If the run is missing or contains no weights.
        WeightsError: If the named method has other parameters than the run's.
    """
    if "refiner.name" in overrides:
        overrides = {"predict.refine": "true", **overrides}

    def configure(trained: Recipe) -> Recipe:
        return apply_overrides(trained.plain(), overrides, f"{run}/recipe.yaml")

    return Segmenter.load(run, which, device=device, configure=configure if overrides else None)
