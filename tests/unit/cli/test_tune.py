import json

import pytest

from tag2mask.checkpoint import save_weights
from tag2mask.cli.main import main
from tag2mask.cli.tune import describe
from tag2mask.evaluation.tuning import Comparison
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.masks import save_mask

STALE = {"chosen": 0.99, "trained": None}


@pytest.fixture
def run(segmenter, tmp_path):
    """A run folder with random weights."""
    state = segmenter.method.state_dict()
    save_weights(tmp_path / "run" / "weights" / "last.safetensors", state, segmenter.recipe)
    return tmp_path / "run"


@pytest.fixture
def data(image_folder, source):
    """The painted images with tags, and true masks of three of them."""
    root = image_folder().parent
    tags = ("cat", "cow", "dog", "")
    rows = [f"{name}.png,{tag}" for name, tag in zip(source.names, tags, strict=True)]
    (root / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")
    for index, name in enumerate(source.names[:3]):
        path = root / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_mask(source[index].mask, path)
    return root


def background(run):
    return Segmenter.load(run).config.background_score


def test_the_choice_is_written_beside_the_recipe_and_read_by_everything(run, data, capsys):
    assert main(["tune", str(run), str(data), "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert "nothing written" in dry
    assert "3 true masks" in dry
    assert not (run / "tune.json").exists()
    before = (run / "weights" / "last.safetensors").read_bytes()

    assert main(["tune", str(run), str(data)]) == 0
    shown = capsys.readouterr().out
    assert f"next:    tag2mask label {run} {data} --out MASKS" in shown
    written = json.loads((run / "tune.json").read_text())
    assert written["record"]["by"] == "masks"
    assert written["record"]["images"] == ["lane1/a", "lane1/b", "lane2/a"]
    assert (run / "weights" / "last.safetensors").read_bytes() == before
    chosen = written["chosen"]["predict"]
    loaded = Segmenter.load(run)
    for key, value in chosen.items():
        assert getattr(loaded.recipe.predict, key) == value


def test_a_second_call_starts_from_the_trained_values_and_removal_returns_to_them(
    run, data, capsys
):
    trained = background(run)
    stale = {name: {"predict": {"background": value}} for name, value in STALE.items()}
    (run / "tune.json").write_text(json.dumps(stale))
    assert background(run) == 0.99
    assert main(["tune", str(run), str(data), "--limit", "2"]) == 0
    shown = capsys.readouterr().out
    assert f"background {trained:g}, refiner par" in shown  # what it compares with
    assert background(run) != 0.99
    (run / "tune.json").unlink()
    assert background(run) == trained


def test_without_masks_agreement_decides_and_says_that_it_is_weaker(run, data, capsys):
    for path in (data / "masks").rglob("*.png"):
        path.unlink()
    assert main(["tune", str(run), str(data)]) == 0
    assert "no true masks: chosen by agreement on 4 images, which is weaker" in (
        capsys.readouterr().out
    )
    record = json.loads((run / "tune.json").read_text())["record"]
    assert record["by"] == "agreement"


def test_a_missing_run_is_one_line(tmp_path, data, capsys):
    assert main(["tune", str(tmp_path / "nothing"), str(data)]) == 2
    assert "nothing: no such run folder" in capsys.readouterr().err


def test_a_choice_that_does_not_pay_is_explained():
    found = Comparison(
        "masks", "mean IoU", 20, "background 0.45", 0.5, "background 0.3", 0.52, 0.49, (0.3, 0.6),
        adopted=False,
    )  # fmt: skip
    assert describe(found) == [
        "masks: mean IoU, 20 images",
        "  now    0.5000  background 0.45",
        "  best   0.5200  background 0.3",
        "  on images that did not choose: 0.4900 (parts 0.3000 to 0.6000)",
        "  kept: the best does not pay on images that did not choose it",
    ]
