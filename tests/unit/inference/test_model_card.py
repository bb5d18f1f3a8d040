import json

import yaml
from tests.conformance.stand_ins import small_recipe

from tag2mask.inference.model_card import Facts, model_card, read_facts

SCORE = {
    "class_names": ["blob", "ring", "stripe"],
    "iou": [0.9, 0.5, None, 0.25],
    "miou": 0.55,
    "images": 40,
    "class_source": "tags",
}


def header(card):
    return yaml.safe_load(card.split("---")[1])


def test_scores_name_the_source_of_their_classes():
    card = model_card(small_recipe("cam"), Facts("Apache-2.0", {"devval.json": SCORE}, {}))
    assert "**devval.json**: 40 images, classes from the true tags" in card
    assert "| ring | - |" in card
    assert "| **mean** | **55.0 %** |" in card
    (result,) = header(card)["model-index"][0]["results"]
    assert result["dataset"]["name"] == "devval.json: classes from tags"
    assert result["metrics"][0]["value"] == 0.55


def test_without_scores_the_card_says_so():
    card = model_card(small_recipe("cam"), Facts("unknown: see the source", {}, {}))
    assert "None were computed: no true masks" in card
    assert "**unknown: see the source**" in card
    assert "model-index" not in header(card)
    assert header(card)["library_name"] == "tag2mask"


def test_facts_come_from_the_run_folder(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps(SCORE))
    history = [{"step": 5, "score": 0.1, "detail": {**SCORE, "miou": 0.1}}]
    history.append({"step": 9, "score": 0.6, "detail": SCORE | {"class_source": "classifier"}})
    (tmp_path / "metrics.json").write_text(json.dumps({"best": {"step": 9}, "history": history}))
    start = {
        "event": "start",
        "command": "tag2mask train rml/a data.root=/home/me/cows --out /tmp/r",
    }
    (tmp_path / "log.jsonl").write_text(f"torn\n{json.dumps(start)}\n")
    facts = read_facts({"run": str(tmp_path), "sha256": "abc"}, "MIT")
    assert {title: score["class_source"] for title, score in facts.scores.items()} == {
        "scores.json": "tags",
        "held-out images during training": "classifier",
    }
    card = model_card(small_recipe("cam"), facts)
    assert "`tag2mask train rml/a data.root=cows --out r`" in card
    assert "/home/me" not in card


def test_a_hub_model_has_no_run_folder():
    assert read_facts({"run": "org/name", "sha256": "abc"}, "MIT") == Facts("MIT", {}, {})


def test_a_model_without_background_lists_none():
    recipe = small_recipe("cam")
    predict = recipe.predict.model_copy(update={"has_background": False})
    card = model_card(recipe.model_copy(update={"predict": predict}), Facts("none", {}, {}))
    assert "0. background" not in card
    assert "everything else is background" not in card
    assert "each pixel gets one of them" in card
