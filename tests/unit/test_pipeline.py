import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from tag2mask import pipeline, plugins
from tag2mask.checkpoint import read_weights
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import Recipe, load_recipe, stage_recipe
from tag2mask.errors import RecipeError, RunError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.evaluation.sources import sweep_source
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.processes import own_name
from tag2mask.methods.advcam import AdvCAM
from tag2mask.methods.cam import CAM

RAW = {
    "data": {"name": "synthetic", "size_px": 64, "crop_px": 64, "count": 5, "val_count": 2},
    "backbone": {"name": "tiny", "width": 8},
    "method": {"name": "cam", "pooling": "gap"},
    "optim": {"head_lr": 0.001, "steps": 3, "batch_size": 2},
    "predict": {"scales": [1.0], "flip": False, "long_side_px": 0},
    "run": {"workers": 0, "log_every": 1, "save_every": 1, "samples": 0, "evaluate_every": 0},
    "stages": {
        "cam": {"run": "train"},
        "seed": {"run": "label", "from": "cam", "predict": {"background": 0.3}},
        "seg": {
            "run": "train",
            "from": "cam",
            "labels": "seed",
            "method": {"name": "supervised", "decoder_width": 8},
            "optim": {"steps": 2},
        },
        "masks": {"run": "label", "from": "seg"},
        "score": {"run": "evaluate", "from": "masks"},
    },
}
STAGES = tuple(RAW["stages"])
SKIPPED = [f"stage {n} of 5, {name}: finished, skipped" for n, name in enumerate(STAGES, 1)]


def recipe(line: str = "") -> Recipe:
    overrides = parse_overrides(line.split())
    return apply_overrides(RAW, overrides, "r")


def read_files(run: Path) -> dict[str, bytes]:
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, list[str]]:
    """Return a finished run, which no test may change, and the lines it printed."""
    lines: list[str] = []
    home = tmp_path_factory.mktemp("finished")
    return pipeline.train(recipe(), home / "run", command="test", notify=lines.append), lines


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """Return a copy of the finished run."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def resume(run: Path, line: str = "", stage: str | None = None) -> list[str]:
    lines: list[str] = []
    pipeline.train(recipe(line), run, stage=stage, notify=lines.append)
    return lines


def test_every_stage_writes_its_output_to_its_own_folder(finished):
    run, lines = finished
    assert [line for line in lines if line.startswith("stage")] == [
        f"stage {n} of 5, {name}: {RAW['stages'][name]['run']}" for n, name in enumerate(STAGES, 1)
    ]
    for name in ("cam", "seg"):
        assert json.loads((run / name / "metrics.json").read_text())["finished"]
    for name in ("seed", "masks"):
        assert len(list((run / name).glob("*.png"))) == 5
        described = json.loads((run / name / "classes.json").read_text())
        assert described["class_source"] == "tags"
        assert len(described["classes"]) == 5
    scores = json.loads((run / "score" / "scores.json").read_text())
    assert scores["images"] == 5
    assert lines[-1].startswith(f"mIoU {scores['miou']:.4f}, 5 images, classes from tags: ")


def test_a_stage_is_a_run_with_its_own_recipe(finished):
    run, _ = finished
    seg = load_recipe(str(run / "seg" / "recipe.yaml"))
    assert (seg.method.name, seg.optim.steps, seg.data.labels) == ("supervised", 2, run / "seed")
    assert seg.earlier["cam"].plain() == load_recipe(str(run / "cam" / "recipe.yaml")).plain()
    assert set(seg.inputs) == {"cam", "seed"}
    seed = json.loads((run / "seed" / "classes.json").read_text())["settings"]
    masks = json.loads((run / "masks" / "classes.json").read_text())["settings"]
    assert (seed["method"], seed["background"]) == ("cam", 0.3)
    assert (masks["method"], masks["protocol"]) == ("supervised", "decoder")
    assert len({seed["sha256"], masks["sha256"]}) == 2
    assert load_recipe(str(run / "recipe.yaml")).plain() == recipe().plain()


def test_masks_of_a_stage_are_those_of_its_network_with_the_true_tags(finished):
    run, _ = finished
    seed = stage_recipe(recipe(), "seed")
    segmenter = Segmenter.load(
        run / "cam", configure=lambda trained: trained.model_copy(update={"predict": seed.predict})
    )
    source = plugins.load("data", "synthetic")(seed.data, "train")
    expected = segmenter.segment(source[3].image, source[3].tags).mask
    with PILImage.open(run / "seed" / f"{source.names[3]}.png") as mask:
        np.testing.assert_array_equal(np.array(mask), expected)


def test_finished_stages_are_skipped_and_unchanged(run):
    before = read_files(run)
    assert resume(run) == SKIPPED
    assert read_files(run) == before


def test_the_lock_of_a_process_that_was_killed_as_its_stage_ended_is_removed(run):
    dead = own_name()._replace(started=1)
    for name in ("cam", "seed"):
        (run / name / ".lock").write_text(json.dumps({"process": str(dead), "launch": ""}))
    assert resume(run) == SKIPPED
    assert not list(run.rglob(".lock"))


def test_only_missing_outputs_are_made_again_and_they_are_the_same(run):
    before = read_files(run)
    (run / "seed" / "train_000002.png").unlink()
    (run / "score" / "scores.json").unlink()
    lines = resume(run)
    assert f"1 masks written to {run / 'seed'}" in lines
    assert [line for line in lines if line.endswith("skipped")] == [SKIPPED[n] for n in (0, 2, 3)]
    after = read_files(run)
    for name in ("seed/train_000002.png", "masks/train_000002.png"):
        assert after[name] == before[name]
    assert (
        json.loads(after["score/scores.json"])["iou"]
        == (json.loads(before["score/scores.json"])["iou"])
    )


def test_an_unreadable_image_needs_no_mask(run):
    (run / "masks" / "train_000002.png").unlink()
    (run / "masks" / "skipped.json").write_text('["train_000002"]')
    assert resume(run, stage="masks") == [SKIPPED[3]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("stages.seg.optim.steps=4", r"seg: cannot .* another recipe: optim\.steps was 2, now 4"),
        ("optim.lr=1", r"cam: cannot be resumed with another recipe: optim\.lr was "),
        (
            "stages.seed.predict.background=0.5",
            r"seed: contains .* \(background: 0.3 before, 0.5",
        ),
    ],
)
def test_changed_settings_are_rejected_and_change_no_file(run, line, words):
    before = read_files(run / "seg"), read_files(run / "cam"), read_files(run / "seed")
    with pytest.raises(RunError, match=f"^[^\n]*{words}[^\n]*$"):
        resume(run, line)
    assert (read_files(run / "seg"), read_files(run / "cam"), read_files(run / "seed")) == before


def test_rejected_settings_are_not_written_to_the_run(run):
    with pytest.raises(RunError, match="another recipe"):
        resume(run, "stages.seg.optim.steps=4")
    assert stage_recipe(load_recipe(str(run / "recipe.yaml")), "seg").optim.steps == 2


def test_stages_made_from_a_retrained_network_are_rejected(run):
    other = "stages.cam.optim.head_lr=0.1"
    shutil.rmtree(run / "cam")
    with pytest.raises(
        RunError, match=r"seed: contains masks made with different settings \(sha256: "
    ):
        resume(run, other)
    shutil.rmtree(run / "seed")
    with pytest.raises(
        RunError, match=r"seg: was trained from another result of stage 'cam'; remove "
    ):
        resume(run, other)


def test_scores_of_other_masks_are_replaced(run):
    path = run / "score" / "scores.json"
    scores = json.loads(path.read_text())
    scores["settings"]["made_from"]["inputs"]["masks"] = "others"
    path.write_text(json.dumps(scores | {"images": 99}))
    assert resume(run)[-2:] == [
        "stage 5 of 5, score: evaluate",
        f"mIoU {scores['miou']:.4f}, 5 images, classes from tags: {path}",
    ]


def test_a_network_starts_from_the_weights_of_the_stage_it_names(run, monkeypatch):
    given = []
    monkeypatch.setattr(CAM, "setup", lambda self, earlier: given.append(earlier.methods))
    shutil.rmtree(run / "seg")
    line = "stages.seg.method.name=cam stages.seg.optim.head_lr=0.0001"
    resume(run, line, stage="seg")
    weights, _ = read_weights(run / "cam" / "weights" / "best.safetensors")
    (network,) = (methods["cam"] for methods in given if methods)
    torch.testing.assert_close(dict(network.state_dict()), weights, rtol=0, atol=0)
    given.clear()
    Segmenter.load(run / "seg")
    assert [set(methods) for methods in given] == [set(), {"cam"}]


def test_another_method_can_label_with_the_weights_of_a_network(run):
    shutil.rmtree(run / "seed")
    line = "stages.seed.method.name=advcam stages.seed.method.pooling=gap"
    resume(run, f"{line} stages.seed.method.iterations=1", stage="seed")
    described = json.loads((run / "seed" / "classes.json").read_text())["settings"]
    assert (described["method"], described["labeling"]["iterations"]) == ("advcam", 1)
    with pytest.raises(RunError, match="contains masks made with different settings"):
        resume(run, f"{line} stages.seed.method.iterations=2", stage="seed")


def test_a_trained_network_is_scored_on_the_held_out_images(finished, tmp_path):
    raw = {**RAW, "stages": {**RAW["stages"], "score": {"run": "evaluate", "from": "cam"}}}
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    shutil.rmtree(run / "score")
    pipeline.train(apply_overrides(raw, {}, "r"), run, stage="score")
    scores = json.loads((run / "score" / "scores.json").read_text())
    assert (scores["images"], scores["class_source"]) == (2, "classifier")


def test_a_trained_network_is_scored_with_the_true_tags_at_the_best_threshold(finished, tmp_path):
    thresholds = [0.1, 0.3, 0.5, 0.7, 0.9]
    score = {"run": "evaluate", "from": "cam", "class_source": "tags", "thresholds": thresholds}
    raw = {**RAW, "stages": {**RAW["stages"], "score": score}}
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    shutil.rmtree(run / "score")
    pipeline.train(apply_overrides(raw, {}, "r"), run, stage="score")
    scores = json.loads((run / "score" / "scores.json").read_text())
    assert (scores["images"], scores["class_source"]) == (2, "tags")

    cam = stage_recipe(recipe(), "cam")
    source = plugins.load("data", "synthetic")(cam.data, "val")
    by_hand = {}
    for background in thresholds:
        predict = cam.predict.model_copy(update={"background": background, "refine": False})
        segmenter = Segmenter.load(
            run / "cam", configure=lambda one, new=predict: one.model_copy(update={"predict": new})
        )
        matrix = ConfusionMatrix(len(source.class_names) + 1)
        for sample in (source[0], source[1]):
            matrix.update(sample.mask, segmenter.segment(sample.image, sample.tags).mask)
        by_hand[str(background)] = matrix.miou()
    assert scores["settings"]["thresholds"] == pytest.approx(by_hand)
    assert len(set(by_hand.values())) > 1
    assert scores["miou"] == pytest.approx(max(by_hand.values()))
    assert by_hand[str(scores["settings"]["background"])] == max(by_hand.values())


def test_a_threshold_can_be_chosen_on_other_images(finished, tmp_path, monkeypatch):
    score = {"run": "evaluate", "from": "cam", "thresholds": [0.2, 0.8]}
    raw = {**RAW, "stages": {**RAW["stages"], "score": score | {"thresholds_from": "others"}}}
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    shutil.rmtree(run / "score")
    changed = apply_overrides(raw, {}, "r")
    with pytest.raises(RecipeError, match=r"stages\.score\.thresholds_from: .* has no lists"):
        pipeline.train(changed, run, stage="score")
    asked = []

    def other_images(state, name, val_split):
        asked.append((name, val_split))
        return state.source(name, "train")

    def best_on(segmenter, source, class_source, thresholds):
        sweep = sweep_source(segmenter, source, class_source, thresholds)
        if len(source) == 5:  # the other images prefer the higher threshold
            monkeypatch.setattr(sweep, "best", lambda: (0.8, 1.0))
        else:
            monkeypatch.setattr(sweep, "best", lambda: (0.2, 1.0))
        return sweep

    monkeypatch.setattr(pipeline.StageState, "list_source", other_images)
    monkeypatch.setattr(pipeline, "sweep_source", best_on)
    pipeline.train(changed, run, stage="score")
    scores = json.loads((run / "score" / "scores.json").read_text())
    assert asked == [("score", "others")]
    assert (scores["settings"]["background"], scores["images"]) == (0.8, 2)


def test_masks_with_a_background_of_their_own_have_no_threshold(finished, tmp_path):
    score = {"run": "evaluate", "from": "seg", "thresholds": [0.2, 0.8]}
    raw = {**RAW, "stages": {**RAW["stages"], "score": score}}
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    shutil.rmtree(run / "score")
    with pytest.raises(RecipeError, match="these masks need no threshold"):
        pipeline.train(apply_overrides(raw, {}, "r"), run, stage="score")


def test_every_stage_records_its_seconds(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    seconds = {
        name: json.loads((run / name / "metrics.json").read_text())["seconds"] for name in STAGES
    }
    assert all(value > 0 for value in seconds.values())
    (run / "seed" / "train_000002.png").unlink()
    (run / "score" / "scores.json").unlink()
    resume(run)
    again = {
        name: json.loads((run / name / "metrics.json").read_text())["seconds"] for name in STAGES
    }
    assert again["seed"] > seconds["seed"]  # one more mask
    assert again["score"] != seconds["score"]  # scored again from the start
    assert (again["cam"], again["masks"]) == (seconds["cam"], seconds["masks"])


def test_a_network_is_read_as_the_label_stage_it_comes_from_reads_it(finished, tmp_path):
    """AdvCAM + IRN: the frozen classifier of IRN ascends, in labels and in the walk."""
    method = {"name": "advcam", "pooling": "gap", "iterations": 3, "step_size": 0.5}
    confident = {"name": "irn", "foreground_threshold": 0.5, "background_threshold": 0.2}
    stages = {
        "cam": {"run": "train"},
        "adv": {
            "run": "label",
            "from": "cam",
            "method": method,
            "predict": {"confident": confident},
        },
        "irn": {"run": "train", "from": "adv", "labels": "adv", "method": {"name": "irn"}},
        "walk": {"run": "label", "from": "irn", "predict": {"propagate": True}},
    }
    run = tmp_path / "run"
    pipeline.train(apply_overrides({**RAW, "stages": stages}, {}, "r"), run)
    assert len(list((run / "walk").glob("*.png"))) == 5
    segmenter = Segmenter.load(run / "irn")
    frozen = segmenter.method.classifier.method
    assert isinstance(frozen, AdvCAM)
    assert frozen.config.iterations == 3
    weights, _ = read_weights(run / "cam" / "weights" / "best.safetensors")
    torch.testing.assert_close(dict(frozen.state_dict()), weights, rtol=0, atol=0)
    assert segmenter.method.works_while_labeling
    source = plugins.load("data", "synthetic")(segmenter.recipe.data, "train")
    image, tags = source[0].image, source[0].tags
    without_tags, with_tags = (segmenter.run_network(image, one).cam for one in (0 * tags, tags))
    assert not torch.allclose(without_tags, with_tags, atol=1e-4)


def test_one_stage_runs_alone_after_the_stages_it_needs(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"^\S*cam: stage 'cam' is not finished; first run tag2mask"):
        resume(run, stage="seg")
    assert resume(run, stage="cam") == ["stage 1 of 5, cam: train"]
    with pytest.raises(RunError, match=r"^\S*seed: stage 'seed' is not finished; .*--stage seed$"):
        resume(run, stage="seg")
    assert not (run / "seed").exists()
    assert len(resume(run, stage="seed")) == 2
    assert resume(run, stage="seg") == ["stage 3 of 5, seg: train"]
    assert not (run / "masks").exists()


def test_an_unknown_stage_is_rejected_with_a_hint(tmp_path):
    with pytest.raises(RecipeError, match=r"unknown stage 'sed'\. Did you mean 'seed'\? Known: "):
        resume(tmp_path / "run", stage="sed")
    single = apply_overrides({**RAW, "stages": {}}, {}, "r")
    with pytest.raises(RecipeError, match="--stage cam: this recipe has no stages"):
        pipeline.train(single, tmp_path / "run", stage="cam")


def test_folders_without_a_run_with_stages_are_rejected_and_unchanged(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and contains no run"):
        resume(tmp_path)
    with pytest.raises(RunError, match="is a file"):
        resume(tmp_path / "precious.txt")
    with pytest.raises(RunError, match="contains no run to resume"):
        pipeline.train(recipe(), tmp_path / "none", resume=True)
    (tmp_path / "recipe.yaml").write_text(stage_recipe(recipe(), "cam").to_yaml())
    with pytest.raises(RunError, match="contains a run without stages"):
        resume(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_recipe_without_stages_is_passed_to_the_trainer(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        pipeline.trainer, "train", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    single = stage_recipe(recipe(), "cam")
    pipeline.train(single, tmp_path / "run", resume=True, command="line")
    options = {"resume": True, "command": "line", "on_step": None}
    assert calls == [((single, tmp_path / "run"), options)]


def test_other_processes_wait_for_the_masks_of_the_first_one(run, monkeypatch):
    mask = run / "masks" / "train_000002.png"
    data = mask.read_bytes()
    mask.unlink()
    (run / "score" / "scores.json").unlink()
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            mask.write_bytes(data)

    monkeypatch.setattr(pipeline.time, "sleep", sleep)
    monkeypatch.setenv("RANK", "1")
    assert resume(run) == []
    assert waited == [pipeline.POLL_SECONDS] * 2
    assert not (run / "score" / "scores.json").exists()
