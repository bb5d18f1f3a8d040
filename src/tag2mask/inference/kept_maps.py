"""Keep what the network computed for an image, and make its mask again with other settings.

Thresholds and refiners need no network, so an application can try many of them in little time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tag2mask.inference.postprocessing import image_background, select_maps
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.inference.uncertainty import combine_parts, network_parts, postprocess_with_parts
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.types import ClassSource, Image, Mask


class KeptMaps(NamedTuple):
    """A decoded image and what the network computed for it."""

    image: Image
    output: NetworkOutput

    @property
    def nbytes(self) -> int:
        """Memory that they hold, in bytes; a propagation of the method's own does not count."""
        output = self.output
        tensors = [output.cam, output.probs, output.affinity, output.logits, *output.views]
        return self.image.nbytes + sum(one.nbytes for one in tensors if one is not None)


class RemadeMask(NamedTuple):
    """The mask of one image and how it was made."""

    mask: Mask
    scores: dict[str, float]
    """Class probabilities by name."""
    selected: tuple[str, ...]
    """Classes that the mask may contain."""
    class_source: ClassSource
    uncertainty: float
    """In [0, 1]; see `inference.uncertainty`."""
    uses_background: bool
    """Whether the background score changes the mask; it does not with a decoder."""
    uses_class_threshold: bool
    """Whether the class threshold changes the mask; only the classifier reads it."""


def keep_maps(
    segmenter: Segmenter, image: Image, tags: npt.NDArray[np.uint8] | None = None, name: str = ""
) -> KeptMaps:
    """Run the network on one (H, W, 3) image.

    Args:
        segmenter: Has the network.
        image: The image.
        tags: (F,) in {0, 1}, for methods that read tags while labeling; others ignore them.
        name: Name of the image, for methods that draw random numbers while labeling.
    """
    return KeptMaps(image, segmenter.run_network(image, tags, name))


@torch.no_grad()
def remake_mask(
    segmenter: Segmenter, maps: KeptMaps, tags: npt.NDArray[np.uint8] | None
) -> RemadeMask:
    """Select, refine and threshold kept maps; the result equals that of `Segmenter.segment`.

    Args:
        segmenter: Has the settings, see `Segmenter.with_settings`, and the network of the maps.
        maps: From `keep_maps`.
        tags: (F,) in {0, 1}; None lets the classifier select the classes.
    """
    output = maps.output
    class_source: ClassSource = "classifier" if tags is None else "tags"
    indices = segmenter.select_classes(output, tags, class_source)
    background = image_background(output.cam[:, list(indices)], segmenter.config)
    selected = select_maps(output, indices, background)
    selects = segmenter.protocol.selects_by_classifier
    parts = network_parts(output, indices, background, are_chosen=tags is not None or selects)
    image = image_tensor(maps.image).to(segmenter.device)
    made, more = postprocess_with_parts(segmenter.postprocessor, image, selected)
    probs = output.probs[0].tolist()
    return RemadeMask(
        mask=made.mask.cpu().numpy(),
        scores=dict(zip(segmenter.class_names, probs, strict=True)),
        selected=tuple(segmenter.class_names[index] for index in indices),
        class_source=class_source,
        uncertainty=combine_parts({**parts, **more}).total,
        uses_background=output.logits is None,
        uses_class_threshold=tags is None and selects,
    )
