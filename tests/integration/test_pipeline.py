"""A pipeline that is killed in every stage ends with the same masks as one that is not."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from safetensors.numpy import load_file
from tests.integration.dying_pipeline import KILLED, run

from tag2mask.cli.main import main

RECIPE = "cam/synthetic_stages"
SMALL = """data.size_px=64 data.crop_px=64 data.count=6 data.val_count=2 backbone.width=8
optim.steps=6 optim.batch_size=2 run.workers=0 run.save_every=2 run.samples=0
predict.scales=1.0 stages.seg.method.decoder_width=8"""
STAGES = ("cam", "seed", "seeds", "seg", "masks", "scores")
DEATHS = (("cam", 5), ("seed", 2), ("seeds", 0), ("seg", 3), ("masks", 4), ("scores", 0))


def masks(run: Path) -> dict[str, bytes]:
    found = {path.relative_to(run): path.read_bytes() for path in run.glob("*/*.png")}
    return {path.as_posix(): data for path, data in sorted(found.items())}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run(["train", RECIPE, "--out", str(out), *SMALL.split()]) == 0
    return out


@pytest.mark.slow
def test_a_pipeline_killed_in_every_stage_ends_with_the_same_masks(finished, tmp_path):
    out = tmp_path / "run"
    words = ["train", RECIPE, "--out", str(out), *SMALL.split()]
    for number, death in enumerate(DEATHS):
        assert run(words, death) == KILLED, death
        started = [name for name in STAGES if (out / name).is_dir()]
        at = STAGES.index(death[0])
        assert started == list(STAGES[: at + (0 if death[1] == 0 else 1)]), number
        words = ["train", "--resume", str(out)]
    assert run(words) == 0
    assert len(masks(finished)) == 12
    assert masks(out) == masks(finished)
    for stage in ("cam", "seg"):
        mine, others = (
            load_file(folder / stage / "weights" / "last.safetensors") for folder in (out, finished)
        )
        assert mine.keys() == others.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, others[name])
    for stage in ("seed", "masks"):
        names = [
            json.loads(line)["name"]
            for line in (out / stage / "scores.jsonl").read_text("utf-8").splitlines()
        ]
        assert sorted(names) == [f"train_{index:06d}" for index in range(6)]
    for stage in ("seeds", "scores"):
        mine, others = (
            json.loads((folder / stage / "scores.json").read_text("utf-8"))["iou"]
            for folder in (out, finished)
        )
        assert mine == others


def test_every_command_takes_a_run_with_stages(finished, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(images / "a.png")
    (images / "tags.csv").write_text("image,tags\na.png,house\n", encoding="utf-8")
    line = f"{finished / 'seg'}, the last stage that trains"
    assert main(["predict", str(finished), str(images), "--out", str(tmp_path / "p")]) == 0
    assert main(["label", str(finished), str(images), "--out", str(tmp_path / "l")]) == 0
    assert main(["report", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert printed.count(line) == 2
    assert f"report: {finished / 'report.html'}" in printed
    assert "<h2>Stages</h2>" in (finished / "report.html").read_text("utf-8")
    described = json.loads((tmp_path / "l" / "classes.json").read_text("utf-8"))
    assert described["settings"]["method"] == "supervised"
    assert main(["evaluate", str(finished), str(finished / "masks")]) == 0
    assert f"masks: {finished / 'masks'}, the last stage that labels" in capsys.readouterr().out


def test_errors_in_stages_end_with_code_2_and_one_line(finished, tmp_path, capsys):
    lines = [
        ([RECIPE, "--out", str(tmp_path / "r"), "--stage", "seg"], "stage 'cam' is not finished"),
        ([RECIPE, "--out", str(tmp_path / "r"), "--stage", "sag"], "unknown stage 'sag'. Did you"),
        ([RECIPE, "--out", str(tmp_path / "r"), "stages.sag.optim.steps=1"], "Did you mean "),
        ([RECIPE, "--out", str(tmp_path / "r"), "stages.seg.optim.stepz=1"], "Did you mean "),
        (
            [RECIPE, "--out", str(tmp_path / "r"), "stages.seg.labels=cam"],
            "a label stage is needed",
        ),
        (["--resume", str(finished), "stages.seg.optim.steps=9"], "optim.steps was 6, now 9"),
        (["cam/synthetic_tiny", "--out", str(tmp_path / "r"), "--stage", "cam"], "has no stages"),
    ]
    for words, problem in lines:
        assert main(["train", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert problem in line
