"""Time training steps, labeling and loading on a GPU, and extrapolate to the published schedules.

Steps are those of `rml/voc_mitb1` and `afa/voc_mitb1` with random weights, through the same runtime
as training: bfloat16, fused optimizer, batches in pinned memory. Each phase of a schedule is timed:
warm-up, refined labels, propagated labels. After that, the lines are counted where the host waits
for the device within a step; there should be none. `--part` runs one part; by default each part
runs in a process of its own with a time limit, so that one that hangs costs no other results.

Run: python benchmarks/gpu/speed.py --json FILE [--root VOC] [--seconds 110]
    [--part rml afa label loader compile]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.config.schema import resolve_steps
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method
from tag2mask.training.optimizer import build_optimizer
from tag2mask.training.runtime import Runtime
from tag2mask.types import Batch

PARTS = ("rml", "afa", "label", "loader", "compile")
CLASSES = 20
TAGS_PER_IMAGE = 2
SIZES = (320, 512)
SIZE_OF = {"rml": 320, "afa": 512}
"""Side of the training crops in the recipes."""
PAPER_HOURS = {"rml": 3.0}
"""RML, Table A1: hours for PASCAL VOC on one RTX 3090."""
VOC_IMAGE = (375, 500)
"""Height and width of a typical image."""


def recipe_of(name: str, side: int, weights: str = "none") -> Recipe:
    """Return the recipe for VOC without pretrained weights, for crops of one size."""
    recipe = load_recipe(f"{name}/voc_mitb1")
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"crop_px": side}),
            "backbone": recipe.backbone.model_copy(update={"weights": weights}),
            "run": recipe.run.model_copy(update={"precision": "bf16"}),
        }
    )


def make_batch(count: int, side: int) -> Batch:
    """Make smooth random images with two tags each, in pinned memory as the loader does."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 12, 12), generator=generator).float()
    image = nn.functional.interpolate(coarse, (side, side), mode="bilinear").to(torch.uint8)
    tags = torch.zeros(count, CLASSES)
    for row in range(count):
        tags[row, [row % CLASSES, (row + 7) % CLASSES]] = 1
    valid = torch.ones(count, side, side, dtype=torch.bool)
    if torch.cuda.is_available():
        image, tags, valid = (one.pin_memory() for one in (image, tags, valid))
    return Batch(image, tags, valid, [str(n) for n in range(count)], max_tags=TAGS_PER_IMAGE)


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_per_call(call: Callable[[], object], repeats: int, warm_up: int = 3) -> float:
    """Return the mean seconds of a call, with the device drained before and after."""
    for _ in range(warm_up):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - start) / repeats


def host_waits(call: Callable[[], object]) -> list[str]:
    """List the lines where the host waits for the device during a call, with their numbers."""
    if not torch.cuda.is_available():
        return []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    lines: dict[str, int] = {}
    for one in caught:
        if "synchroniz" in str(one.message):
            line = f"{Path(one.filename).as_posix()}:{one.lineno}"
            lines[line] = lines.get(line, 0) + 1
    return [f"{line} ({count})" for line, count in lines.items()]


def phases(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Return the first step and the number of steps of each phase of a schedule."""
    total = recipe.optim.steps
    starts = {"warm-up": 0, "refined labels": resolve_steps(recipe.method.warmup, total)}
    if hasattr(recipe.method, "propagate_from"):
        starts["propagated labels"] = resolve_steps(recipe.method.propagate_from, total)
    ends = [*list(starts.values())[1:], total]
    return {
        name: (start, end - start) for (name, start), end in zip(starts.items(), ends, strict=True)
    }


def step_of(runtime: Runtime, batch: Batch, number: int) -> Callable[[], None]:
    """Return a job that takes one training step."""

    def run() -> None:
        runtime.backward(batch, number, share=1.0, last=True)
        runtime.update(None)

    return run


def time_steps(name: str, side: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """Time the steps of each phase, their peak memory and their waits."""
    recipe = recipe_of(name, side).resolved()
    torch.manual_seed(0)
    method = build_method(recipe).train()
    runtime = Runtime("bf16")
    runtime.prepare(method, lambda: build_optimizer(method, recipe.optim))
    batch = make_batch(batch_size, side)
    result: dict[str, Any] = {"phases": {}}
    seconds = 0.0
    for phase, (first, count) in phases(recipe).items():
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        run = step_of(runtime, batch, first)
        each = seconds_per_call(run, repeats)
        peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
        result["phases"][phase] = {
            "steps": count,
            "ms": 1e3 * each,
            "images_per_s": batch_size / each,
            "peak_mib": peak,
            "host_waits": host_waits(run),
        }
        seconds += count * each
    result["hours_of_training"] = seconds / 3600
    runtime.shutdown()
    return result


def time_method(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time a method at both sizes of crops."""
    results: dict[str, Any] = {
        f"{side} px": time_steps(name, side, args.batch_size, args.repeats) for side in args.sizes
    }
    own = results.get(f"{SIZE_OF[name]} px")
    if own is not None:
        results["hours"] = {
            "recipe's crops": own["hours_of_training"],
            "paper, RTX 3090": PAPER_HOURS.get(name),
        }
    return results


def time_labeling(args: argparse.Namespace) -> dict[str, Any]:
    """Time `label` in one process: network, maps and masks of images in memory."""
    recipe = recipe_of("rml", 320).resolved()
    torch.manual_seed(0)
    method = build_method(recipe).eval()
    random = np.random.default_rng(0)
    height, width = VOC_IMAGE
    images = [
        random.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
        .repeat(25, axis=0)
        .repeat(25, axis=1)
        for _ in range(4)
    ]
    tags = np.zeros(CLASSES, dtype=np.uint8)
    tags[[3, 14]] = 1
    results = {}
    for name, changes in {
        "no refiner": {"refine": False},
        "PAR": {"refine": True},
        "CRF": {"refine": False, "crf": True},
        "PAR, then CRF": {"refine": True, "crf": True},
    }.items():
        predict = recipe.predict.model_copy(update=changes)
        segmenter = Segmenter(method, recipe.model_copy(update={"predict": predict}), bf16=True)

        def run(segmenter: Segmenter = segmenter) -> None:
            for image in images:
                segmenter.segment(image, tags)

        results[name] = {"images_per_s": len(images) / seconds_per_call(run, args.repeats, 1)}
    return results


def time_loader(args: argparse.Namespace) -> dict[str, Any]:
    """Time the loading of batches for both crops, by number of loader processes."""
    from tag2mask import plugins
    from tag2mask.data.loader import batches

    if args.root is None or not args.root.is_dir():
        return {"skipped": "no data folder"}
    data = recipe_of("rml", 320).data.model_copy(update={"root": args.root, "classes": ()})
    source = plugins.load("data", "voc")(data, "train")
    results: dict[str, Any] = {"images": len(source), "note": "images of 320 px, not 500 px"}
    for side in args.sizes:
        config = data.model_copy(update={"crop_px": side})
        for workers in args.loaders:
            opened = batches(source, config, batch_size=args.batch_size, seed=1, workers=workers)
            next(opened)  # the first batch waits for the workers to start
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < args.loader_seconds:
                next(opened)
                count += 1
            rate = count * args.batch_size / (time.perf_counter() - start)
            opened.close()
            results[f"{side} px, {workers} workers"] = {"images_per_s": rate}
    return results


def time_compiled(args: argparse.Namespace) -> dict[str, Any]:
    """Time steps with every attention and MixFFN of the backbone compiled, shapes left open.

    Blocks as a whole cannot be compiled in one piece: which images skip a block is drawn on the
    host.
    """
    from tag2mask.models.backbones.mit import Attention, MixFFN

    torch._dynamo.config.recompile_limit = 64  # views of five sizes, with and without gradients
    for kind in (Attention, MixFFN):
        kind.forward = torch.compile(kind.forward, dynamic=True)
    start = time.perf_counter()
    name, side = "rml", args.sizes[0]
    result = time_steps(name, side, args.batch_size, args.repeats)
    return {f"{name}, {side} px": result, "seconds_in_total": time.perf_counter() - start}


def run_part(part: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one part in this process."""
    if part in SIZE_OF:
        return time_method(part, args)
    jobs = {"label": time_labeling, "loader": time_loader, "compile": time_compiled}
    return jobs[part](args)


def run_parts(parts: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """Run every part in its own process; a part may use the time that is left."""
    deadline = time.monotonic() + args.seconds
    results: dict[str, Any] = {}
    for part in parts:
        left = deadline - time.monotonic()
        command = [sys.executable, *sys.argv, "--part", part, "--here"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=max(left, 1), check=False
            )
            lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
            results[part] = (
                json.loads(lines[-1]) if done.returncode == 0 else {"failed": lines[-8:]}
            )
        except subprocess.TimeoutExpired:
            results[part] = {"stopped": f"after {left:.0f} s"}
        print(part, json.dumps(results[part]), flush=True)
        write(args.json, results)
    return results


def write(path: Path | None, results: dict[str, Any]) -> None:
    """Write the results so far, with the machine."""
    if path is None:
        return
    on_gpu = torch.cuda.is_available()
    record = {
        "command": "python benchmarks/gpu/speed.py",
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        **results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Time all parts, or one part of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--here", action="store_true", help="run one part in this process")
    parser.add_argument("--root", type=Path, help="images in VOC layout, for the loader")
    parser.add_argument("--seconds", type=float, default=110, help="time for everything")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--loaders", type=int, nargs="+", default=(1, 4, 14))
    parser.add_argument("--loader-seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(run_part(args.part[0], args)))
        return
    run_parts(args.part, args)


if __name__ == "__main__":
    main()
