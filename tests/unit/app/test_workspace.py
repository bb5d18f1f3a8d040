import json
import time

import numpy as np
import pytest
from tests.unit.app.test_uploads import picture

from tag2mask.app.messages import DownloadRequest, MaskSettings, SaveRequest
from tag2mask.app.refusals import MaskExistsError, RefusedError
from tag2mask.app.run_lengths import decode_runs, encode_runs
from tag2mask.app.workspace import open_workspace
from tag2mask.config.overrides import apply_overrides
from tag2mask.data.true_masks import open_training_images
from tag2mask.io.masks import save_mask

SIZE = (45, 63)


def drawn(value=2):
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[10:20, 30:] = value
    return mask


def test_the_page_knows_its_run(workspace):
    described = json.loads(json.dumps(workspace.describe()))
    assert described["run"] == "pets"
    assert [one["name"] for one in described["classes"]] == ["cat", "cow", "dog"]
    assert (described["background"], described["refiner"]) == (0.45, "par")
    assert "coco" in [one["name"] for one in described["formats"]]


def test_a_mask_is_made_by_tags_or_classifier(workspace, segmenter, data):
    by_tags = workspace.make_mask("anna", "0", MaskSettings(tags=("cat",)))
    expected = segmenter.label(data / "images" / "lane1" / "a.png", "cat")
    found = decode_runs(by_tags["runs"], (by_tags["height"], by_tags["width"]), 3)
    np.testing.assert_array_equal(found, expected.mask)
    assert by_tags["selected"] == ["cat"]
    assert by_tags["uncertainty"] == pytest.approx(expected.uncertainty.total, abs=1e-4)
    free = workspace.make_mask("anna", "0", MaskSettings(class_threshold=0.0))
    assert free["selected"] == ["cat", "cow", "dog"]
    assert free["class_source"] == "classifier"


def test_a_corrected_mask_is_found_by_training(workspace, recipe, data):
    request = SaveRequest(runs=encode_runs(drawn()))
    saved = workspace.save("anna", "1", request)
    assert saved["where"] == str(data / "masks" / "lane1" / "b.png")
    config = {"data.root": str(data), "data.true_masks": "train", "data.val_fraction": "0"}
    read = apply_overrides(recipe.plain(), config, "test")
    images = open_training_images(read.data, learns_from_masks=False)
    assert [images.source.names[index] for index in images.true_masks] == ["lane1/b"]
    np.testing.assert_array_equal(images.source[images.true_masks[0]].mask, drawn())
    listed = {one["name"]: one["saved"] for one in workspace.list_images("anna")["images"]}
    assert listed == {"lane1/a": False, "lane1/b": True, "lane2/a": False, "none": False}
    again = workspace.saved_mask("anna", "1")
    assert again == {"runs": request.runs, "version": saved["version"], "own": True}
    assert workspace.saved_mask("anna", "0") == {}


def test_a_mask_that_was_there_before_needs_agreement(segmenter, data):
    (data / "masks").mkdir()
    (data / "masks" / "classes.json").write_text('{"classes": ["cat", "cow", "dog"]}', "utf-8")
    save_mask(drawn(1), data / "masks" / "none.png")
    workspace = open_workspace(segmenter, "run", data)
    found = workspace.saved_mask("anna", "3")
    assert (found["runs"], found["own"]) == (encode_runs(drawn(1)), False)
    request = SaveRequest(runs=encode_runs(drawn()), replaces=found["version"])
    with pytest.raises(MaskExistsError):
        workspace.save("anna", "3", request)
    workspace.save("anna", "3", request.model_copy(update={"confirmed": True}))
    assert len(list((data / "masks").glob(".none.before-*.png"))) == 1
    workspace.close()


def test_dropped_images_are_corrected_and_downloaded(workspace, segmenter):
    row = workspace.upload("anna", "my cow.png", picture((63, 45)))
    assert (row["name"], row["uploaded"], row["saved"]) == ("my_cow", True, False)
    runs = encode_runs(drawn())
    workspace.save("anna", row["id"], SaveRequest(runs=runs))
    assert workspace.saved_mask("anna", row["id"]) == {"runs": runs, "version": "", "own": True}
    request = DownloadRequest(format="coco", images=[row["id"], "0"], tags={"0": ("dog",)})
    started = workspace.start_download("anna", request)
    deadline = time.monotonic() + 60
    while workspace.downloads.find("anna", started["id"]).file is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    content = json.loads(workspace.downloads.find("anna", started["id"]).file.read_text("utf-8"))
    assert [one["file_name"] for one in content["images"]] == ["lane1/a.png", "my_cow.png"]
    areas = {(one["image_id"], one["category_id"]): one["area"] for one in content["annotations"]}
    assert areas.pop((2, 2)) == 10 * 33
    tagged = segmenter.label(workspace.catalog.find("anna", "0").path, "dog").mask
    assert areas == {(1, 3): (tagged == 3).sum()}


def test_a_page_without_folder_saves_nothing_on_disk(segmenter):
    workspace = open_workspace(segmenter, "run")
    assert workspace.list_images("anna") == {"images": [], "ranked": 0, "ranking": False}
    assert workspace.describe()["saves_to"] is None
    workspace.close()


def test_options_of_a_folder_need_a_folder(segmenter, tmp_path):
    with pytest.raises(RefusedError, match="--masks and --save"):
        open_workspace(segmenter, "run", save=tmp_path)


def test_closing_deletes_uploads(segmenter):
    workspace = open_workspace(segmenter, "run")
    row = workspace.upload("anna", "a.png", picture())
    path = workspace.catalog.find("anna", row["id"]).path
    workspace.close()
    assert not path.exists()
