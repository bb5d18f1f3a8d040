import shutil
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import yaml
from tests.conformance.stand_ins import SMALL_HYBRID, small_method, small_recipe

import tag2mask
from tag2mask.checkpoint import save_weights
from tag2mask.errors import RunError, WeightsError
from tag2mask.formats.models.metadata import model_metadata
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.tuned import write_tuned


@pytest.fixture
def segmenter():
    recipe = small_recipe("cam")
    recipe = recipe.model_copy(
        update={"predict": recipe.predict.model_copy(update={"fallback": True})}
    )
    found = Segmenter(small_method("cam"), recipe, "cpu")
    found.method.backbone.weights_license = "Apache-2.0"
    return found


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def test_a_saved_segmenter_gives_equal_masks(segmenter, image, tmp_path):
    folder = segmenter.save_pretrained(tmp_path / "model")
    loaded = tag2mask.Segmenter.from_pretrained(folder, device="cpu")
    expected, found = segmenter.predict(image), loaded.predict(image)
    assert np.array_equal(found.mask, expected.mask)
    assert found.scores == expected.scores
    assert loaded.method.backbone.weights_license == "Apache-2.0"


def test_the_choice_of_tune_is_saved_and_named(segmenter, image, tmp_path):
    run, recipe = tmp_path / "run", segmenter.recipe
    save_weights(run / "weights" / "best.safetensors", segmenter.method.state_dict(), recipe)
    (run / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    chosen = {"background": 0.2, "background_rule": "fixed", "class_threshold": 0.85}
    record = {"by": "masks", "images": ["a", "b", "c"]}
    write_tuned(run, recipe, {"predict": chosen}, record)
    tuned = Segmenter.load(run, device="cpu")
    folder = tuned.save_pretrained(tmp_path / "model")
    loaded = Segmenter.load(folder, device="cpu")
    assert (loaded.config.background_score, loaded.config.class_threshold) == (0.2, 0.85)
    assert np.array_equal(loaded.predict(image).mask, tuned.predict(image).mask)
    assert model_metadata(loaded)["class_threshold"] == "0.85"
    assert model_metadata(loaded)["background"] == "0.2"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "- Background score: 0.2\n- Class threshold: 0.85\n" in card
    assert "by `tag2mask tune` on 3 images, by their true masks" in card


def test_no_path_of_this_machine_is_saved(tmp_path):
    recipe = small_recipe("cam", backbone=SMALL_HYBRID)
    data = recipe.data.model_copy(update={"labels": "/home/me/secret"})
    folder = Segmenter(small_method("cam"), recipe.model_copy(update={"data": data}), "cpu")
    saved = folder.save_pretrained(tmp_path / "model")
    assert yaml.safe_load((saved / "recipe.yaml").read_text())["data"]["labels"] is None
    for path in saved.rglob("*.*"):
        assert b"secret" not in path.read_bytes()


def test_a_used_folder_is_rejected(segmenter, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(RunError, match="not empty"):
        segmenter.save_pretrained(tmp_path)


def test_a_pushed_model_is_loaded_by_its_name(segmenter, image, tmp_path, monkeypatch):
    hub = tmp_path / "hub"

    def create_repo(api, repo_id, **options):
        assert options == {"private": True, "exist_ok": True}
        hub.mkdir()

    def upload_folder(api, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, hub / repo_id)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(hub / name))
    address = segmenter.push_to_hub("org/shapes", private=True)
    assert address == "https://huggingface.co/org/shapes/commit/1"
    assert (hub / "org/shapes/README.md").is_file()
    loaded = Segmenter.from_pretrained("org/shapes", device="cpu")
    assert np.array_equal(loaded.predict(image).mask, segmenter.predict(image).mask)


def test_a_refusal_of_the_hub_is_one_line(segmenter, monkeypatch):
    def refuse(*_, **__):
        raise OSError("401 Client Error\nlong text")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(WeightsError, match=r"did not accept the model \(401 Client Error\)"):
        segmenter.push_to_hub("org/shapes")
