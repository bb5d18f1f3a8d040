"""Compare the demo with its baseline at equal steps: mIoU of 100 held-out scenes.

Trains both unless their run folders are complete; scores masks without and with the refiner, with
classes from tags.

Run: python benchmarks/demo_lead.py RUNS [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from row import command
from tag2mask.cli.demo import label_held_out, score_held_out
from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.data.synthetic import Synthetic
from tag2mask.inference.segmenter import Segmenter
from tag2mask.training.trainer import train

RECIPES = {"baseline": "cam/synthetic_tiny", "demo": "rml/synthetic_tiny"}


def raw_miou(run: Path) -> float:
    """Score masks of the CAM itself, at the same background threshold as the refined masks."""

    def without_refiner(recipe: Recipe) -> Recipe:
        predict = recipe.predict.model_copy(update={"refine": False})
        return recipe.model_copy(update={"predict": predict})

    segmenter = Segmenter.load(run, configure=without_refiner)
    source = Synthetic(segmenter.recipe.data, "val")
    with tempfile.TemporaryDirectory() as folder:
        return score_held_out(segmenter, source, Path(folder)).miou


def score(name: str, run: Path) -> dict[str, float]:
    """Train one recipe, or resume its run, and score it."""
    recipe = load_recipe(name)
    train(recipe, run, resume=(run / "recipe.yaml").is_file(), command=command())
    seconds = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["seconds"]
    return {"raw": raw_miou(run), "refined": label_held_out(recipe, run).miou, "seconds": seconds}


def main() -> None:
    """Print the scores of both recipes and the lead of the demo, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder that contains or receives both run folders")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    scores = {name: score(recipe, args.runs / name) for name, recipe in RECIPES.items()}
    for name, values in scores.items():
        print(
            f"{RECIPES[name]:16s} raw {values['raw']:.3f}  + PAR {values['refined']:.3f}  "
            f"{values['seconds']:.0f} s"
        )
    lead = {kind: scores["demo"][kind] - scores["baseline"][kind] for kind in ("raw", "refined")}
    print(f"{'lead':16s} raw {lead['raw']:.3f}  + PAR {lead['refined']:.3f}")
    if args.json:
        record = {"command": command(), "class_source": "tags", **scores, "lead": lead}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
