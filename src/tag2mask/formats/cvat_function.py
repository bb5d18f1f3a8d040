"""Automatic annotation from CVAT's command line: masks of a run for the images of a task.

```
cvat-cli task auto-annotate TASK --function-module tag2mask.formats.cvat_function -p run=str:RUN
```
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tag2mask.formats.contours import draw_part, merge_holes, trace_parts
from tag2mask.inference.segmenter import Segmenter, load

if TYPE_CHECKING:
    from PIL import Image as PILImage


class MaskFunction:
    """A detection function as the CVAT SDK calls it; the classifier selects the classes.

    Args:
        segmenter: Makes the masks.

    Source:
        docs.cvat.ai, Auto-annotation API.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    @cached_property
    def spec(self) -> Any:
        """The labels that the task must have: the classes of the run."""
        import cvat_sdk.auto_annotation as annotation

        return annotation.DetectionFunctionSpec(
            labels=[
                annotation.label_spec(name, index, type="any")
                for index, name in enumerate(self._segmenter.class_names)
            ]
        )

    def detect(self, context: Any, image: PILImage.Image) -> Sequence[Any]:
        """Return a mask, or a polygon if CVAT asks for polygons, for each connected part.

        Args:
            context: Of the SDK. Classes of lower probability than its `conf_threshold` are left
                out.
            image: One frame.
        """
        import cvat_sdk.auto_annotation as annotation
        from cvat_sdk.masks import encode_mask

        prediction = self._segmenter.predict(image)
        height, width = prediction.mask.shape
        shapes = []
        for index, name in enumerate(prediction.class_names):
            if prediction.scores[name] < (context.conf_threshold or 0.0):
                continue
            for part in trace_parts(prediction.mask == index + 1):
                if context.conv_mask_to_poly:
                    points = merge_holes(part).ravel().astype(float).tolist()
                    shapes.append(annotation.polygon(index, points))
                else:
                    pixels = encode_mask(draw_part(part, (height, width)))
                    shapes.append(annotation.mask(index, pixels))
        return shapes


def create(run: str) -> MaskFunction:
    """Open a run for CVAT, which calls this function.

    Args:
        run: Run folder, or a hub id such as `org/name`.

    Raises:
        RunError: If it contains no weights.
    """
    return MaskFunction(load(run))
