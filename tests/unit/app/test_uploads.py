import io

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.app.limits import MIB, Limits
from tag2mask.app.refusals import NotFoundError, RefusedError, TooLargeError
from tag2mask.app.uploads import Uploads, safe_stem


def picture(size=(20, 10), kind="PNG"):
    stream = io.BytesIO()
    PILImage.fromarray(np.zeros((size[1], size[0], 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def uploads(clock):
    kept = Uploads(Limits(uploads=3, image_mpx=1, upload_mib=1), lambda: clock[0])
    yield kept
    kept.close()


def test_an_image_belongs_to_its_visitor_alone(uploads):
    upload = uploads.add("anna", "cow.jpg", picture(kind="JPEG"))
    assert uploads.find("anna", upload.identifier).path.suffix == ".jpg"
    with pytest.raises(NotFoundError):
        uploads.find("ben", upload.identifier)
    with pytest.raises(NotFoundError):
        uploads.remove("ben", upload.identifier)
    assert uploads.of("ben") == []
    assert [one.name for one in uploads.of("anna")] == ["cow"]


def test_equal_names_get_numbers(uploads):
    for _ in range(3):
        uploads.add("anna", "cow.png", picture())
    assert [one.name for one in uploads.of("anna")] == ["cow", "cow_2", "cow_3"]


def test_a_file_name_never_chooses_a_path(uploads):
    upload = uploads.add("anna", "../../../outside.png", picture())
    assert upload.name == "outside"
    assert upload.path.stem == upload.identifier


@pytest.mark.parametrize("name", ["", "..", "/", "\\", ".png", "a" * 500, "\0", "con.", "ä/ö.png"])
def test_every_file_name_becomes_a_safe_one(name):
    safe = safe_stem(name)
    assert 0 < len(safe) <= 80
    assert not set(safe) & set("./\\\0: ")


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (b"", RefusedError, "not an image"),
        (b"<svg/>", RefusedError, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", RefusedError, "not an image"),
        (picture((2000, 1000)), TooLargeError, "2000x1000"),
        (b"\0" * (MIB + 1), TooLargeError, "1 MiB"),
        (picture((300, 300))[:-40], RefusedError, "damaged"),
    ],
)
def test_what_the_page_cannot_show_is_refused_and_not_kept(uploads, content, error, reason):
    with pytest.raises(error, match=reason):
        uploads.add("anna", "x.png", content)
    assert uploads.of("anna") == []
    assert not any(uploads.add("anna", "y.png", picture()).path.parent.glob("*.tmp"))
    assert len(list(uploads.of("anna")[0].path.parent.iterdir())) == 1


def test_only_idle_uploads_make_room(uploads, clock):
    first, *_ = [uploads.add("anna", "a.png", picture()) for _ in range(3)]
    with pytest.raises(TooLargeError, match="at most 3"):
        uploads.add("ben", "b.png", picture())
    clock[0] = 4000.0
    for upload in uploads.of("anna")[1:]:
        uploads.find("anna", upload.identifier)
    uploads.add("ben", "b.png", picture())
    assert not first.path.exists()
    assert len(uploads.of("anna")) == 2


def test_removing_deletes_the_file(uploads):
    upload = uploads.add("anna", "a.png", picture())
    upload.mask_path.write_bytes(b"mask")
    uploads.remove("anna", upload.identifier)
    assert not upload.path.exists()
    assert not upload.mask_path.exists()
    assert uploads.of("anna") == []


def test_closing_deletes_everything():
    uploads = Uploads(Limits())
    folder = uploads.add("anna", "a.png", picture()).path.parent
    uploads.close()
    assert not folder.exists()
