"""The dense CRF against the package pydensecrf2, in one run.

Both refine the same images of 500 x 375 px on one thread, lattices built each time, and give the
same probabilities before times are told. Where the package is not installed, our own version in
plain torch takes its place. Several processes: benchmarks/pool.py.

Run: python benchmarks/dense_crf.py [--root DIR] [--repeats 5] [--json FILE]

DIR is a data set in VOC layout (or TAG2MASK_VOC_ANIMALS); without one, images are painted.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.nn import functional as F

from row import Row, reject_gap, save, show
from tag2mask.refiners.dense_crf import DenseCRF, DenseCRFConfig, torch_mean_field

SIZE = (375, 500)
CLASSES = 21
FEW = 3
TOLERANCE = 1e-4


def random_image(root: Path | None) -> Tensor:
    """(1, 3, *SIZE) uint8: the first image of the data set, or painted cells under grain."""
    if root is not None:
        name = min(Path(root, "JPEGImages").glob("*.jpg"))
        with PILImage.open(name) as opened:
            sized = opened.convert("RGB").resize(SIZE[::-1], PILImage.Resampling.BILINEAR)
        return torch.from_numpy(np.array(sized)).permute(2, 0, 1)[None].contiguous()
    generator = torch.Generator().manual_seed(0)
    cells = 255 * torch.rand(1, 3, 12, 16, generator=generator)
    smooth = F.interpolate(cells, size=SIZE, mode="bilinear")
    grain = 3 * torch.randn(smooth.shape, generator=generator)
    return (smooth + grain).clamp(0, 255).byte()


def probability(classes: int, seed: int) -> Tensor:
    """(1, classes, H, W) smooth maps, as networks give."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(1, classes, 12, 16, generator=generator)
    return F.interpolate(coarse, size=SIZE, mode="bilinear").softmax(dim=1)


def with_absent(probs: Tensor) -> Tensor:
    """Set few classes among CLASSES channels, the rest 0."""
    return torch.cat([probs, probs.new_zeros(1, CLASSES - probs.shape[1], *SIZE)], dim=1)


def package(image: Tensor, probs: Tensor) -> npt.NDArray[np.float32]:
    """(C, H, W) by pydensecrf2."""
    from pydensecrf import densecrf

    config = DenseCRFConfig()
    classes = probs.shape[1]
    model = densecrf.DenseCRF2D(SIZE[1], SIZE[0], classes)
    unary = -probs[0].clamp(1e-5, 1).log()
    model.setUnaryEnergy(unary.view(classes, -1).numpy())
    model.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    model.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=image[0].permute(1, 2, 0).contiguous().numpy(),
        compat=config.bilateral_weight,
    )
    return np.array(model.inference(config.iterations), dtype=np.float32).reshape(classes, *SIZE)


def plain(image: Tensor, probs: Tensor) -> npt.NDArray[np.float32]:
    """(C, H, W) by our own version in plain torch."""
    return torch_mean_field(image, probs[:, None], DenseCRFConfig())[0, 0].numpy()


def timed(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall-clock and processor milliseconds of each job, in turn, after one to warm up."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            wall, processor = time.perf_counter(), time.process_time()
            job()
            spent[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: (
            1e3 * statistics.median(wall for wall, _ in values[1:]),
            1e3 * statistics.median(processor for _, processor in values[1:]),
        )
        for name, values in spent.items()
    }


def comparisons(image: Tensor, repeats: int) -> tuple[list[Row], dict[str, float]]:
    """Compare with the reference on one thread; also how far the results differ."""
    torch.set_num_threads(1)
    refiner = DenseCRF(DenseCRFConfig())
    installed = importlib.util.find_spec("pydensecrf") is not None
    name, reference = ("pydensecrf2", package) if installed else ("plain torch", plain)
    many, few = probability(CLASSES, 0), probability(FEW, 1)
    padded = with_absent(few)
    gaps = {
        f"gap_{CLASSES}": float(
            np.abs(refiner(image, many)[0].numpy() - reference(image, many)).max()
        ),
        f"gap_{FEW}": float(
            np.abs(refiner(image, padded)[0, :FEW].numpy() - reference(image, few)).max()
        ),
    }
    reject_gap("dense CRF", max(gaps.values()), TOLERANCE)
    spent = timed(
        {
            "ours_many": lambda: refiner(image, many),
            "ours_few": lambda: refiner(image, padded),
            "theirs_many": lambda: reference(image, many),
            "theirs_few": lambda: reference(image, few),
        },
        repeats,
    )
    rows = []
    for kind, clock in enumerate(("", ", processor time")):
        ms = {job: values[kind] for job, values in spent.items()}
        rows += [
            Row(f"CRF, {CLASSES} classes{clock}", ms["ours_many"], name, ms["theirs_many"], most=1),
            Row(
                f"CRF, {FEW} of {CLASSES} classes{clock}",
                ms["ours_few"],
                f"{name}, {CLASSES} classes",
                ms["theirs_many"],
                most=0.6,
            ),
            Row(f"CRF, {FEW} classes each{clock}", ms["ours_few"], name, ms["theirs_few"]),
        ]
    return rows, gaps


def main() -> None:
    """Print the rows and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=os.environ.get("TAG2MASK_VOC_ANIMALS"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, gaps = comparisons(random_image(args.root), args.repeats)
    show(rows)
    save(args.json, rows, images="painted" if args.root is None else "real", **gaps)


if __name__ == "__main__":
    main()
