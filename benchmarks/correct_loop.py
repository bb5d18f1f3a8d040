"""Measure what correcting a few masks on the page buys: label, correct, train further, score.

Run: python benchmarks/correct_loop.py RUN --root VOC --out DIR [--list train] [--images 100]
    [--corrected 10] [--held 100] [--steps 300] [--seeds 1,2,3] [--single-scale] [--json FILE]
    [--entry NAME] [KEY=VALUE ...]

1. Images of a VOC list with official masks become a folder with tags and without masks.
2. `tag2mask label` writes masks; `tag2mask app` opens them and lists the most uncertain first.
3. The first N of its list are corrected: their official masks go through the save address of the
   page, as a person's strokes would (who would draw less exactly).
4. `tag2mask train DATA --from RUN` learns further, with and without these masks, per seed.
5. Every network labels the images that were not corrected, and the images of `devval`, which are
   new to every network. Classes come from tags; the official masks score.

The arm `tags` makes the same steps from the same weights without the corrected masks. Finished
parts are skipped. KEY=VALUE words go to both arms of `train`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from page_server import PageServer, Visitor
from row import add_entry, command, run_as_command
from tag2mask import plugins
from tag2mask.app.run_lengths import encode_runs
from tag2mask.checkpoint import stage_folder
from tag2mask.config.recipe import load_recipe
from tag2mask.data.base import Source
from tag2mask.errors import RunError
from tag2mask.evaluation.folders import evaluate_folder
from tag2mask.evaluation.sources import spread_indices
from tag2mask.io.mask_folder import describe_classes, write_classes
from tag2mask.io.masks import save_mask
from tag2mask.training.run_folder import RunFolder

ARMS = {"tags": "score", "tags + corrected": "train"}
"""Name of an arm -> its `data.true_masks`."""
HELD_OUT = "devval"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--out", type=Path, required=True, help="receives data, runs and masks")
    parser.add_argument("--list", default="train", help="list with official masks")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--corrected", type=int, default=10)
    parser.add_argument("--held", type=int, default=100, help="images of devval")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--single-scale", action="store_true", help="score masks of scale 1 alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--entry", default="correct_loop")
    args, args.changes = parser.parse_known_args()
    return args


def tag2mask(*words: str | Path) -> None:
    """Run one command of the command line.

    Raises:
        RunError: If it fails.
    """
    print("$ tag2mask", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "tag2mask", *map(str, words)], check=False)
    if done.returncode:
        raise RunError(f"tag2mask {words[0]} ended with code {done.returncode}")


def open_list(run: Path, root: Path, name: str) -> Source:
    """Open a VOC list with the classes of a run."""
    recipe = load_recipe(str(stage_folder(run, "train") / "recipe.yaml"))
    voc = plugins.load("data", "voc")
    config = voc.Config(name="voc", root=root, classes=recipe.data.classes)
    source: Source = voc(config, f"{name}.txt")
    return source


def write_folder(source: Source, count: int, folder: Path, truth: Path) -> None:
    """Write images and tags as a person has them, and their official masks elsewhere."""
    if truth.is_dir():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    staging = truth.with_name(f"{truth.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    rows = ["image,tags"]
    for index in spread_indices(len(source), count):
        sample = source[index]
        path = source.image_files[sample.name]
        shutil.copyfile(path, folder / "images" / path.name)
        tags = [source.class_names[one] for one in sample.tags.nonzero()[0]]
        rows.append(f"{path.name},{';'.join(tags)}")
        assert sample.mask is not None
        staging.mkdir(exist_ok=True)
        save_mask(sample.mask, staging / f"{sample.name}.png")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write_classes(staging, describe_classes(source.class_names, "tags", {}))
    staging.rename(truth)


def correct(args: argparse.Namespace, data: Path, labeled: Path, source: Source) -> list[str]:
    """Save official masks of the most uncertain images through the page; return their names."""
    index = {name: at for at, name in enumerate(source.names)}
    with PageServer([str(args.run), str(data), "--masks", str(labeled)]) as server:
        visitor = Visitor(server.address)
        listed = visitor.ask("GET", "/api/images")["images"]
        chosen = [image["name"] for image in listed[: args.corrected]]
        start = time.perf_counter()
        for image in listed[: args.corrected]:
            visitor.mask(image["id"], tags=image["tags"])
            saved = visitor.ask("GET", f"/api/images/{image['id']}/saved")
            mask = source[index[image["name"]]].mask
            assert mask is not None
            content = {"runs": encode_runs(mask), "replaces": saved.get("version")}
            again = {"confirmed": "version" in saved}
            visitor.ask("PUT", f"/api/images/{image['id']}/saved", content | again)
        print(f"{len(chosen)} masks saved in {time.perf_counter() - start:.1f} s", flush=True)
    return chosen


def train_arm(args: argparse.Namespace, data: Path, arm: str, seed: int) -> Path:
    """Train one arm from the weights of the run; return its folder."""
    out: Path = args.out / f"{arm.replace(' + ', '_')}_{seed}"
    folder = RunFolder(out)
    if folder.recipe.is_file():
        if not folder.is_finished:
            tag2mask("train", "--resume", out)
        return out
    changes = [f"data.true_masks={ARMS[arm]}", f"optim.steps={args.steps}", f"run.seed={seed}"]
    own = ["data.val_fraction=0", "run.evaluate_every=0", "run.samples=0", *args.changes]
    tag2mask("train", data, "--from", args.run, "--out", out, *changes, *own)
    return out


def score(
    run: Path, data: Path, truth: Path, masks: Path, leave_out: Sequence[str], words: Sequence[str]
) -> float:
    """Label a folder by its tags, and score all images but some; return the mean IoU."""
    tag2mask("label", run, data, "--out", masks, *words)
    kept = masks.with_name(f"{masks.name}_scored")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(masks, kept)
    for name in leave_out:
        (kept / f"{name}.png").unlink()
    return evaluate_folder(kept, truth, limited=True).miou


def main() -> None:
    """Walk the loop for every seed; print and record the scores."""
    args = parse_arguments()
    args.run, args.root = args.run.resolve(), args.root.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    source = open_list(args.run, args.root, args.list)
    data, held = args.out / "data", args.out / HELD_OUT
    truths = {folder: args.out / f"{folder.name}_truth" for folder in (data, held)}
    write_folder(source, args.images, data, truths[data])
    held_source = open_list(args.run, args.root, HELD_OUT)
    write_folder(held_source, args.held, held, truths[held])
    labeled = args.out / "labeled"
    tag2mask("label", args.run, data, "--out", labeled)
    corrected = correct(args, data, labeled, source)

    words = ("predict.scales=1.0", "predict.flip=false") if args.single_scale else ()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    runs = {"before": [args.run]}
    runs |= {arm: [train_arm(args, data, arm, seed) for seed in seeds] for arm in ARMS}
    scores: dict[str, dict[str, list[float]]] = {}
    for arm, trained in runs.items():
        scores[arm] = {"not corrected": [], HELD_OUT: []}
        for at, run in enumerate(trained):
            name = f"{arm.replace(' + ', '_')}_{at}_masks"
            for part, folder in (("not corrected", data), (HELD_OUT, held)):
                masks = args.out / f"{name}_{folder.name}"
                left_out = corrected if folder == data else ()
                found = score(run, folder, truths[folder], masks, left_out, words)
                scores[arm][part].append(round(found, 4))
        print(arm, scores[arm], flush=True)
    entry: dict[str, Any] = {
        "command": command(),
        "images": args.images,
        "corrected": corrected,
        "held": args.held,
        "steps": args.steps,
        "single_scale": args.single_scale,
        "seeds": seeds,
        "classes from": "tags",
        "miou": scores,
        "mean": {
            arm: {part: round(statistics.mean(values), 4) for part, values in parts.items()}
            for arm, parts in scores.items()
        },
    }
    print(json.dumps(entry["mean"], indent=1))
    if args.json is not None:
        add_entry(args.json, args.entry, entry)


if __name__ == "__main__":
    run_as_command(main)
