"""Train the rows of a table, each with several seeds, and score their masks; resumable.

A row that is whole is not trained or scored again, so the command can be stopped and started at
will. Rows that name a stage share one run of the table's recipe: what several of them go on from
is trained once.

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
    Rows,
    build_refiners,
    method_config,
    open_run,
    read_setting,
    summarise,
    validation_loop,
)
from tag2mask import plugins
from tag2mask.config.messages import validation_errors
from tag2mask.config.recipe import Recipe, parse_recipe, read_yaml, recipe_path
from tag2mask.config.schema import MethodConfig
from tag2mask.errors import RecipeError
from tag2mask.pipeline import train
from tag2mask.types import ClassSource

Scores = dict[str, Any]
Section = dict[str, Any]


class Row(BaseModel):
    """One network, or one way of labeling with it, and the paper's number for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    paper: float | None
    """mIoU of the paper, null where it gives none for this."""
    set: Section = {}
    """Dotted changes of the recipe."""
    stage: str | None = None
    """Stage whose network is scored; the recipe has stages then."""
    reader: Section = {}
    """Another method that labels with the weights."""
    long_side_px: int | None = None
    """Size at which images are looked at, in place of the recipe's."""
    refiners: tuple[str, ...] = ()
    """Refiners of the maps, in place of the recipe's."""


class Table(BaseModel):
    """A recipe and the rows made from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str | Section
    """Name of a recipe, or the recipe itself."""
    rows: tuple[Row, ...]


def row_recipe(base: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> Recipe:
    """The table's recipe with a row's dotted changes."""
    raw = json.loads(json.dumps(base))
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        part = raw
        for section in sections:
            part = part.setdefault(section, {})
        part[key] = value
    return parse_recipe(raw, where)


class Images(NamedTuple):
    """The images by which rows are judged."""

    root: Path
    """Data set in VOC layout."""
    lists: tuple[str, str]
    """Thresholds are chosen on the first, scores are of the second."""
    limit: int | None
    """At most this many of each, spread evenly."""


def score(run: Path, row: Row, images: Images) -> Scores:
    """Score a network's masks, classes from tags."""
    segmenter = open_run(run, "last", reading_method(row), row.long_side_px)
    data = segmenter.recipe.data.model_copy(update={"root": images.root, "labels": None})
    sources = [plugins.load("data", data.name)(data, name + ".txt") for name in images.lists]
    refiners = build_refiners(segmenter, row.refiners)
    gate: ClassSource = "tags"
    judged: list[Rows] = [
        validation_loop(segmenter, source, refiners, images.limit)[gate] for source in sources
    ]
    return summarise(*judged)


def reading_method(row: Row) -> MethodConfig | None:
    """Settings of the method that labels, where it is not the one that learned."""
    return method_config(row.reader, f"reader of row '{row.name}'") if row.reader else None


def finish(runs: Path, row: Row, recipe: Recipe, images: Images) -> Scores:
    """Train and score one row, or what is left of it."""
    seed = f"seed{recipe.run.seed}"
    name = row.name.replace(" ", "_").replace("+", "plus")
    run = runs / (f"stages_{seed}" if row.stage else f"{name}_{seed}")
    scores = runs / f"{name}_{seed}_{Path(images.lists[1]).name}_{images.limit or 'all'}.json"
    if not scores.is_file():
        for stage in stages_until(recipe, row.stage) if row.stage else (None,):
            resume = (run / "recipe.yaml").is_file()
            train(recipe, run, resume=resume, stage=stage, command=command(), tell=print)
        scores.write_text(json.dumps(score(run / (row.stage or ""), row, images)), "utf-8")
    found: Scores = json.loads(scores.read_text(encoding="utf-8"))
    return found


def stages_until(recipe: Recipe, stage: str) -> list[str]:
    """A stage and all that it needs, in the order of the recipe."""
    wanted = {stage}
    for name in reversed(recipe.stages):
        if name in wanted:
            wanted.update(recipe.stages[name].needs)
    return [name for name in recipe.stages if name in wanted]


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread (largest minus smallest) over seeds, the paper's number beside them."""
    lines = []
    for row in rows:
        cells = []
        runs = list(row["runs"].values())
        for kind in runs[0] if runs else ():
            values = [run[kind]["miou"] for run in runs]
            propagate_cam = max(values) - min(values)
            cells.append(f"{kind} {statistics.mean(values):.4f} (spread {propagate_cam:.4f})")
        paper = "    -" if row["paper"] is None else f"{row['paper']:5.1f}"
        lines.append(f"{row['name']:28s} paper {paper}  " + "  ".join(cells))
    return "\n".join(lines)


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        RecipeError: If it cannot be read, or has unknown or missing keys; one line per fault.
    """
    try:
        return Table.model_validate(read_yaml(path))
    except ValidationError as error:
        raise RecipeError("\n".join(validation_errors(error, Table, str(path), ""))) from error


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--weights", required=True, help="ImageNet weights of the backbone")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run folders")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="changes to all rows, in YAML",
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows of the table")
    parser.add_argument("--lists", nargs=2, default=["devval", "train"], metavar="LIST")
    parser.add_argument("--limit", type=int, help="at most this many images of each list")
    parser.add_argument("--json", type=Path, help="results file that gets an entry")
    parser.add_argument("--entry", help="name of the entry; default: the table's name")
    return parser.parse_args()


def common_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Changes that all rows share."""
    return {
        "data.root": str(args.root),
        "backbone.weights": args.weights,
        "optim.steps": args.steps,
        "run.precision": args.precision,
        "run.samples": 0,
        "run.evaluate_every": 0,  # rows are scored by `finish`, on their last weights
        "run.evaluate_images": 1,
        **dict(read_setting(pair, "--set") for pair in args.set),
    }


def main() -> None:
    """Go through rows and seeds, seed by seed, so that an early stop leaves whole tables."""
    args = parse_arguments()
    spec = read_table(args.table)
    base = spec.recipe if isinstance(spec.recipe, dict) else read_yaml(recipe_path(spec.recipe))
    assert isinstance(base, dict)
    if unknown := set(args.rows or ()) - {row.name for row in spec.rows}:
        raise RecipeError(f"{args.table} has no row {', '.join(sorted(unknown))}")
    chosen = [row for row in spec.rows if not args.rows or row.name in args.rows]
    images = Images(args.root, tuple(args.lists), args.limit)
    args.runs.mkdir(parents=True, exist_ok=True)
    done = [{**row.model_dump(exclude_defaults=True), "runs": {}} for row in chosen]
    for seed in args.seeds:
        for row, entry in zip(chosen, done, strict=True):
            changes = common_changes(args) | {"run.seed": seed} | row.set
            recipe = row_recipe(base, changes, row.name)
            entry["runs"][seed] = finish(args.runs, row, recipe, images)
            print(table(done), flush=True)
            if args.json:
                record = {"command": command(), "class_source": "tags", "rows": done}
                add_entry(args.json, args.entry or args.table.stem, record)


if __name__ == "__main__":
    run_as_command(main)
