"""Score a run's masks of every kind on two lists, each at the thresholds that the other one chose.

Run: python benchmarks/score_run.py RUN --root DIR --json FILE [--lists devval train]
    [--limit N] [--entry NAME] [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from row import add_entry, command, run_as_command
from tag2mask import plugins
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import Recipe
from tag2mask.evaluation.mask_scores import report_at_chosen, score_masks
from tag2mask.inference.candidate_masks import SLOW_KINDS
from tag2mask.inference.segmenter import Segmenter


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="inference settings")
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--lists", nargs=2, default=["devval", "train"], metavar="LIST")
    parser.add_argument("--limit", type=int, help="use at most this many images of each list")
    parser.add_argument("--crf", action="store_true", help="also masks after a final dense CRF")
    parser.add_argument("--json", type=Path, required=True, help="file; receives one entry")
    parser.add_argument("--entry", help="name of the entry; default: the run's name")
    return parser.parse_intermixed_args()


def main() -> None:
    """Print a table per class source and direction, and write them as JSON."""
    args = parse_arguments()
    overrides = parse_overrides(args.words)

    def configure(trained: Recipe) -> Recipe:
        return apply_overrides(trained.plain(), overrides, str(args.run))

    segmenter = Segmenter.load(args.run, "last", configure=configure)
    data = segmenter.recipe.data.model_copy(update={"root": args.root, "labels": None})
    kind = plugins.load("data", data.name)
    slow = SLOW_KINDS if args.crf else ()
    scores = {
        name: score_masks(
            segmenter, kind(data, name + ".txt"), slow_kinds=slow, limit=args.limit, notify=print
        )
        for name in args.lists
    }
    tables = []
    for source in scores[args.lists[0]]:
        for chosen, reported in (args.lists, args.lists[::-1]):
            found = report_at_chosen(scores[chosen][source], scores[reported][source])
            rows = {name: asdict(score) for name, score in found.items()}
            table = {"class_source": source, "chosen_on": chosen, "reported_on": reported}
            tables.append({**table, "rows": rows})
            print(f"classes from {source}, thresholds from {chosen}, scores on {reported}")
            for name, row in rows.items():
                print(f"  {name:24s} threshold {row['threshold']!s:5s} mIoU {row['miou']:.4f}")
    entry = args.entry or args.run.resolve().name
    add_entry(args.json, entry, {"command": command(), "limit": args.limit, "tables": tables})


if __name__ == "__main__":
    run_as_command(main)
