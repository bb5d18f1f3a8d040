"""Train the rows of a table, each with several seeds, and score their masks; resumable.

A row that is whole is not trained or scored again, so the command can be stopped and started at
will.

Run: python benchmarks/ablation.py benchmarks/tables/rml_table1.yaml --root DIR --weights DIR --runs
    RUNS [--set backbone.stride=8 method.width=0]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from row import command
from seed_quality import build_refiners, judge, summarise
from tag2mask import plugins
from tag2mask.engine.trainer import train
from tag2mask.prediction.segmenter import Segmenter
from tag2mask.recipe import Recipe, parse_recipe, read_yaml, recipe_path


def row_recipe(base: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> Recipe:
    """The table's recipe with a row's dotted changes."""
    raw = json.loads(json.dumps(base))
    for dotted, value in changes.items():
        section, key = dotted.split(".")
        raw.setdefault(section, {})[key] = value
    return parse_recipe(raw, where)


def score(run: Path, root: Path, limit: int | None) -> dict[str, Any]:
    """Masks of the list `train`, gate oracle, thresholds chosen on `devval`."""
    segmenter = Segmenter.load(run, "last")
    data = segmenter.recipe.data.model_copy(update={"root": root})
    lists = [plugins.load("data", data.name)(data, name) for name in ("devval.txt", "train.txt")]
    refiners = build_refiners(segmenter, [])
    return summarise(*(judge(segmenter, source, refiners, limit)["oracle"] for source in lists))


def finish(run: Path, recipe: Recipe, root: Path, limit: int | None) -> dict[str, Any]:
    """Train and score one run, or what is left of it."""
    scores = run / f"seed_quality_{limit or 'all'}.json"
    if not scores.is_file():
        train(recipe, run, resume=(run / "recipe.yaml").is_file(), command=command())
        scores.write_text(json.dumps(score(run, root, limit)), encoding="utf-8")
    found: dict[str, Any] = json.loads(scores.read_text(encoding="utf-8"))
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread (largest minus smallest) over seeds, the paper's number beside them."""
    lines = []
    for row in rows:
        cells = []
        runs = list(row["runs"].values())
        for kind in runs[0] if runs else ():
            values = [run[kind]["miou"] for run in runs]
            spread = max(values) - min(values)
            cells.append(f"{kind} {statistics.mean(values):.4f} (spread {spread:.4f})")
        paper = "    -" if row["paper"] is None else f"{row['paper']:5.1f}"
        lines.append(f"{row['name']:28s} paper {paper}  " + "  ".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Go through rows and seeds, seed by seed, so that an early stop leaves whole tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--weights", required=True, help="ImageNet weights of the backbone")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run folders")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to all rows, in YAML"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows of the table")
    parser.add_argument("--limit", type=int, help="at most this many photos of each list")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    spec = yaml.safe_load(args.table.read_text(encoding="utf-8"))
    base = read_yaml(recipe_path(spec["recipe"]))
    assert isinstance(base, dict)
    common = {
        "data.root": str(args.root),
        "backbone.weights": args.weights,
        "optim.steps": args.steps,
        "run.precision": args.precision,
        "run.samples": 0,
        "run.evaluate_every": 0,  # rows are scored by `finish`, on their last weights
        "run.evaluate_images": 1,
        **{key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in args.set)},
    }
    rows = [{**row, "runs": {}} for row in spec["rows"]]
    if args.rows:
        if unknown := set(args.rows) - {row["name"] for row in rows}:
            parser.error(f"{args.table} has no row {', '.join(sorted(unknown))}")
        rows = [row for row in rows if row["name"] in args.rows]
    for seed in args.seeds:
        for row in rows:
            recipe = row_recipe(base, common | {"run.seed": seed} | row["set"], row["name"])
            run = args.runs / f"{row['name'].replace(' ', '_').replace('+', 'plus')}_seed{seed}"
            row["runs"][seed] = finish(run, recipe, args.root, args.limit)
            print(table(rows), flush=True)
            if args.json:
                record = {"command": command(), "gate": "oracle", "rows": rows}
                args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
