"""The trained network as a user holds it: images in, masks out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage
from torch import Tensor

from tag2mask import plugins
from tag2mask.checkpoint import check_state, read_weights, stage_folder, versions
from tag2mask.config.recipe import Recipe, parse_recipe
from tag2mask.config.schema import MethodConfig, PredictConfig
from tag2mask.data.base import Source
from tag2mask.errors import DataError, RunError, WeightsError, did_you_mean
from tag2mask.inference.multi_scale import (
    NetworkOutput,
    class_probs,
    predict_multi_scale,
    resolve_inference_config,
    select_classes,
)
from tag2mask.inference.postprocessing import (
    MaskOutput,
    PostProcessor,
    SelectedMaps,
    confident_thresholds,
    select_maps,
)
from tag2mask.io.images import read_image, rgb_from_pil
from tag2mask.methods.base import Method, build_method, build_refiner, evaluating
from tag2mask.refiners.base import Refiner
from tag2mask.types import ClassSource, Image, Mask, Prediction

Which = Literal["best", "last"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class InferenceOutput(NamedTuple):
    """What a network has said about one image; the mask is still to be cut."""

    image: Image
    selected_maps: SelectedMaps
    scores: dict[str, float]
    """Class probabilities."""
    class_source: ClassSource
    compute_cam: npt.NDArray[np.float32] | None
    """(F, h, w), if it was asked for."""


class Segmenter:
    """Turns images into masks with one trained method.

    Example:
        >>> segmenter = Segmenter.load("runs/pets")  # doctest: +SKIP
        >>> segmenter.predict("image.jpg").classes  # doctest: +SKIP
        ('cat',)
    """

    def __init__(
        self,
        method: Method,
        recipe: Recipe,
        device: str | torch.device = "cpu",
        *,
        bf16: bool = False,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        """Hold a method; it may be in training, its mode is put back after every image.

        Args:
            method: Carries its weights.
            recipe: Class names, test-time settings and refiner.
            device: Where the images are looked at.
            bf16: Run the network in bfloat16; evidence and refiner stay in float32.
            origin: Where the weights come from, kept with the masks (`run`, `weights`, `sha256`).
        """
        self.device = torch.device(device)
        self.method = method.to(self.device)
        self.recipe = recipe
        self.bf16 = bf16
        self.origin = dict(origin or {})
        self.class_names = recipe.data.classes
        self.plan = resolve_inference_config(recipe.predict, method)
        """Test-time settings with everything that the recipe leaves to the protocol."""
        refiner = build_refiner(recipe) if self.plan.refine else None
        crf = final_crf() if self.plan.crf else None
        refiner, crf = (one.to(self.device) if one else None for one in (refiner, crf))
        self.postprocessor = PostProcessor(self.plan, refiner, crf)

    @classmethod
    def load(
        cls,
        run: str | Path,
        which: Which = "best",
        *,
        device: str | torch.device = "cpu",
        bf16: bool = False,
        predict: PredictConfig | None = None,
        method: MethodConfig | None = None,
    ) -> Segmenter:
        """Load a run folder or a hub model.

        Args:
            run: A folder that `tag2mask train` wrote, or a hub id such as `org/name`; of several
                stages the last that was trained.
            which: Weights to use; `best` falls back to `last` where no best were kept.
            device: See the constructor.
            bf16: See the constructor.
            predict: Test-time settings in place of the run's own.
            method: Another method with the same parameters, which then labels with the run's
                weights: `advcam` and `rib` take those of `cam`.

        Raises:
            RunError: If the folder holds no weights.
            WeightsError: If the weights cannot be read, fetched or fitted.
        """
        path = weights_path(stage_folder(_run_folder(run), "train"), which)
        state, recipe = read_weights(path)
        reader = ""
        if method is not None and method.name != recipe.method.name:
            reader = f" (of method '{recipe.method.name}') read by method '{method.name}'"
        if method is not None:
            recipe = _with_method(recipe, method)
        if predict is not None:
            recipe = recipe.model_copy(update={"predict": predict})
        network = build_method(recipe.blank())  # all weights are in the run
        check_state(network.state_dict(), state, f"{path}{reader}")
        network.load_state_dict(state)
        origin = {"run": str(run), "weights": path.stem, "sha256": weights_fingerprint(path)}
        return cls(network, recipe, device, bf16=bf16, origin=origin)

    def predict(
        self, image: Image | PILImage.Image | str | Path, *, keep_cam: bool = False
    ) -> Prediction:
        """Segment an image; the classifier chooses the classes (class source `classifier`)."""
        return self.segment(_decode_image(image), keep_cam=keep_cam)

    def label(
        self,
        image: Image | PILImage.Image | str | Path,
        tags: Sequence[str],
        *,
        keep_cam: bool = False,
    ) -> Prediction:
        """Segment an image whose tags are known (class source `tags`).

        Raises:
            DataError: If a tag is none of the class names.
        """
        return self.segment(_decode_image(image), self._tag_row(tags), keep_cam=keep_cam)

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
            tags: (F,) in {0, 1} for the class source `tags`; None lets the classifier choose.
            keep_cam: Keep the evidence that the mask was cut from.
            name: Of the image, for methods that draw numbers while labeling.
        """
        inference_output = self.infer(image, tags, keep_cam=keep_cam, name=name)
        return self.present(inference_output, self.cut(inference_output))

    def infer(
        self,
        image: Image,
        tags: npt.NDArray[np.uint8] | None = None,
        *,
        keep_cam: bool = False,
        name: str = "",
    ) -> InferenceOutput:
        """Do all of `segment` that needs the network."""
        class_source: ClassSource = "classifier" if tags is None else "tags"
        output = self.run_network(image, tags, name)
        class_indices = self.select_classes(output, tags, class_source)
        compute_cam = _selected_cam(output.cam, class_indices) if keep_cam else None
        selected_maps = select_maps(output, class_indices, self.plan.background_score)
        return InferenceOutput(
            image, selected_maps, self._named(output.probs), class_source, compute_cam
        )

    def cut(self, inference_output: InferenceOutput) -> Mask:
        """Do the rest of `segment`: the (H, W) mask."""
        image = image_tensor(inference_output.image).to(self.device)
        mask: Mask = self.postprocessor(image, inference_output.selected_maps).mask.cpu().numpy()
        return mask

    def present(self, inference_output: InferenceOutput, mask: Mask) -> Prediction:
        """Put an examined image and its mask together."""
        return Prediction(
            mask=mask,
            class_names=self.class_names,
            scores=inference_output.scores,
            class_source=inference_output.class_source,
            image=inference_output.image,
            compute_cam=inference_output.compute_cam,
        )

    def class_scores(self, image: Image) -> dict[str, float]:
        """Class probabilities of one (H, W, 3) image, without any mask: one pass at scale 1."""
        with self._looking():
            rgb = image_tensor(image).to(self.device)
            probs = class_probs(self.method, rgb, self.plan)
        return self._named(probs)

    def run_network(
        self, image: Image, tags: npt.NDArray[np.uint8] | None = None, name: str = ""
    ) -> NetworkOutput:
        """Collect what the network sees in one (H, W, 3) image over scales and mirror images."""
        with self._looking():
            rgb = image_tensor(image).to(self.device)
            return predict_multi_scale(self.method, rgb, self.plan, self._row(tags), name)

    @contextmanager
    def with_dataset(self, source: Source) -> Iterator[None]:
        """Let the method see the other images of `source` while it labels one of them."""
        self.method.set_dataset(_SourceView(source))
        try:
            yield
        finally:
            self.method.set_dataset(None)

    def select_classes(
        self, output: NetworkOutput, tags: npt.NDArray[np.uint8] | None, class_source: ClassSource
    ) -> tuple[int, ...]:
        """Choose the classes of a mask; see `select_classes`."""
        return select_classes(output.probs, self._row(tags), self.plan, class_source)

    def compute_mask(
        self, image: Image, output: NetworkOutput, class_indices: Sequence[int]
    ) -> MaskOutput:
        """Cut the mask of one (H, W, 3) image from what was seen of it; see `postprocess`."""
        selected_maps = select_maps(output, class_indices, self.plan.background_score)
        return self.postprocessor(image_tensor(image).to(self.device), selected_maps)

    def settings(self, class_source: ClassSource) -> dict[str, Any]:
        """Everything that decides how a mask comes out, as plain values for JSON."""
        predict = self.plan
        refiner, crf = (None if one is None else one.config for one in self.postprocessor[1:])
        chosen = class_source == "classifier" and predict.protocol != "afa"
        return {
            **self.origin,
            **versions(),
            "method": self.recipe.method.name,
            **self._labeling_settings(),
            "class_source": class_source,
            "protocol": predict.protocol,
            "scales": list(predict.scales or ()),
            "flip": predict.flip,
            "long_side_px": predict.long_side_px,
            "max_side_px": predict.max_side_px,
            "background": predict.background_score,
            "class_threshold": predict.class_threshold if chosen else None,
            "fallback": predict.fallback if chosen else None,
            "propagate": predict.propagate,
            **_confident_settings(predict),
            "refiner": refiner.model_dump(mode="json") if refiner is not None else None,
            "crf": crf.model_dump(mode="json") if crf is not None else None,
            "precision": "bf16" if self.bf16 else "fp32",
        }

    def _labeling_settings(self) -> dict[str, Any]:
        """Settings of a method that works while labeling; of others they tell how it learned."""
        if type(self.method).compute_multi_scale_cam is Method.compute_multi_scale_cam:
            return {}
        return {"labeling": self.recipe.method.model_dump(mode="json", exclude={"name"})}

    def _tag_row(self, tags: Sequence[str]) -> npt.NDArray[np.uint8]:
        row = np.zeros(len(self.class_names), dtype=np.uint8)
        for tag in tags:
            if tag not in self.class_names:
                hint = did_you_mean(tag, self.class_names)
                known = ", ".join(self.class_names)
                raise DataError(f"unknown tag '{tag}'.{hint} This model knows: {known}")
            row[self.class_names.index(tag)] = 1
        return row

    def _row(self, tags: npt.NDArray[np.uint8] | None) -> Tensor | None:
        return None if tags is None else torch.from_numpy(tags).float()[None].to(self.device)

    def _named(self, probs: Tensor) -> dict[str, float]:
        return dict(zip(self.class_names, probs[0].tolist(), strict=True))

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Evaluation mode and, where asked for, bfloat16."""
        half = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with evaluating(self.method), half:
            yield


load = Segmenter.load


class _SourceView:
    """The images of a data source as methods see them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.names: Sequence[str] = source.names
        self.tags = source.tags

    def image(self, index: int) -> Tensor:
        """(3, H, W) uint8; see `DatasetView`."""
        return image_tensor(self._source[index].image)[0]


def image_tensor(image: Image) -> Tensor:
    """(H, W, 3) array -> (1, 3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def final_crf() -> Refiner:
    """A dense CRF with the settings that end both published protocols, its defaults."""
    kind = plugins.load("refiners", "dense_crf")
    crf: Refiner = kind(kind.Config())
    return crf


def _decode_image(image: Image | PILImage.Image | str | Path) -> Image:
    """Decode what a user may hand in to an (H, W, 3) uint8 RGB image."""
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, PILImage.Image):
        return rgb_from_pil(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"an image is an (H, W, 3) uint8 RGB array, got {image.shape} of {image.dtype}"
        )
    return image


def _with_method(recipe: Recipe, method: MethodConfig) -> Recipe:
    """Put another method into a recipe; it is read anew, as its type names the method's Config."""
    raw = recipe.plain() | {"method": method.model_dump(mode="json")}
    return parse_recipe(raw, f"method '{method.name}'")


def _confident_settings(predict: PredictConfig) -> dict[str, Any]:
    """How sure pixels are told apart, where only they are written."""
    if predict.confident is None:
        return {}
    return {"confident": predict.confident, "confident_cuts": list(confident_thresholds(predict))}


def _selected_cam(cam: Tensor, class_indices: Sequence[int]) -> npt.NDArray[np.float32]:
    """(F, h, w) evidence with the classes that are not in `class_indices` set to 0."""
    kept = torch.zeros_like(cam[0])
    kept[list(class_indices)] = cam[0, list(class_indices)]
    compute_cam: npt.NDArray[np.float32] = kept.cpu().numpy()
    return compute_cam


def _run_folder(run: str | Path) -> Path:
    """Find a run on this disk, or fetch it from the hub."""
    folder = Path(run)
    if folder.exists():
        return folder
    if isinstance(run, Path) or not _HUB_ID.fullmatch(run):
        raise RunError(f"{run}: no such run folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        patterns = ["recipe.yaml", "weights/*.safetensors"]
        return Path(snapshot_download(run, allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{run}: no such run folder, and not to be had from the hub ({reason})"
        ) from error


def weights_path(folder: Path, which: Which) -> Path:
    """Find the weights of a run folder; `last` where no best were kept.

    Raises:
        RunError: If there are none.
    """
    for name in (which, "last"):
        path = folder / "weights" / f"{name}.safetensors"
        if path.is_file():
            return path
    raise RunError(
        f"{folder}: holds no weights/{which}.safetensors; give a folder that 'tag2mask train' wrote"
    )


def weights_fingerprint(path: Path) -> str:
    """Tell one weights file from any other: SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
