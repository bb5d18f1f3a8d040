"""The trained network as a user holds it: photos in, masks out."""

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
from tag2mask.data.base import Source
from tag2mask.data.photo import photo_of, read_photo
from tag2mask.errors import DataError, RunError, WeightsError, did_you_mean
from tag2mask.methods.base import Method, build_method, build_refiner, evaluating
from tag2mask.prediction.decision import Cutter, Decision, Draft, drafted, sure_cuts
from tag2mask.prediction.test_time import Look, choose_classes, class_probability, collect, settled
from tag2mask.recipe import MethodConfig, PredictConfig, Recipe, parse_recipe
from tag2mask.refiners.base import Refiner
from tag2mask.types import Gate, Image, Mask, Prediction

Which = Literal["best", "last"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Examined(NamedTuple):
    """What a network has said about one photo; the mask is still to be cut."""

    image: Image
    draft: Draft
    scores: dict[str, float]
    """Class probabilities."""
    gate: Gate
    evidence: npt.NDArray[np.float32] | None
    """(F, h, w), if it was asked for."""


class Segmenter:
    """Turns photos into masks with one trained method.

    Example:
        >>> segmenter = Segmenter.load("runs/pets")  # doctest: +SKIP
        >>> segmenter.predict("photo.jpg").classes  # doctest: +SKIP
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
        """Hold a method; it may be in training, its mode is put back after every photo.

        Args:
            method: Carries its weights.
            recipe: Class names, test-time settings and refiner.
            device: Where the photos are looked at.
            bf16: Run the network in bfloat16; evidence and refiner stay in float32.
            origin: Where the weights come from, kept with the masks (`run`, `weights`, `sha256`).
        """
        self.device = torch.device(device)
        self.method = method.to(self.device)
        self.recipe = recipe
        self.bf16 = bf16
        self.origin = dict(origin or {})
        self.class_names = recipe.data.classes
        self.plan = settled(recipe.predict, method)
        """Test-time settings with everything that the recipe leaves to the protocol."""
        refiner = build_refiner(recipe) if self.plan.refine else None
        crf = final_crf() if self.plan.crf else None
        refiner, crf = (one.to(self.device) if one else None for one in (refiner, crf))
        self.cutter = Cutter(self.plan, refiner, crf)

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
        self, image: Image | PILImage.Image | str | Path, *, keep_evidence: bool = False
    ) -> Prediction:
        """Segment a photo; the classifier chooses the classes (gate `predicted`)."""
        return self.segment(_photo_of(image), keep_evidence=keep_evidence)

    def label(
        self,
        image: Image | PILImage.Image | str | Path,
        tags: Sequence[str],
        *,
        keep_evidence: bool = False,
    ) -> Prediction:
        """Segment a photo whose tags are known (gate `oracle`).

        Raises:
            DataError: If a tag is none of the class names.
        """
        return self.segment(_photo_of(image), self._tag_row(tags), keep_evidence=keep_evidence)

    def segment(
        self,
        image: Image,
        tags: npt.NDArray[np.uint8] | None = None,
        *,
        keep_evidence: bool = False,
        name: str = "",
    ) -> Prediction:
        """Segment one decoded photo.

        Args:
            image: (H, W, 3) uint8 RGB.
            tags: (F,) in {0, 1} for the gate `oracle`; None lets the classifier choose.
            keep_evidence: Keep the evidence that the mask was cut from.
            name: Of the photo, for methods that draw numbers while labelling.
        """
        examined = self.examine(image, tags, keep_evidence=keep_evidence, name=name)
        return self.present(examined, self.cut(examined))

    def examine(
        self,
        image: Image,
        tags: npt.NDArray[np.uint8] | None = None,
        *,
        keep_evidence: bool = False,
        name: str = "",
    ) -> Examined:
        """Do all of `segment` that needs the network."""
        gate: Gate = "predicted" if tags is None else "oracle"
        seen = self.look(image, tags, name)
        keys = self.choose(seen, tags, gate)
        evidence = _gated(seen.cam, keys) if keep_evidence else None
        draft = drafted(seen, keys, self.plan.background_score)
        return Examined(image, draft, self._named(seen.prob), gate, evidence)

    def cut(self, examined: Examined) -> Mask:
        """Do the rest of `segment`: the (H, W) mask."""
        photo = photo_tensor(examined.image).to(self.device)
        mask: Mask = self.cutter(photo, examined.draft).mask.cpu().numpy()
        return mask

    def present(self, examined: Examined, mask: Mask) -> Prediction:
        """Put an examined photo and its mask together."""
        return Prediction(
            mask=mask,
            class_names=self.class_names,
            scores=examined.scores,
            gate=examined.gate,
            image=examined.image,
            evidence=examined.evidence,
        )

    def class_scores(self, image: Image) -> dict[str, float]:
        """Class probabilities of one (H, W, 3) photo, without any mask: one pass at scale 1."""
        with self._looking():
            photo = photo_tensor(image).to(self.device)
            prob = class_probability(self.method, photo, self.plan)
        return self._named(prob)

    def look(self, image: Image, tags: npt.NDArray[np.uint8] | None = None, name: str = "") -> Look:
        """Collect what the network sees in one (H, W, 3) photo over scales and mirror images."""
        with self._looking():
            photo = photo_tensor(image).to(self.device)
            return collect(self.method, photo, self.plan, self._row(tags), name)

    @contextmanager
    def among(self, source: Source) -> Iterator[None]:
        """Let the method see the other photos of `source` while it labels one of them."""
        self.method.accompany(_Company(source))
        try:
            yield
        finally:
            self.method.accompany(None)

    def choose(self, seen: Look, tags: npt.NDArray[np.uint8] | None, gate: Gate) -> tuple[int, ...]:
        """Choose the classes of a mask; see `choose_classes`."""
        return choose_classes(seen.prob, self._row(tags), self.plan, gate)

    def settle(self, image: Image, seen: Look, keys: Sequence[int]) -> Decision:
        """Cut the mask of one (H, W, 3) photo from what was seen of it; see `decide`."""
        draft = drafted(seen, keys, self.plan.background_score)
        return self.cutter(photo_tensor(image).to(self.device), draft)

    def settings(self, gate: Gate) -> dict[str, Any]:
        """Everything that decides how a mask comes out, as plain values for JSON."""
        predict = self.plan
        refiner, crf = (None if one is None else one.config for one in self.cutter[1:])
        chosen = gate == "predicted" and predict.protocol != "afa"
        return {
            **self.origin,
            **versions(),
            "method": self.recipe.method.name,
            **self._labelling_settings(),
            "gate": gate,
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

    def _labelling_settings(self) -> dict[str, Any]:
        """Settings of a method that works while labelling; of others they tell how it learned."""
        if type(self.method).look is Method.look:
            return {}
        return {"labelling": self.recipe.method.model_dump(mode="json", exclude={"name"})}

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

    def _named(self, prob: Tensor) -> dict[str, float]:
        return dict(zip(self.class_names, prob[0].tolist(), strict=True))

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Evaluation mode and, where asked for, bfloat16."""
        half = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with evaluating(self.method), half:
            yield


load = Segmenter.load


class _Company:
    """The photos of a data source as methods see them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.names: Sequence[str] = source.names
        self.tags = source.tags

    def photo(self, index: int) -> Tensor:
        """(3, H, W) uint8; see `TaggedPhotos`."""
        return photo_tensor(self._source[index].image)[0]


def photo_tensor(image: Image) -> Tensor:
    """(H, W, 3) array -> (1, 3, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def final_crf() -> Refiner:
    """A dense CRF with the settings that end both published protocols, its defaults."""
    kind = plugins.load("refiners", "dense_crf")
    crf: Refiner = kind(kind.Config())
    return crf


def _photo_of(image: Image | PILImage.Image | str | Path) -> Image:
    """Decode what a user may hand in to an (H, W, 3) uint8 RGB photo."""
    if isinstance(image, str | Path):
        return read_photo(Path(image))
    if isinstance(image, PILImage.Image):
        return photo_of(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"a photo is an (H, W, 3) uint8 RGB array, got {image.shape} of {image.dtype}"
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
    return {"confident": predict.confident, "confident_cuts": list(sure_cuts(predict))}


def _gated(cam: Tensor, keys: Sequence[int]) -> npt.NDArray[np.float32]:
    """(F, h, w) evidence with the classes that are not in `keys` set to 0."""
    kept = torch.zeros_like(cam[0])
    kept[list(keys)] = cam[0, list(keys)]
    evidence: npt.NDArray[np.float32] = kept.cpu().numpy()
    return evidence


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
