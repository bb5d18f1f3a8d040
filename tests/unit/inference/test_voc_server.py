import tarfile

import numpy as np
import pytest
from PIL import Image
from tests.unit.data.voc_set import write_list, write_voc

import tag2mask
from tag2mask.checkpoint import save_weights
from tag2mask.config.recipe import parse_recipe
from tag2mask.data.voc import VOC_CLASSES
from tag2mask.errors import DataError, RunError
from tag2mask.inference.voc_server import SERVER_FOLDER, reject_other_classes, server_images
from tag2mask.methods.build import build_method


@pytest.fixture
def voc(tmp_path):
    """A VOC folder whose list `test` has two images, one of another size, without annotations."""
    root = write_voc(tmp_path / "VOC2012")
    for name, size in {"2008_000001": (45, 33), "2008_000002": (6, 4)}.items():
        Image.new("RGB", size, (90, 20, 60)).save(root / "JPEGImages" / f"{name}.jpg")
    write_list(root / "ImageSets" / "Segmentation" / "test.txt", ["2008_000002", "2008_000001"])
    return root


@pytest.fixture
def trained(tmp_path):
    """Write a run of VOC's 20 classes."""

    def write(classes=VOC_CLASSES):
        raw = {
            "data": {"name": "voc", "classes": list(classes)},
            "backbone": {"name": "tiny"},
            "method": {"name": "cam"},
        }
        recipe = parse_recipe(raw, "test")
        path = tmp_path / "run" / "weights" / "best.safetensors"
        save_weights(path, build_method(recipe).state_dict(), recipe)
        return tmp_path / "run"

    return write


def test_images_are_those_of_the_list_in_its_order(voc):
    names = ["2008_000002", "2008_000001"]
    assert server_images([voc], "test") == [voc / "JPEGImages" / f"{name}.jpg" for name in names]
    assert server_images([voc.parent], "test") == server_images([voc], "test")


def test_an_incomplete_folder_is_rejected(voc):
    (voc / "JPEGImages" / "2008_000001.jpg").unlink()
    with pytest.raises(DataError, match=r"1 image of test missing: 2008_000001\.jpg; the server"):
        server_images([voc], "test")
    with pytest.raises(DataError, match=r"give one folder in VOC layout, not 2"):
        server_images([voc, voc], "test")
    with pytest.raises(DataError, match="no such list"):
        server_images([voc], "tset")


def test_only_the_classes_of_voc_in_their_order_are_accepted():
    reject_other_classes(list(VOC_CLASSES))
    for classes, words in {
        VOC_CLASSES[:-1]: r"this one has 19\.$",
        VOC_CLASSES[::-1]: r"in alphabetical order, this one has 20\.$",
        ("cat", "hrose"): r"this one has 2\. 'hrose' is none\. Did you mean 'horse'",
    }.items():
        with pytest.raises(RunError, match=words):
            reject_other_classes(classes)


def test_the_folder_results_is_what_the_server_expects(voc, trained, tmp_path):
    out = tmp_path / "out"
    summary = tag2mask.predict(trained(), [voc], out, voc_server="test")
    assert summary.written == 2
    with tarfile.open(tmp_path / "results.tgz", "w:gz") as archive:
        archive.add(out / "results", "results")
    with tarfile.open(tmp_path / "results.tgz") as archive:
        files = sorted(member.name for member in archive.getmembers() if member.isfile())
    assert files == [
        "results/VOC2012/Segmentation/comp5_test_cls/2008_000001.png",
        "results/VOC2012/Segmentation/comp5_test_cls/2008_000002.png",
    ]
    for name, size in {"2008_000001": (45, 33), "2008_000002": (6, 4)}.items():
        with Image.open(out / SERVER_FOLDER / f"{name}.png") as picture:
            assert (picture.mode, picture.size) == ("P", size)
            assert np.asarray(picture).max() <= 20
            assert picture.getpalette()[3:6] == [128, 0, 0]
    assert (out / "classes.json").is_file()


def test_a_second_call_fills_gaps_and_another_list_is_rejected(voc, trained, tmp_path):
    run, out = trained(), tmp_path / "out"
    tag2mask.predict(run, [voc], out, voc_server="test")
    (out / SERVER_FOLDER / "2008_000001.png").unlink()
    summary = tag2mask.predict(run, [voc], out, voc_server="test")
    assert (summary.written, summary.already) == (1, 1)
    with pytest.raises(RunError, match=r"different settings \(split: test before, val now\)"):
        tag2mask.predict(run, [voc], out, voc_server="val")


def test_an_unreadable_image_and_a_run_of_other_classes_are_errors(voc, trained, tmp_path):
    (voc / "JPEGImages" / "2008_000001.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"2008_000001\.jpg"):
        tag2mask.predict(trained(), [voc], tmp_path / "out", voc_server="test")
    with pytest.raises(RunError, match="needs a run with VOC's 20 classes"):
        tag2mask.predict(trained(("cat",)), [voc], tmp_path / "new", voc_server="test")
    assert not (tmp_path / "new").exists()
