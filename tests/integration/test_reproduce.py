"""A small table from the command line to the numbers, also when its process is killed."""

import json
from pathlib import Path

import pytest
from tests.integration.dying_pipeline import KILLED, run

from tag2mask.cli.main import main
from tag2mask.data.synthetic import Synthetic
from tag2mask.evaluation.mask_scores import score_masks
from tag2mask.evaluation.sources import evaluate_source
from tag2mask.inference.segmenter import Segmenter
from tag2mask.reproduction.reproduce import open_reproduction
from tag2mask.reproduction.runner import Runner

TABLE = """
title: Small networks
source: A paper, Table 1
data: some images
columns: [mIoU, hours]
classes: [background, beetle]
runs:
  synthetic: {recipe: cam/synthetic_tiny, split: val, threshold_split: train}
rows:
  gap: {name: GAP, paper: {mIoU: 50.3, hours: 3.0}, iou: [90.0, 10.6]}
  refined: {name: GAP + PAR, paper: {mIoU: 51.0}, masks: cam + refiner}
  seg:
    name: Network on the labels
    masks: decoder
    set: stages.seg.method.decoder_width=8
    runs: {synthetic: {recipe: cam/synthetic_stages, stage: seg, class_source: classifier}}
  others: {name: Another method, paper: {mIoU: 60.0}, runs: {}}
"""
SMALL = """data.size_px=64 data.crop_px=64 data.count=4 data.val_count=2 backbone.width=8
optim.steps=6 optim.batch_size=2 run.workers=0 run.save_every=2 predict.scales=1.0"""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "small.yaml"
    path.write_text(TABLE, encoding="utf-8")
    return path


def words(table: Path, out: Path, *more: str) -> list[str]:
    return [
        "reproduce",
        str(table),
        "--data",
        "synthetic",
        "--out",
        str(out),
        *more,
        *SMALL.split(),
    ]


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory) -> Path:
    """Return the folder of results of a reproduction that nothing interrupted."""
    out = tmp_path_factory.mktemp("finished")
    assert run(words(table, out)) == 0
    return out


def read(out: Path) -> dict:
    return json.loads((out / "small_synthetic.json").read_text(encoding="utf-8"))


def scores_of(out: Path) -> dict:
    """Every number that does not depend on the clock."""
    return {
        name: {seed: found["scores"] for seed, found in row.get("seeds", {}).items()}
        for name, row in read(out)["rows"].items()
    }


def test_every_row_has_its_numbers(finished):
    rows = read(finished)["rows"]
    assert list(rows) == ["gap", "refined", "seg", "others"]
    assert "ours" not in rows["others"]
    for name in ("gap", "refined", "seg"):
        row = rows[name]
        assert 0 <= row["ours"] <= 100, name
        assert set(row["seeds"]["1"]["scores"]) == {"val", "train"}
        assert set(row["seeds"]["1"]["scores"]["val"]) == {"tags", "classifier"}
    assert rows["gap"]["difference"] == pytest.approx(rows["gap"]["ours"] - 50.3, abs=0.01)
    assert rows["gap"]["seeds"]["1"]["images"] == {"val": 2, "train": 4}
    assert rows["gap"]["paper_iou"] == {"background": 90.0, "beetle": 10.6}


def test_hours_of_every_stage_are_recorded(finished):
    seconds = read(finished)["rows"]["seg"]["seeds"]["1"]["seconds"]
    assert list(seconds) == ["training", "labeling", "evaluation"]
    assert min(seconds.values()) > 0
    assert read(finished)["rows"]["gap"]["seeds"]["1"]["seconds"]["labeling"] == 0


def test_the_number_is_that_of_the_weights_at_the_other_lists_threshold(finished):
    row = read(finished)["rows"]["refined"]["seeds"]["1"]
    score = row["scores"]["val"]["tags"]["cam + refiner"]
    run_folder = finished / "runs" / row["run"]

    def configure(recipe):
        predict = recipe.predict.model_copy(update={"background": score["threshold"]})
        return recipe.model_copy(update={"predict": predict})

    segmenter = Segmenter.load(run_folder, "last", configure=configure)
    report = evaluate_source(segmenter, Synthetic(segmenter.recipe.data, "val"), "tags")
    assert report.miou == pytest.approx(score["miou"], abs=0.01)  # labels are made in bf16


def test_thresholds_are_chosen_on_the_other_list(finished):
    row = read(finished)["rows"]["refined"]["seeds"]["1"]
    segmenter = Segmenter.load(finished / "runs" / row["run"], "last")
    for reported, other in (("val", "train"), ("train", "val")):
        found = score_masks(segmenter, Synthetic(segmenter.recipe.data, other))["classifier"]
        matrices = found.kinds["cam + refiner"]
        best = max(matrix.miou() for matrix in matrices.values())
        threshold = row["scores"][reported]["classifier"]["cam + refiner"]["threshold"]
        assert matrices[threshold].miou() == best


def test_rows_of_one_network_train_it_once(finished):
    runs = sorted(path.name for path in (finished / "runs").iterdir() if path.is_dir())
    assert len(runs) == 2  # GAP and the stages
    rows = read(finished)["rows"]
    assert rows["gap"]["seeds"]["1"]["run"] == rows["refined"]["seeds"]["1"]["run"]


def test_the_markdown_has_the_papers_number_beside_ours(finished):
    text = (finished / "small_synthetic.md").read_text(encoding="utf-8")
    row = read(finished)["rows"]["gap"]
    (line,) = [line for line in text.splitlines() if line.startswith("| GAP | 50.3 |")]
    texts = [text.strip() for text in line.strip("|").split("|")]
    assert texts[:5] == ["GAP", "50.3", "3.0", f"{row['ours']:.1f}", f"{row['difference']:+.1f}"]
    assert texts[-3:] == ["cam", "tags", "val"]
    assert "tag2mask reproduce" in text
    assert "| Another method | 60.0 | - | - |" in text
    assert "| beetle | 10.6 |" in text


def test_a_second_call_runs_nothing(finished, table, capsys):
    before = read(finished)
    assert main(words(table, finished)) == 0
    printed = capsys.readouterr().out
    assert printed.count("finished, skipped") == 3
    assert "scoring" not in printed
    assert read(finished)["rows"] == before["rows"]


@pytest.mark.slow
def test_a_killed_process_resumes_and_ends_with_the_same_numbers(finished, table, tmp_path):
    plans = {
        plan.row_id: plan
        for plan in open_reproduction(
            str(table),
            "synthetic",
            Runner(tmp_path),
            overrides=dict(word.split("=", 1) for word in SMALL.split()),
        ).plans
    }
    line = words(table, tmp_path)
    gap = plans["gap"].run_name
    for death in ((gap, 5), ("seed", 2)):  # in a training, and while a stage labels
        assert run(line, death) == KILLED, death
    log = (tmp_path / "runs" / gap / "log.jsonl").read_text(encoding="utf-8")
    events = [json.loads(entry).get("event") for entry in log.splitlines()]
    assert {"start", "resume"} <= set(events)  # it went back to step 4, not to step 0
    assert run(line) == 0
    assert scores_of(tmp_path) == scores_of(finished)


def test_a_dry_run_prints_the_rows_and_their_commands(table, tmp_path, capsys):
    assert main(words(table, tmp_path, "--dry-run", "--rows", "seg,others", "optim.lr=1e-5")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "seg, seed 1 (to do): decoder, classes from classifier, val, threshold from train"
    )
    assert lines[1].startswith("  tag2mask train cam/synthetic_stages ")
    assert "optim.lr=1e-5" in lines[1]
    assert lines[2] == "others: the paper's number only"
    assert not list(tmp_path.iterdir())
