import json

import pytest

from tag2mask.config.recipe import parse_recipe, stage_recipe
from tag2mask.errors import RunError
from tag2mask.io.run_files import SCORES_FILE
from tag2mask.stage_state import StageState

RAW = {
    "data": {"name": "synthetic", "size_px": 64, "crop_px": 64, "count": 3, "val_count": 2},
    "backbone": {"name": "tiny", "width": 8},
    "method": {"name": "cam", "pooling": "gap"},
    "stages": {
        "cam": {"run": "train"},
        "seed": {"run": "label", "from": "cam", "predict": {"background": 0.3}},
        "score": {"run": "evaluate", "from": "seed"},
    },
}
CLASSES = ["board", "target"]


@pytest.fixture
def state(tmp_path):
    """Return the state of a run with a trained network's recipe and finished masks."""
    folder = tmp_path / "run" / "seed"
    folder.mkdir(parents=True)
    described = {"classes": CLASSES, "settings": {"run": "elsewhere/cam", "background": 0.3}}
    (folder / "classes.json").write_text(json.dumps(described))
    for index in range(3):
        (folder / f"train_{index:06d}.png").touch()
    recipe = parse_recipe(RAW, "r")
    (tmp_path / "run" / "cam").mkdir()
    trained = stage_recipe(recipe, "cam").with_classes(CLASSES)
    (tmp_path / "run" / "cam" / "recipe.yaml").write_text(trained.to_yaml())
    return StageState(recipe, tmp_path / "run")


def test_classes_come_from_the_stage_that_read_them(state):
    assert state.recipe("cam").data.classes == ()
    assert list(state.recipe("score").data.classes) == CLASSES


def test_an_image_without_mask_is_unlabeled_unless_it_was_skipped(state):
    assert not state.has_unlabeled("seed")
    (state.root / "seed" / "train_000001.png").unlink()
    assert state.has_unlabeled("seed")
    (state.root / "seed" / "skipped.json").write_text('["train_000001"]')
    assert not state.has_unlabeled("seed")


def test_fingerprint_of_masks_depends_on_their_settings_and_not_on_paths(state):
    before = state.inputs("score")
    path = state.root / "seed" / "classes.json"
    described = json.loads(path.read_text())
    described["settings"]["run"] = "another/path"
    path.write_text(json.dumps(described))
    assert state.inputs("score") == before
    described["settings"]["background"] = 0.4
    path.write_text(json.dumps(described))
    assert state.inputs("score") != before


def test_scores_are_finished_only_for_the_present_inputs(state):
    assert not state.is_finished("score")
    path = state.root / "score" / SCORES_FILE
    path.parent.mkdir()
    settings = {"made_from": json.loads(json.dumps(state.evaluation_inputs("score")))}
    scores = {"class_names": ["cat"], "iou": [0.5, 0.5], "miou": 0.5, "images": 1}
    path.write_text(json.dumps({**scores, "settings": settings}))
    assert state.is_finished("score")
    settings["made_from"]["inputs"]["seed"] = "another"
    path.write_text(json.dumps({**scores, "settings": settings}))
    assert not state.is_finished("score")


def test_scores_do_not_depend_on_the_number_of_images_in_a_pass(state):
    predict = state.evaluation_inputs("score")["predict"]
    assert "scales" in predict
    assert "batch_size" not in predict


def test_an_unfinished_stage_is_named_with_the_command_that_runs_it(state):
    message = (
        r"run/cam: stage 'cam' is not finished; first run tag2mask train --resume .*--stage cam$"
    )
    with pytest.raises(RunError, match=message):
        state.require_finished("seed")
