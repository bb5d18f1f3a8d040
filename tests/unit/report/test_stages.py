import json
from pathlib import Path

from tag2mask.config.recipe import parse_recipe
from tag2mask.io.mask_folder import append_scores, describe_classes, write_classes
from tag2mask.report.stages import read_stage_scores, read_stages

RECIPE = {
    "data": {"name": "synthetic"},
    "backbone": {"name": "tiny"},
    "method": {"name": "cam"},
    "stages": {
        "cam": {"run": "train"},
        "masks": {"run": "label", "from": ["cam"]},
        "seg": {"run": "train", "labels": "masks", "method": {"name": "supervised"}},
        "scores": {"run": "evaluate", "from": ["seg"]},
    },
}


def write_stages(root: Path) -> None:
    for name in ("cam", "masks", "scores"):
        (root / name).mkdir(parents=True)
    metrics = {"step": 5, "steps": 5, "finished": True, "seconds": 65}
    (root / "cam" / "metrics.json").write_text(json.dumps(metrics))
    (root / "cam" / "log.jsonl").write_text('{"step": 1, "losses": {"classification": 1}}\n')
    write_classes(root / "masks", describe_classes(("cat",), "tags", {}))
    append_scores(root / "masks", {"name": "a"})
    scores = {"class_names": ["cat"], "iou": [0.5, 0.3], "miou": 0.4, "images": 2}
    (root / "scores" / "scores.json").write_text(json.dumps(scores))


def test_each_stage_says_how_far_it_is(tmp_path):
    write_stages(tmp_path)
    stages = read_stages(parse_recipe(RECIPE, "test"), tmp_path)
    assert [one.name for one in stages] == ["cam", "masks", "seg", "scores"]
    assert [one.state for one in stages] == ["finished", "not finished", "not started", "finished"]
    assert [one.result for one in stages] == ["5 of 5 steps", "1 mask", "", "mIoU 40.0 %"]
    assert stages[0].seconds == "1 min 05 s"
    assert len(stages[0].log) == 1


def test_scores_are_those_of_evaluate_stages(tmp_path):
    recipe = parse_recipe(RECIPE, "test")
    assert read_stage_scores(recipe, tmp_path) == {}
    write_stages(tmp_path)
    assert [(n, one["miou"]) for n, one in read_stage_scores(recipe, tmp_path).items()] == [
        ("stage scores", 0.4)
    ]


def test_a_run_without_stages_has_none(tmp_path):
    assert read_stages(None, tmp_path) == ()
    assert read_stage_scores(None, tmp_path) == {}
