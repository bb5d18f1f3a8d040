"""The demo beside its baseline at equal steps: mIoU of 100 held-out scenes, raw and refined.

Both are trained here where their folders do not hold them yet; class source `tags`.

Run: python benchmarks/demo_lead.py RUNS [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from row import command
from tag2mask.cli.demo import label_held_out, score_held_out
from tag2mask.config.recipe import load_recipe
from tag2mask.data.synthetic import Synthetic
from tag2mask.inference.segmenter import Segmenter
from tag2mask.training.trainer import train

RECIPES = {"baseline": "cam/synthetic_tiny", "demo": "rml/synthetic_tiny"}


def raw_miou(run: Path) -> float:
    """Score the evidence itself, cut at the same score of background as the refined masks."""
    segmenter = Segmenter.load(run)
    recipe = segmenter.recipe
    predict = recipe.predict.model_copy(update={"refine": False})
    plain = Segmenter(segmenter.method, recipe.model_copy(update={"predict": predict}))
    source = Synthetic(recipe.data, "val")
    with tempfile.TemporaryDirectory() as folder:
        return score_held_out(plain, source, Path(folder)).miou


def score(name: str, run: Path) -> dict[str, float]:
    """Train one recipe, or what is left of it, and score it."""
    recipe = load_recipe(name)
    train(recipe, run, resume=(run / "recipe.yaml").is_file(), command=command())
    seconds = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["seconds"]
    return {"raw": raw_miou(run), "refined": label_held_out(recipe, run).miou, "seconds": seconds}


def main() -> None:
    """Print a line per recipe and the lead, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder for the two run folders")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {name: score(recipe, args.runs / name) for name, recipe in RECIPES.items()}
    for name, values in found.items():
        print(
            f"{RECIPES[name]:16s} raw {values['raw']:.3f}  + PAR {values['refined']:.3f}  "
            f"{values['seconds']:.0f} s"
        )
    lead = {kind: found["demo"][kind] - found["baseline"][kind] for kind in ("raw", "refined")}
    print(f"{'lead':16s} raw {lead['raw']:.3f}  + PAR {lead['refined']:.3f}")
    if args.json:
        record = {"command": command(), "class_source": "tags", **found, "lead": lead}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
