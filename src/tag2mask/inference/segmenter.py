"""The trained network as a user holds it: images in, masks out.

From image to mask in six steps: `read_image`, `predict_multi_scale`, `select_classes`,
`select_maps`, `refine_maps`, `maps_to_mask`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tag2mask.config.overrides import apply_overrides, override_texts
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.functional.bands import is_large
from tag2mask.functional.cam import upsample
from tag2mask.functional.precision import label_autocast
from tag2mask.inference.batches import ImageInput
from tag2mask.inference.hub import HubModel
from tag2mask.inference.image_calls import ImageCalls
from tag2mask.inference.large_images import needs_tiles, segment_large
from tag2mask.inference.mask_settings import describe_settings
from tag2mask.inference.multi_scale import (
    class_probs,
    images_per_pass,
    predict_multi_scale,
    predict_together,
    protocol_of,
    resolve_inference_config,
    select_classes,
)
from tag2mask.inference.postprocessing import (
    MaskOutput,
    PostProcessor,
    SelectedMaps,
    image_background,
    select_maps,
)
from tag2mask.inference.run import Configure, Which, open_run, ready_method, resolve_device
from tag2mask.inference.tagged_folder import open_source
from tag2mask.inference.uncertainty import combine_parts, network_parts, postprocess_with_parts
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_final_crf, build_refiner
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.types import ClassSource, Image, Mask, Prediction


class InferenceOutput(NamedTuple):
    """Everything the network contributes to the mask of one image; the mask is still to be made."""

    image: Image
    selected: SelectedMaps
    scores: dict[str, float]
    """Class probabilities by name."""
    class_source: ClassSource
    cam: npt.NDArray[np.float32] | None
    """(F, h, w), if asked for."""
    parts: Mapping[str, float] = {}
    """Parts of the uncertainty that the network gives."""
    name: str = ""
    """Name of the image."""


class Segmenter(ImageCalls, HubModel):
    """Turns images into masks with one trained method.

    Threads may share a segmenter: no call changes the network or anything else in it.

    Example:
        >>> segmenter = Segmenter.load("runs/pets")  # doctest: +SKIP
        >>> segmenter.predict("image.jpg").classes  # doctest: +SKIP
        ('cat',)
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        device: str | torch.device = "auto",
        *,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap a method, which is put into evaluation mode for good.

        To segment with a network in training, use the segmenter inside of `evaluating(method)`.

        Args:
            method: Carries its weights.
            recipe: Class names, test-time settings and refiner.
            device: Where the network runs; `auto` is the GPU if there is one.
            origin: Where the weights come from, stored with the masks (`run`, `weights`, `sha256`).
        """
        self.device = resolve_device(device)
        self.method = ready_method(method, self.device)
        self.recipe = recipe
        self.origin = dict(origin or {})
        self.class_names = recipe.data.classes
        self.value_range = recipe.data.value_range
        self.config = resolve_inference_config(recipe.predict, method)
        """Test-time settings, complete with the defaults of the protocol."""
        self.protocol = protocol_of(self.config, method)
        refiner = build_refiner(recipe) if self.config.refine else None
        crf = build_final_crf(self.protocol) if self.config.crf else None
        refiner, crf = (one.to(self.device) if one else None for one in (refiner, crf))
        self.postprocessor = PostProcessor(self.config, refiner, crf)

    @classmethod
    def load(
        cls,
        run: str | Path,
        which: Which = "best",
        *,
        device: str | torch.device = "auto",
        configure: Configure | None = None,
    ) -> Segmenter:
        """Load a run folder or a hub model.

        Args:
            run: A folder that `tag2mask train` wrote, or a hub id such as `org/name`. Of a run with
                stages, the last stage that trained.
            which: Weights to use; `best` falls back to `last` if no best were saved.
            device: See the constructor.
            configure: Changes the run's recipe: test-time settings, refiner, or a method that reads
                the same weights (`advcam` and `rib` read those of `cam`).

        Raises:
            RunError: If the folder contains no weights.
            WeightsError: If the weights cannot be read, downloaded or loaded.
        """
        opened = open_run(run, which, configure)
        return cls(opened.method, opened.recipe, device, origin=opened.origin)

    from_pretrained = load
    """Load what `save_pretrained` or `push_to_hub` wrote; the same as `load`."""

    def with_settings(
        self,
        *,
        background: float | None = None,
        class_threshold: float | None = None,
        refiner: str | None = None,
        scales: Sequence[float] | None = None,
        flip: bool | None = None,
        crf: bool | None = None,
        tile_px: int | None = None,
    ) -> Segmenter:
        """Return a segmenter of the same network with other test-time settings.

        The network is shared, not built again. None keeps a setting.

        Args:
            background: Background score in [0, 1] beside the CAM, for every image. Larger: smaller
                objects. Decoders ignore it.
            class_threshold: Probability in [0, 1] above which the classifier selects a class.
            refiner: Name of a refiner, such as `par` or `dense_crf`; `none` for no refiner.
            scales: Image scales, such as `[1.0, 0.5]`.
            flip: Whether the network also sees the flipped image.
            crf: Whether a dense CRF finishes the mask.
            tile_px: Side of the tiles that larger images are cut into, in pixels.

        Raises:
            RecipeError: If a value is out of range or there is no such refiner.
        """
        chosen = {
            "predict.background": background,
            "predict.background_rule": None if background is None else "fixed",
            "predict.class_threshold": class_threshold,
            "predict.scales": scales,
            "predict.flip": flip,
            "predict.crf": crf,
            "predict.tile_px": tile_px,
            "refiner.name": refiner,
            "predict.refine": None if refiner is None else refiner.lower() != "none",
        }
        texts = override_texts({key: value for key, value in chosen.items() if value is not None})
        recipe = apply_overrides(self.recipe.plain(), texts, "recipe")
        return Segmenter(self.method, recipe, self.device, origin=self.origin)

    def tagged_images(self, folder: Path) -> Source:
        """Open the images and tags of a folder, in any layout that `train` reads.

        Raises:
            DataError: If its images and tags contradict each other.
        """
        return open_source(self.recipe, folder, None, {})[0]

    def segment(
        self,
        image: Image,
        tags: npt.NDArray[np.uint8] | None = None,
        *,
        keep_cam: bool = False,
        name: str = "",
    ) -> Prediction:
        """Segment one decoded image.

        Args:
            image: (H, W, 3) uint8 RGB.
            tags: (F,) in {0, 1}; None lets the classifier select the classes.
            keep_cam: Keep the CAM that the mask was made from.
            name: Name of the image, for methods that draw random numbers while labeling.
        """
        if needs_tiles(image.shape, self.config):
            return segment_large(self, image, tags, keep_cam=keep_cam, name=name)
        output = self.infer(image, tags, keep_cam=keep_cam, name=name)
        return self.build_prediction(output, *self.postprocess(output))

    def infer(
        self,
        image: Image,
        tags: npt.NDArray[np.uint8] | None = None,
        *,
        keep_cam: bool = False,
        name: str = "",
    ) -> InferenceOutput:
        """Do the steps of `segment` that need the network."""
        output = self.run_network(image, tags, name)
        return self._infer(output, ImageInput(image, tags, name), keep_cam)

    def infer_together(self, inputs: Sequence[ImageInput]) -> list[InferenceOutput]:
        """Do what `infer` does for images of one `working_size`, all with tags or all without."""
        images = [image_tensor(one.image).to(self.device) for one in inputs]
        rows = [row for one in inputs if (row := self._row(one.tags)) is not None]
        tags = torch.cat(rows) if rows else None
        with self._precision():
            outputs = predict_together(self.method, images, self.config, tags)
        return [self._infer(output, one) for output, one in zip(outputs, inputs, strict=True)]

    @property
    def batch_size(self) -> int:
        """Largest number of images that share a forward pass."""
        return images_per_pass(self.method, self.config, self.device.type)

    def working_size(self, image: Image) -> tuple[int, int] | None:
        """Return the (h, w) at which the network sees an image; None if it sees tiles."""
        has_tiles = needs_tiles(image.shape, self.config)
        return None if has_tiles else self.protocol.working_size(image.shape[:2], self.config)

    def _infer(
        self, output: NetworkOutput, one: ImageInput, keep_cam: bool = False
    ) -> InferenceOutput:
        """Select the classes of an image and their maps."""
        image, tags, name = one
        class_source: ClassSource = "classifier" if tags is None else "tags"
        class_indices = self.select_classes(output, tags, class_source)
        cam = _selected_cam(output.cam, class_indices) if keep_cam else None
        selected = self._select_maps(output, class_indices)
        are_chosen = tags is not None or self.protocol.selects_by_classifier
        parts = network_parts(output, class_indices, selected.background, are_chosen=are_chosen)
        scores = self._named(output.probs)
        return InferenceOutput(image, selected, scores, class_source, cam, parts, name)

    def postprocess(self, output: InferenceOutput) -> tuple[Mask, dict[str, float]]:
        """Do the other steps of `segment`: refine and threshold.

        Returns:
            The (H, W) mask, and the parts of its uncertainty that need the refined maps.
        """
        image = image_tensor(output.image).to(self.device)
        made, parts = postprocess_with_parts(self.postprocessor, image, output.selected)
        return made.mask.cpu().numpy(), parts

    def thresholded_maps(self, output: InferenceOutput) -> npt.NDArray[np.float32] | None:
        """Return the maps that a background score separates from background, without refiner.

        Returns:
            (F, H, W) in [0, 1] at the image's size, 0 for classes that are not selected; None if
            the maps have a background of their own.
        """
        selected = output.selected
        if selected.kind != "cam":
            return None
        height, width = output.image.shape[:2]
        maps = np.zeros((len(self.class_names), height, width), dtype=np.float32)
        if selected.class_indices:
            resized = upsample(selected.maps.float(), (height, width))
            maps[list(selected.class_indices)] = resized[0].cpu().numpy()
        return maps

    def build_prediction(
        self, output: InferenceOutput, mask: Mask, parts: Mapping[str, float]
    ) -> Prediction:
        """Combine what the network computed with the mask and the other parts of uncertainty."""
        return Prediction(
            mask=mask,
            class_names=self.class_names,
            scores=output.scores,
            class_source=output.class_source,
            image=output.image,
            cam=output.cam,
            name=output.name,
            uncertainty=combine_parts({**output.parts, **parts}),
        )

    def class_scores(self, image: Image) -> dict[str, float]:
        """Class probabilities of one (H, W, 3) image, without a mask: one pass at scale 1."""
        with self._precision():
            probs = class_probs(self.method, image_tensor(image).to(self.device), self.config)
        return self._named(probs)

    def run_network(
        self, image: Image, tags: npt.NDArray[np.uint8] | None = None, name: str = ""
    ) -> NetworkOutput:
        """Run the network on one (H, W, 3) image over scales and flips."""
        with self._precision():
            tensor = image_tensor(image).to(self.device)
            return predict_multi_scale(self.method, tensor, self.config, self._row(tags), name)

    def select_classes(
        self,
        output: NetworkOutput,
        tags: npt.NDArray[np.uint8] | None,
        class_source: ClassSource,
    ) -> tuple[int, ...]:
        """Select the classes of a mask; see `multi_scale.select_classes`."""
        return select_classes(
            output.probs, self._row(tags), self.config, self.protocol, class_source
        )

    def compute_mask(
        self, image: Image, output: NetworkOutput, class_indices: Sequence[int]
    ) -> MaskOutput:
        """Make the mask of one (H, W, 3) image for the given classes."""
        selected = self._select_maps(output, class_indices)
        return self.postprocessor(image_tensor(image).to(self.device), selected)

    def with_dataset(self, source: Source) -> Segmenter:
        """Return a segmenter whose method has access to the other images of `source`.

        The network is shared. Methods that need no other images ignore them.
        """
        other = copy.copy(self)
        other.method = self.method.with_dataset(_SourceView(source))
        return other

    def settings(self, class_source: ClassSource) -> dict[str, Any]:
        """All the settings that produce a mask, as plain values for JSON."""
        return describe_settings(
            self.method,
            self.recipe,
            self.postprocessor,
            self.protocol,
            class_source=class_source,
            origin=self.origin,
            device_type=self.device.type,
        )

    def _select_maps(self, output: NetworkOutput, class_indices: Sequence[int]) -> SelectedMaps:
        background = image_background(output.cam[:, list(class_indices)], self.config)
        return select_maps(output, class_indices, background)

    def _row(self, tags: npt.NDArray[np.uint8] | None) -> Tensor | None:
        return None if tags is None else torch.from_numpy(tags).float()[None].to(self.device)

    def _named(self, probs: Tensor) -> dict[str, float]:
        return dict(zip(self.class_names, probs[0].tolist(), strict=True))

    def _precision(self) -> AbstractContextManager[object]:
        """Return the context in which the network computes in the precision of the recipe."""
        return label_autocast(self.config.precision, self.device.type)


load = Segmenter.load


class _SourceView:
    """The images of a data source as a `DatasetView`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.names: Sequence[str] = source.names
        self.tags = source.tags

    def image(self, index: int) -> Tensor:
        """(3, H, W) uint8; see `DatasetView`."""
        return image_tensor(self._source[index].image)[0]


def image_tensor(image: Image) -> Tensor:
    """(H, W, 3) array -> (1, 3, H, W) uint8 tensor; of a large image a view, not a copy."""
    if is_large(image.shape) and image.flags.writeable:
        return torch.from_numpy(image).permute(2, 0, 1)[None]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _selected_cam(cam: Tensor, class_indices: Sequence[int]) -> npt.NDArray[np.float32]:
    """(F, h, w) CAM with the classes that are not selected set to 0."""
    kept = torch.zeros_like(cam[0])
    kept[list(class_indices)] = cam[0, list(class_indices)]
    array: npt.NDArray[np.float32] = kept.cpu().numpy()
    return array
