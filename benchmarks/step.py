"""Time a full training step of RML or AFA against its lower bound.

The lower bound is the work that no implementation avoids: forward and backward of the training
views (for AFA with the decoder), plus the forward passes without gradients that multi-scale
pseudo-labels need when the features of scale 1 are reused. Each part is timed alone, with the same
network and batch, in turn with the step. AFA's step uses propagated labels. Stochastic depth is
off: it skips branches of random images, so that step and bound would do different work. Peak memory
is measured in a process that does nothing else.

Run: python benchmarks/step.py [--method rml afa] [--variant b1] [--batch 2] [--side 320]
    [--repeats 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from row import Row, save
from tag2mask.config.recipe import parse_recipe
from tag2mask.functional.cam import scaled_size, upsample
from tag2mask.functional.precision import has_fast_bf16
from tag2mask.methods.afa import AFA
from tag2mask.methods.build import build_method
from tag2mask.methods.rml.method import RML
from tag2mask.types import Batch

CLASSES = tuple(f"class{index}" for index in range(20))
METHODS = ["rml", "afa"]
LATE = 10_000
"""A training step after warm-up and after AFA's switch to propagated labels."""


def build(name: str, variant: str, precision: str) -> RML | AFA:
    """Build a method as in its recipe for VOC, untrained and without stochastic depth."""
    recipe = parse_recipe(
        {
            "data": {"name": "voc", "classes": CLASSES[:0]},
            "backbone": {"name": "mit", "variant": variant, "weights": "none", "drop_path": 0},
            "method": {"name": name, "label_precision": precision},
            "refiner": {"name": "par"},
        },
        "benchmark",
    ).with_classes(CLASSES)
    torch.manual_seed(0)
    method = build_method(recipe)
    assert isinstance(method, RML | AFA)
    return method.train()


def make_batch(count: int, side: int) -> Batch:
    """Make smooth colored images with two tags each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 12, 12), generator=generator).float()
    tags = torch.zeros(count, len(CLASSES))
    tags[:, [3, 14]] = 1
    image = upsample(coarse, (side, side)).to(torch.uint8)
    valid = torch.ones(count, side, side, dtype=torch.bool)
    return Batch(image, tags, valid, [str(n) for n in range(count)], max_tags=2)


def step(method: RML | AFA, batch: Batch, *, bf16: bool = False) -> Callable[[], None]:
    """Return a job that does a training step without the optimizer."""

    def run() -> None:
        method.zero_grad(set_to_none=True)
        half = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
        with half:
            losses = method.losses(batch, LATE)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()

    return run


def bare_training(method: RML | AFA, batch: Batch) -> Callable[[], None]:
    """Return a job with forward and backward only: RML's two views, or AFA's view and decoder."""
    image = method.backbone.normalize(batch.image)

    def outputs() -> Tensor:
        maps = method.backbone(image).maps
        if isinstance(method, AFA):
            return method.decoder(maps).sum()
        return maps[-1].sum() + method.backbone(method.view.image(image)).maps[-1].sum()

    def run() -> None:
        method.zero_grad(set_to_none=True)
        outputs().backward()

    return run


def bare_labeling(method: RML | AFA, batch: Batch) -> Callable[[], None]:
    """Return a job with the encoder passes that pseudo-labels add, without gradients."""
    image = method.backbone.normalize(batch.image)
    half, large = (upsample(image, scaled_size(image.shape[-2:], s)) for s in (0.5, 1.5))
    views: list[Tensor] = [image.flip(-1)]
    views += [torch.cat([view, view.flip(-1)]) for view in (half, large)]

    @torch.no_grad()
    def run() -> None:
        for view in views:
            method.backbone(view)

    return run


def medians(parts: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Measure the median seconds of each part; parts take turns, after one round to warm up."""
    for run in parts.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def label_agreement(name: str, variant: str, batch: Batch) -> float:
    """Return the share of pixels with equal labels from bf16 and fp32 CAMs of untrained weights."""
    labels = []
    for precision in ("fp32", "bf16"):
        method = build(name, variant, precision)
        image = method.backbone.normalize(batch.image)
        if isinstance(method, AFA):
            features = method.eval().backbone(image, attention=True)
            cam = method.head(features.maps[-1])[1]
            labels.append(method._labels(batch, image, cam, features, propagates=True)[0])
        else:
            labels.append(method._pseudo_label(batch, image, method.compute_cam(image).cam))
    return float((labels[0] == labels[1]).float().mean())


def peak_mib(name: str, variant: str, count: int, side: int, threads: int, bf16: bool) -> float:
    """Measure the peak memory that three steps add to a process with the network (Linux)."""
    torch.set_num_threads(threads)
    run = step(build(name, variant, "bf16" if bf16 else "fp32"), make_batch(count, side), bf16=bf16)
    before = resident_kib("VmRSS")
    for _ in range(3):
        run()
    return (resident_kib("VmHWM") - before) / 1024


def resident_kib(entry: str) -> int:
    """Read the resident size of this process now (VmRSS) or its peak so far (VmHWM).

    `getrusage` does not serve: a child process inherits the peak of its parent.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry))


def measure(method: str, args: argparse.Namespace) -> tuple[dict[str, float], dict[str, float]]:
    """Measure the seconds of step and lower bound, and their ratios."""
    batch = make_batch(args.batch_size, args.side)
    full, half = (build(method, args.variant, kind) for kind in ("fp32", "bf16"))
    parts = {
        "step fp32": step(full, batch),
        "training bound": bare_training(full, batch),
        "labeling bound": bare_labeling(full, batch),
    }
    fast = has_fast_bf16("cpu")
    if fast:
        parts["step, labels in bf16"] = step(half, batch)
        parts["step, all in bf16"] = step(half, batch, bf16=True)
    seconds = medians(parts, args.repeats)
    bound = seconds["training bound"] + seconds["labeling bound"]
    ratios = {"step / bound": seconds["step fp32"] / bound}
    if fast:
        ratios["bf16 labels / fp32 step"] = seconds["step, labels in bf16"] / seconds["step fp32"]
        ratios["all bf16 / fp32 step"] = seconds["step, all in bf16"] / seconds["step fp32"]
        ratios["label agreement"] = label_agreement(method, args.variant, batch)
    return seconds, ratios


def comparisons(method: str, seconds: Mapping[str, float]) -> list[Row]:
    """Compare the step with its lower bound, and bf16 with fp32, in milliseconds."""
    step_ms = 1e3 * seconds["step fp32"]
    bound_ms = 1e3 * (seconds["training bound"] + seconds["labeling bound"])
    rows = [Row(f"{method} step, fp32", step_ms, "lower bound", bound_ms, max_ratio=1.2)]
    goals = {"step, labels in bf16": None, "step, all in bf16": 0.65}
    return rows + [
        Row(f"{method} {name}", 1e3 * seconds[name], "fp32 step", step_ms, max_ratio=goal)
        for name, goal in goals.items()
        if name in seconds
    ]


def memory_of(method: str, args: argparse.Namespace) -> dict[str, float]:
    """Measure the peak memory of the step, each in a new process."""
    memory = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        sizes = (method, args.variant, args.batch_size, args.side, torch.get_num_threads())
        for kind, bf16 in (("fp32", False), ("all in bf16", True)):
            memory[f"peak MiB over the network, {kind}"] = pool.apply(peak_mib, (*sizes, bf16))
    return memory


def main() -> None:
    """Print times, ratios and memory, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--variant", default="b1")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    details = {}
    for method in args.method:
        seconds, ratios = measure(method, args)
        memory = memory_of(method, args)
        print(method)
        for name, value in {**seconds, **ratios, **memory}.items():
            print(f"  {name:40s} {value:8.3f}")
        rows += comparisons(method, seconds)
        details[method] = {"seconds": seconds, "ratios": ratios, "memory_mib": memory}
    save(args.json, rows, **details)


if __name__ == "__main__":
    main()
