"""Time the dense CRF of 20 images in two processes against one, 500 x 375 px, 21 classes.

Times are reported only if the masks are identical. The start of the processes, which takes seconds
once, is timed separately.

Run: python benchmarks/pool.py [--workers 2] [--images 20] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from row import Row, save, shortest_times, show
from tag2mask.config.schema import PredictConfig
from tag2mask.errors import DataError, RunError
from tag2mask.functional.cam import upsample
from tag2mask.inference.batches import ImageInput
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import InferenceOutput, Segmenter
from tag2mask.inference.workers import MaskWorkers
from tag2mask.refiners.dense_crf import DenseCRF, DenseCRFConfig
from tag2mask.types import Image, Mask

SIZE = (375, 500)
NUM_CLASSES = 21


class CRFOnly(Segmenter):
    """A segmenter without a network; only the CRF of given logits is left to do."""

    def __init__(self, outputs: Sequence[InferenceOutput]) -> None:
        self.device = torch.device("cpu")
        self.class_names = tuple(str(index) for index in range(1, NUM_CLASSES))
        self.outputs = outputs
        self.config = PredictConfig()
        self.postprocessor = PostProcessor(self.config, None, DenseCRF(DenseCRFConfig()))

    def infer(
        self, image: Image, tags: Any = None, *, keep_cam: bool = False, name: str = ""
    ) -> InferenceOutput:
        """Return the output of an image, which its name counts."""
        return self.outputs[int(name)]


def make_outputs(count: int) -> list[InferenceOutput]:
    """Make images of colored areas with mild noise, each with smooth logits of all classes."""
    generator = torch.Generator().manual_seed(0)
    outputs = []
    for _ in range(count):
        areas = upsample(255 * torch.rand(1, 3, 6, 8, generator=generator), SIZE)
        noise = 4 * torch.randn(1, 3, *SIZE, generator=generator)
        image = (areas + noise).clamp(0, 255).byte()[0].permute(1, 2, 0).numpy()
        logits = 6 * torch.randn(1, NUM_CLASSES, 12, 16, generator=generator)
        classes = tuple(range(NUM_CLASSES - 1))
        selected = SelectedMaps(classes, upsample(logits, (94, 125)), "logits", SIZE, background=0)
        outputs.append(
            InferenceOutput(np.ascontiguousarray(image), selected, {}, "classifier", None)
        )
    return outputs


def masks_from_workers(pool: MaskWorkers, outputs: Sequence[InferenceOutput]) -> list[Mask]:
    """Make masks in the workers; they come back in order."""
    submitted = [
        pool.submit([ImageInput(output.image, None, str(index))])
        for index, output in enumerate(outputs)
    ]
    masks = []
    for finishes in submitted:
        made = finishes[0]()
        if isinstance(made, DataError):
            raise made
        masks.append(made.mask)
    return masks


def comparisons(workers: int, count: int, repeats: int) -> tuple[list[Row], float]:
    """Compare masks, then times; also return the seconds until the workers are ready."""
    outputs = make_outputs(count)
    segmenter = CRFOnly(outputs)
    expected = [segmenter.postprocess(output)[0] for output in outputs]
    start = time.perf_counter()
    with MaskWorkers(segmenter, workers) as pool:
        masks_from_workers(pool, outputs[:workers])
        ready_s = time.perf_counter() - start
        if not all(map(np.array_equal, expected, masks_from_workers(pool, outputs))):
            raise RunError("the masks differ; their times cannot be compared")
        times = shortest_times(
            {
                "one": lambda: [segmenter.postprocess(output) for output in outputs],
                "several": lambda: masks_from_workers(pool, outputs),
            },
            repeats,
        )
    case = f"CRF of {count} images, {workers} processes"
    goal = round(1 / 1.7, 3) if workers == 2 else None
    return [Row(case, times["several"], "one process", times["one"], max_ratio=goal)], ready_s


def main() -> None:
    """Print the comparison and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, ready_s = comparisons(args.workers, args.images, args.repeats)
    show(rows)
    print(f"workers ready after {ready_s:.1f} s")
    save(args.json, rows, ready_s=ready_s)


if __name__ == "__main__":
    main()
