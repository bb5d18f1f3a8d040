import json
from pathlib import Path

import pytest

from tag2mask.config.recipe import parse_recipe
from tag2mask.io.mask_folder import append_scores, describe_classes, write_classes
from tag2mask.report.mask_parts import read_masks
from tag2mask.report.quality import Mistake, Quality
from tag2mask.report.run_parts import read_run
from tag2mask.report.sections import DataCounts
from tag2mask.report.summary import (
    main_score,
    next_steps,
    page_title,
    quality_sentences,
    training_sentences,
)

VALUES = {
    "class_names": ["cat", "cow"],
    "iou": [0.9, 0.5, 0.3],
    "miou": 0.567,
    "images": 40,
    "class_source": "tags",
}


def make_quality(**values):
    mistakes = (Mistake("cow", "cat", 0.25),)
    return Quality("hand", VALUES | values, {}, (), (), mistakes, 0, 40)


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "my masks"
    write_classes(folder, describe_classes(("cat", "cow"), "tags", {"background": 0.4}))
    append_scores(folder, {"name": "a", "areas": {"cat": 0.2}, "tags": ["cat"]})
    return read_masks(folder)[0]


def words(sentences) -> str:
    return " ".join(sentences)


def test_title_is_the_folder_of_the_user(run: Path):
    assert page_title(read_run(run)) == "nowhere"  # the root of its data
    parts = {"backbone": {"name": "tiny"}, "method": {"name": "cam"}}
    scenes = parse_recipe({"data": {"name": "synthetic"}, **parts}, "test")
    assert page_title(read_run(run)._replace(recipe=scenes)) == "pets <1>"
    assert page_title(read_run(run)._replace(recipe=None)) == "pets <1>"


def test_first_sentences_say_what_was_trained_on_what(run: Path):
    text = words(training_sentences(read_run(run), DataCounts(images=1200)))
    assert "outline cat, cow from 1,200 tagged images" in text
    assert "Nobody drew masks" in text
    assert "not finished: 100 of 200 steps in 1 h 02 min" in text
    text = words(training_sentences(read_run(run), DataCounts(masked=20, learns_masks=True)))
    assert "also learned from 20 true masks" in text
    assert "Nobody drew" not in text


def test_score_comes_with_its_images_and_class_source(run: Path):
    whole = read_run(run)
    text = words(quality_sentences(whole, main_score(whole), None))
    assert "Compared with 12 true masks" in text
    assert "45.6 % on average (mIoU of train.json; classes from tags)" in text
    assert "Only 12 true masks" in text


def test_best_and_worst_class_and_the_mistake_of_most_pixels_are_named(run: Path):
    quality = make_quality()
    whole = read_run(run)._replace(scores={"the masks on this page": quality.values})
    text = words(quality_sentences(whole, main_score(whole), quality))
    assert "Best class: cat (50.0 %); worst: cow (30.0 %)." in text
    assert "25.0 % of the pixels of cow are called cat" in text


def test_without_true_masks_no_quality_is_made_up(run: Path):
    metrics = {"metric": "mean average precision of the tags", "best": {"step": 9, "score": 0.89}}
    (run / "train.json").unlink()
    (run / "metrics.json").write_text(json.dumps(metrics))
    whole = read_run(run)
    assert main_score(whole) is None
    text = words(quality_sentences(whole, None, None))
    assert "How good the masks are is unknown" in text
    assert "89.0 %); that says what it sees, not where" in text
    assert "overlap" not in text


def test_an_undefined_score_is_no_score(run: Path):
    whole = read_run(run)._replace(scores={"a": VALUES | {"miou": None}, "b": VALUES})
    assert main_score(whole).title == "b"


def test_unfinished_training_comes_first_and_masks_next(run: Path):
    first, second = next_steps(read_run(run), None, None, None)
    assert first.command == f"tag2mask train --resume '{run}'"
    assert second.command == f"tag2mask label '{run}' nowhere --out MASKS"


def test_without_truth_correcting_masks_is_what_to_do(run: Path, masks):
    steps = next_steps(read_run(run), masks, None, None)
    page, tool = (one for one in steps if "orrect" in one.text)
    assert "how good all masks are" in page.text
    assert page.command == f"tag2mask app '{run}' nowhere --masks '{masks.folder}'"
    assert tool.command.startswith(f"tag2mask export '{masks.folder}' --most-uncertain 20")
    assert steps[-1].command == f"tag2mask export '{masks.folder}' --format coco --out masks.json"


def test_a_better_threshold_is_a_reason_to_tune(run: Path, masks):
    steps = next_steps(read_run(run), masks, make_quality(), 0.3)
    assert steps[1].command == f"tag2mask tune '{run}' nowhere"
    assert "0.3" in steps[1].text
    assert not any("how good all masks are" in one.text for one in steps)
