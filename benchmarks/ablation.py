"""Train the rows of a table with several seeds and score their masks.

Finished rows are skipped and interrupted ones resume. Rows that name a stage share one run of the
table's recipe, so a stage that several rows need is trained once.

Run: python benchmarks/ablation.py benchmarks/tables/rml_table1.yaml --root DIR --weights DIR --runs
    RUNS [--set backbone.stride=8 method.width=0]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from row import add_entry, command, run_as_command
from seed_quality import (
    DECODER,
    build_refiners,
    method_config,
    open_run,
    read_setting,
    score_list,
    summarize,
)
from tag2mask import plugins
from tag2mask.config.messages import validation_errors
from tag2mask.config.recipe import Recipe, parse_recipe, read_yaml, recipe_path
from tag2mask.config.schema import MethodConfig
from tag2mask.errors import RecipeError
from tag2mask.pipeline import train

CLASS_SOURCE = "tags; a decoder chooses among all classes"
Scores = dict[str, Any]
Section = dict[str, Any]


class Row(BaseModel):
    """One network, or one way to label with it, and the paper's number for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    paper: float | None
    """mIoU of the paper; null if it reports none."""
    set: Section = {}
    """Changes of the recipe by dotted key."""
    stage: str | None = None
    """Stage whose network is scored, for a recipe with stages."""
    reader: Section = {}
    """Another method that reads the weights to label."""
    long_side_px: int | None = None
    """Size to which images are resized instead of the recipe's."""
    refiners: tuple[str, ...] = ()
    """Refiners to use instead of the recipe's."""


class Table(BaseModel):
    """A recipe and the rows that vary it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str | Section
    """Name of a recipe, or the recipe itself as a mapping."""
    rows: tuple[Row, ...]


def row_recipe(base: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> Recipe:
    """Apply changes by dotted key to the table's recipe."""
    raw = json.loads(json.dumps(base))
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        part = raw
        for section in sections:
            part = part.setdefault(section, {})
        part[key] = value
    return parse_recipe(raw, where)


class Images(NamedTuple):
    """The images that score the rows."""

    root: Path
    """Data set in VOC layout."""
    lists: tuple[str, str]
    """Thresholds are chosen on the first list and scores reported on the second."""
    limit: int | None
    """Largest number of images of each list, spread evenly; None for all."""


def score(run: Path, row: Row, images: Images) -> Scores:
    """Score a network's masks with classes from tags; a decoder chooses among all classes."""
    segmenter = open_run(run, "last", reading_method(row), row.long_side_px)
    data = segmenter.recipe.data.model_copy(update={"root": images.root, "labels": None})
    sources = [plugins.load("data", data.name)(data, name + ".txt") for name in images.lists]
    refiners = build_refiners(segmenter, row.refiners)
    chosen, reported = (score_list(segmenter, source, refiners, images.limit) for source in sources)
    summary = {name: summarize(chosen[name], reported[name]) for name in chosen}
    decoder = summary.get("classifier", {})
    return {
        name: decoder[name] if name.startswith(DECODER) and name in decoder else values
        for name, values in summary["tags"].items()
    }


def reading_method(row: Row) -> MethodConfig | None:
    """Return the settings of the method that labels; None if it is the one that was trained."""
    return method_config(row.reader, f"reader of row '{row.name}'") if row.reader else None


def finish(runs: Path, row: Row, recipe: Recipe, images: Images) -> Scores:
    """Train and score one row, skipping finished parts."""
    seed = f"seed{recipe.run.seed}"
    name = row.name.replace(" ", "_").replace("+", "plus")
    run = runs / (f"stages_{seed}" if row.stage else f"{name}_{seed}")
    scores = runs / f"{name}_{seed}_{Path(images.lists[1]).name}_{images.limit or 'all'}.json"
    if not scores.is_file():
        for stage in stages_until(recipe, row.stage) if row.stage else (None,):
            resume = (run / "recipe.yaml").is_file()
            train(recipe, run, resume=resume, stage=stage, command=command(), notify=print)
        scores.write_text(json.dumps(score(run / (row.stage or ""), row, images)), "utf-8")
    result: Scores = json.loads(scores.read_text(encoding="utf-8"))
    return result


def stages_until(recipe: Recipe, stage: str) -> list[str]:
    """List a stage and all stages that it needs, in the order of the recipe."""
    needed = {stage}
    for name in reversed(recipe.stages):
        if name in needed:
            needed.update(recipe.stages[name].needs)
    return [name for name in recipe.stages if name in needed]


def format_table(rows: list[dict[str, Any]]) -> str:
    """Format mean and spread (largest minus smallest) over seeds beside the paper's number."""
    lines = []
    for row in rows:
        columns = []
        runs = list(row["runs"].values())
        for kind in runs[0] if runs else ():
            values = [run[kind]["miou"] for run in runs]
            spread = max(values) - min(values)
            columns.append(f"{kind} {statistics.mean(values):.4f} (spread {spread:.4f})")
        paper = "    -" if row["paper"] is None else f"{row['paper']:5.1f}"
        lines.append(f"{row['name']:28s} paper {paper}  " + "  ".join(columns))
    return "\n".join(lines)


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        RecipeError: If it cannot be read, or has unknown or missing keys; one line per mistake.
    """
    try:
        return Table.model_validate(read_yaml(path))
    except ValidationError as error:
        raise RecipeError("\n".join(validation_errors(error, Table, str(path), ""))) from error


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--weights", required=True, help="ImageNet weights of the backbone")
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder that receives the run folders"
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="changes of all rows, values in YAML",
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="train only these rows of the table"
    )
    parser.add_argument("--lists", nargs=2, default=["devval", "train"], metavar="LIST")
    parser.add_argument("--limit", type=int, help="use at most this many images of each list")
    parser.add_argument("--json", type=Path, help="results file; receives one entry")
    parser.add_argument("--entry", help="name of the entry; default: the table's name")
    return parser.parse_args()


def common_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Return the changes that all rows share."""
    return {
        "data.root": str(args.root),
        "backbone.weights": args.weights,
        "optim.steps": args.steps,
        "run.precision": args.precision,
        "run.samples": 0,
        "run.evaluate_every": 0,  # `finish` scores the last weights
        "run.evaluate_images": 1,
        **dict(read_setting(pair, "--set") for pair in args.set),
    }


def main() -> None:
    """Train and score all rows, one seed after another, so that early results cover every row."""
    args = parse_arguments()
    spec = read_table(args.table)
    base = spec.recipe if isinstance(spec.recipe, dict) else read_yaml(recipe_path(spec.recipe))
    assert isinstance(base, dict)
    if unknown := set(args.rows or ()) - {row.name for row in spec.rows}:
        raise RecipeError(
            f"{args.table}: has no row {', '.join(sorted(unknown))}; its rows are "
            f"{', '.join(row.name for row in spec.rows)}"
        )
    rows = [row for row in spec.rows if not args.rows or row.name in args.rows]
    images = Images(args.root, tuple(args.lists), args.limit)
    args.runs.mkdir(parents=True, exist_ok=True)
    results = [{**row.model_dump(exclude_defaults=True), "runs": {}} for row in rows]
    for seed in args.seeds:
        for row, entry in zip(rows, results, strict=True):
            changes = common_changes(args) | {"run.seed": seed} | row.set
            recipe = row_recipe(base, changes, row.name)
            entry["runs"][seed] = finish(args.runs, row, recipe, images)
            print(format_table(results), flush=True)
            if args.json:
                record = {"command": command(), "class_source": CLASS_SOURCE, "rows": results}
                add_entry(args.json, args.entry or args.table.stem, record)


if __name__ == "__main__":
    run_as_command(main)
