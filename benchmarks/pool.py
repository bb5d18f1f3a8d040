"""Dense CRF of 20 images in two processes against one, 500 x 375 px, 21 classes.

The masks are the same, or no time is told. Starting the processes, which takes seconds once, is
timed apart.

Run: python benchmarks/pool.py [--workers 2] [--images 20] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from row import Row, by_turns, save, show
from tag2mask.config.schema import PredictConfig
from tag2mask.functional.cam import upsample
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import InferenceOutput, Segmenter
from tag2mask.inference.workers import MaskWorkers
from tag2mask.refiners.dense_crf import DenseCRF, DenseCRFConfig
from tag2mask.types import Mask

SIZE = (375, 500)
NUM_CLASSES = 21


class Decided(Segmenter):
    """A segmenter without network: scores are at hand, the CRF is all there is to do."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.postprocessor = PostProcessor(PredictConfig(), None, DenseCRF(DenseCRFConfig()))


def images(count: int) -> list[InferenceOutput]:
    """Colored areas under mild noise, each with smooth scores of all classes."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        areas = upsample(255 * torch.rand(1, 3, 6, 8, generator=generator), SIZE)
        noise = 4 * torch.randn(1, 3, *SIZE, generator=generator)
        image = (areas + noise).clamp(0, 255).byte()[0].permute(1, 2, 0).numpy()
        logits = 6 * torch.randn(1, NUM_CLASSES, 12, 16, generator=generator)
        selected_maps = SelectedMaps(
            tuple(range(NUM_CLASSES - 1)), upsample(logits, (94, 125)), "logit", SIZE
        )
        found.append(
            InferenceOutput(np.ascontiguousarray(image), selected_maps, {}, "classifier", None)
        )
    return found


def cut_over_there(pool: MaskWorkers, some: list[InferenceOutput]) -> list[Mask | str]:
    """Masks in order, from the workers."""
    handed = [pool.submit(one) for one in some]
    return [one.result() for one in handed]


def comparisons(workers: int, count: int, repeats: int) -> tuple[list[Row], float]:
    """Compare masks, then times; also the seconds until the workers are ready."""
    segmenter, some = Decided(), images(count)
    expected = [segmenter.cut(one) for one in some]
    began = time.perf_counter()
    with MaskWorkers(segmenter, workers) as pool:
        cut_over_there(pool, some[:workers])
        ready_s = time.perf_counter() - began
        if not all(map(np.array_equal, expected, cut_over_there(pool, some))):
            raise SystemExit("the masks differ: times mean nothing")
        spent = by_turns(
            {
                "one": lambda: [segmenter.cut(one) for one in some],
                "several": lambda: cut_over_there(pool, some),
            },
            repeats,
        )
    what = f"CRF of {count} images, {workers} processes"
    most = round(1 / 1.7, 3) if workers == 2 else None
    return [Row(what, spent["several"], "one process", spent["one"], most=most)], ready_s


def main() -> None:
    """Print the row and write it as JSON."""
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
