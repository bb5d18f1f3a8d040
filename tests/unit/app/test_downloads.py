import time
import zipfile

import numpy as np
import pytest

from tag2mask.app.downloads import Downloads, FinishedMask, ImageToExport, export_formats
from tag2mask.app.limits import Limits
from tag2mask.app.refusals import NotFoundError, RefusedError, TooLargeError
from tag2mask.errors import DataError
from tag2mask.formats.coco import COCO

CLASSES = ("cat", "dog")
MASK = np.array([[0, 1, 1], [0, 2, 2]], dtype=np.uint8)


@pytest.fixture
def downloads():
    made = Downloads(CLASSES, Limits(download_images=3, downloads=2))
    yield made
    made.close()


@pytest.fixture
def image(tmp_path):
    from PIL import Image as PILImage

    path = tmp_path / "u01.png"
    PILImage.fromarray(np.zeros((2, 3, 3), dtype=np.uint8)).save(path)
    return ImageToExport("lane1/cow.v2", path, lambda: FinishedMask(MASK, {"cat": 0.9}, 0.5))


def wait(downloads, download):
    deadline = time.monotonic() + 60
    while download.file is None and download.error is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return downloads.find("anna", download.identifier)


def test_a_file_is_read_back_by_its_format(downloads, image):
    done = wait(downloads, downloads.start("anna", "coco", [image]))
    assert (done.done, done.total, done.error) == (1, 1, None)
    read = COCO().read(done.file)
    (found,) = read.masks
    assert read.class_names == CLASSES
    assert found.name == "lane1/cow.v2"
    np.testing.assert_array_equal(found.mask, MASK)


@pytest.mark.parametrize("name", sorted(export_formats()))
def test_every_format_gives_one_file(downloads, image, name):
    done = wait(downloads, downloads.start("anna", name, [image]))
    if done.error is not None and "needs an extra" in done.error:
        pytest.skip(done.error)
    assert done.error is None
    assert done.file.stat().st_size > 0


def test_a_folder_is_packed_with_its_images(downloads, image):
    done = wait(downloads, downloads.start("anna", "yolo_seg", [image]))
    with zipfile.ZipFile(done.file) as packed:
        names = packed.namelist()
        assert any(name.endswith("cow.v2.png") for name in names)
        assert not any("tag2mask-download" in name for name in names)


def test_a_failure_is_named_and_harms_no_other(downloads, image):
    def fail():
        raise DataError("a.png: damaged")

    failed = wait(downloads, downloads.start("anna", "coco", [image._replace(finish=fail)]))
    assert failed.error == "a.png: damaged"
    assert wait(downloads, downloads.start("anna", "coco", [image])).file is not None


def test_old_files_are_deleted(downloads, image):
    first = wait(downloads, downloads.start("anna", "coco", [image]))
    for _ in range(2):
        wait(downloads, downloads.start("anna", "coco", [image]))
    assert not first.file.exists()
    with pytest.raises(NotFoundError):
        downloads.find("anna", first.identifier)


def test_a_download_belongs_to_its_visitor(downloads, image):
    download = downloads.start("anna", "coco", [image])
    with pytest.raises(NotFoundError):
        downloads.find("ben", download.identifier)


@pytest.mark.parametrize(
    ("name", "count", "error", "reason"),
    [
        ("onnx", 1, RefusedError, "unknown format 'onnx'"),
        ("../coco", 1, RefusedError, "unknown format"),
        ("coco", 0, RefusedError, "no image"),
        ("coco", 4, TooLargeError, "at most 3"),
    ],
)
def test_what_cannot_be_exported_is_refused(downloads, image, name, count, error, reason):
    with pytest.raises(error, match=reason):
        downloads.start("anna", name, [image] * count)
