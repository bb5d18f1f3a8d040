import json
import os
import time

import numpy as np
import pytest
from tests.unit.data.coco_file import annotation, document, square, usual

from tag2mask.data.coco_annotations import read_annotations
from tag2mask.errors import DataError


def _read(folder, found):
    path = folder / "instances.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return read_annotations(path)


def test_ids_become_ranks_and_crowds_are_tags(tmp_path):
    found = _read(tmp_path, usual())
    assert found.class_names == ("person", "dog", "toothbrush")
    assert found.file_names[0] == "COCO_train2014_000000000009.jpg"
    assert [found.tags(index) for index in range(3)] == [
        ("person", "dog", "toothbrush"),
        ("person", "dog"),
        (),
    ]
    np.testing.assert_array_equal(found.annotated, [True, True, False])
    np.testing.assert_array_equal(found.sizes, [[6, 8]] * 3)


def test_crowds_are_drawn_on_request(tmp_path):
    found = _read(tmp_path, usual())
    drawn = read_annotations(found.path, with_crowds=True)
    assert found.crowds.any()
    assert not drawn.crowds.any()
    assert (found.mask(1)[:, :2] == 0).all()
    assert (drawn.mask(1)[:, :2] == 2).all()


def test_later_annotations_lie_on_top_and_crowds_have_no_pixels(tmp_path):
    found = _read(tmp_path, usual())
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[:4, :4] = 2
    expected[2:6, 2:6] = 1
    expected[0, 7] = 1
    expected[4:, 5] = 3
    np.testing.assert_array_equal(found.mask(0), expected)
    expected[:] = 0
    expected[:, 5:] = 1
    np.testing.assert_array_equal(found.mask(1), expected)
    assert not found.mask(2).any()


def test_file_order_decides_not_ids(tmp_path):
    one, two = [square(0, 0, 8, 6)], [square(0, 0, 4, 6)]
    notes = [annotation(2, 9, 1, one), annotation(1, 9, 18, two)]
    mask = _read(tmp_path, document(notes)).mask(0)
    assert (mask[0, 0], mask[0, 7]) == (2, 1)


def test_lists_may_stand_in_any_order_and_run_lengths_are_drawn(tmp_path):
    runs = {"counts": "0<T1", "size": [6, 8]}  # 0 outside, 12 inside, 36 outside
    found = document([annotation(1, 9, 90, runs)])
    turned = {name: found[name] for name in ("annotations", "categories", "images")}
    mask = _read(tmp_path, turned).mask(0)
    np.testing.assert_array_equal(mask[0], [3, 3, 0, 0, 0, 0, 0, 0])
    assert mask.sum() == 36


def test_letters_outside_ascii_stay(tmp_path):
    found = document([annotation(1, 9, 1, [square(0, 0, 2, 2)])])
    found["images"][0]["file_name"] = "caf\u00e9.jpg"
    found["categories"][0]["name"] = "Stra\u00dfe"
    path = tmp_path / "a.json"
    path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    read = read_annotations(path)
    assert read.file_names[0] == "caf\u00e9.jpg"
    assert "Stra\u00dfe" in read.class_names
    assert read.mask(0)[0, 0] == 1


def test_boxes_alone_give_tags_but_no_masks(tmp_path):
    found = _read(tmp_path, document([annotation(1, 9, 1, []), annotation(2, 9, 18, None)]))
    assert found.tags(0) == ("person", "dog")
    assert not found.has_shapes
    assert _read(tmp_path, usual()).has_shapes


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path):
    first = _read(tmp_path, usual())
    assert read_annotations(first.path) is first
    os.utime(first.path, ns=(1, 1))
    assert read_annotations(first.path) is not first


def test_masks_outlive_the_file(tmp_path):
    found = _read(tmp_path, usual())
    expected = found.mask(0)
    found.path.unlink()
    np.testing.assert_array_equal(found.mask(0), expected)


def test_polygons_and_crowds_are_kept_in_shared_arrays_only(tmp_path):
    outlines = _read(tmp_path, usual()).outlines
    assert len(outlines.points) == 5 * 8
    assert not outlines.runs  # the crowd's run lengths were checked, nobody asks for its pixels


def test_an_outline_outside_its_image_is_a_tag_without_pixels(tmp_path):
    notes = [
        annotation(7, 9, 1, [square(9, 0, 12, 4)]),
        annotation(8, 9, 18, [square(0, 7, 2, 9)]),
        annotation(9, 9, 90, [square(0, 0, 1, 1), square(9, 9, 12, 12)]),
    ]
    found = _read(tmp_path, document(notes))
    assert found.tags(0) == ("person", "dog", "toothbrush")
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[0, 0] = 3
    np.testing.assert_array_equal(found.mask(0), expected)
    (warning,) = found.warnings
    assert warning.startswith(f"{found.path}: 2 outlines outside the image")
    assert warning.endswith("annotation 7 (image 9), annotation 8 (image 9)")
    assert not _read(tmp_path, usual()).warnings


@pytest.mark.parametrize("far", [81, 1e9, -1e9, 1e300])
def test_an_outline_far_outside_its_image_is_one_outside(tmp_path, far):
    """The image is 8 px wide and 6 px high; nearer coordinates of a polygon do not matter."""
    for polygon in (square(far, 0, far, 6), square(0, far, 8, far)):
        found = _read(tmp_path, document([annotation(7, 9, 18, [polygon])]))
        assert found.tags(0) == ("dog",)
        assert not found.mask(0).any()
        assert "1 outline outside the image" in found.warnings[0]


@pytest.mark.parametrize("number", [None, "7", 2**64, 1.5])
def test_an_annotation_without_usable_id_is_named_by_its_place(tmp_path, number):
    notes = [annotation(1, 9, 1, []), annotation(number, 9, 1, [[1.0]])]
    with pytest.raises(DataError, match=r"annotations\[1\] \(image 9\): a polygon is"):
        _read(tmp_path, document(notes))


def test_a_crowd_outlined_by_a_polygon_has_no_pixels(tmp_path):
    notes = [annotation(1, 9, 18, [square(0, 0, 8, 6)], crowd=1)]
    found = _read(tmp_path, document(notes))
    assert found.tags(0) == ("dog",)
    assert not found.mask(0).any()


def test_the_last_of_many_annotations_lies_on_top(tmp_path):
    """Annotations of two images take turns, as in files sorted by class."""
    notes = [
        annotation(number, (9, 25)[number % 2], (1, 18)[number // 98], [square(0, 0, 8, 6)])
        for number in range(100)
    ]
    found = _read(tmp_path, document(notes))
    for index in range(2):
        assert (found.mask(index) == 2).all()


def test_a_polygon_that_is_too_long_is_named_among_others(tmp_path):
    notes = [
        annotation(1, 9, 1, []),
        annotation(2, 9, 1, [square(0, 0, 1, 1), square(0, 0, 1, 1)]),
        annotation(3, 9, 1, [square(0, 0, 1, 1), [0, 0, 80, 0] * 20_000]),
        annotation(4, 9, 1, [square(0, 0, 1, 1)]),
    ]
    with pytest.raises(DataError, match=r"annotation 3 .*a polygon is longer than 2,000,000 px"):
        _read(tmp_path, document(notes))


def _noted(**changes):
    return document([{**annotation(7, 9, 1, [square(0, 0, 2, 2)]), **changes}])


def _sized(height, width):
    found = document([])
    found["images"][0].update(height=height, width=width)
    return found


def _runs(counts, size=(6, 8)):
    return _noted(segmentation={"counts": counts, "size": list(size)})


A7 = r"annotation 7 \(image 9\): "


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (_noted(segmentation=[[0.0, 0, 4, 0, 4]]), A7 + "a polygon is x, y, .* has 5 numbers"),
        (_noted(segmentation=[[]]), A7 + "a polygon has no numbers"),
        (_noted(segmentation=[[float("nan")] * 6]), A7 + ".*infinite"),
        (_noted(segmentation=[[0, 0, float("inf"), 0, 4, 4]]), A7 + ".*infinite"),
        (_noted(segmentation=[[1e308] * 6]), A7 + ".*infinite"),
        (_noted(segmentation=[[1.7e308, -1.7e308, 1, 1, 2, 2]]), A7 + "coordinate .* far outside"),
        (_noted(segmentation=[[0, 0, 1e9, 0, 0, 4]]), A7 + r"coordinate 1e\+09 is far outside"),
        (_noted(segmentation=[[0, 0, -81, 0, 0, 4]]), A7 + "coordinate -81 is far outside"),
        (_noted(segmentation=[[0, 0, 10**400, 0, 0, 4]]), A7 + "has no polygons"),
        (_noted(segmentation=[["1", "2", "3", "4", "5", "6"]]), A7 + "has no polygons"),
        (_noted(segmentation=[[None] * 6]), A7 + "has no polygons and no run lengths"),
        (_noted(segmentation=[0, 0, 4, 0, 4, 4]), A7 + "has no polygons"),
        (_noted(segmentation="polygon"), A7 + "has no polygons"),
        (_noted(segmentation=[[0, 0, 80, 0] * 20_000]), A7 + "a polygon is longer than 2,000,000"),
        (_runs([24], (4, 6)), A7 + "its run lengths are of 6x4 px, its image has 8x6 px"),
        (_runs([40]), A7 + "run lengths sum to 40, its size 8x6 px"),
        (_runs([20, 10**30]), A7 + "run lengths must be whole numbers from 0 to 48"),
        (_runs([2**32, 48]), A7 + "run lengths must be whole numbers from 0 to 48"),
        (_runs([50, -2]), A7 + "run lengths must be whole numbers"),
        (_runs(["48"]), A7 + "run lengths must be whole numbers"),
        (_runs("~"), A7 + "'~' does not occur in compressed run lengths"),
        (_runs("\u20ac"), A7 + ".* does not occur in compressed"),
        (_noted(segmentation={"size": [6, 8]}), A7 + "has no polygons and no run lengths"),
        (_noted(segmentation={"counts": [48]}), A7 + "has no polygons and no run lengths"),
        (_runs([48], ("6", 8)), A7 + "has no polygons and no run lengths"),
        (_noted(image_id=77), r"1 annotation of an unknown image: annotation 7 \(image 77\)"),
        (_noted(category_id=2), r"unknown category: annotation 7 \(category 2\)"),
        (_noted(image_id="9"), r"image_id must be a 64-bit whole number, not '9'"),
        (_noted(image_id=2**63), r"annotation 7 .*image_id must be a 64-bit whole number, not 92"),
        (_noted(category_id=None), A7 + "category_id must be a 64-bit whole number, not None"),
        (_noted(category_id=True), A7 + "category_id must be .*, not True"),
        (_noted(iscrowd="0"), A7 + "iscrowd must be 0 or 1, not '0'"),
        (_sized(6, 0), r"image 9 .*lacks a height and width"),
        (_sized("6", 8), r"image 9 .*lacks a height and width"),
        (_sized(2**16, 2**16), r"image 9 .*cannot be 65536x65536 px"),
        (_sized(1, 10**30), r"image 9 .*cannot be 10{19}\.\.\.x1 px"),
        (document([], images=((9, 8, 6), (9, 8, 6))), r"two images have the id 9"),
        (document([], images=((2**64, 8, 6),)), r"images\[0\] needs a 64-bit whole number as id"),
        ({**document([]), "categories": []}, r"lists no images, or no categories"),
        ({**document([]), "categories": [{"id": "1", "name": "a"}]}, r"categories\[0\] needs a 64"),
        ({"images": [], "annotations": []}, r"has no list 'categories', so it is not a COCO"),
        ({**document([]), "images": {}}, r"has no list 'images', so it is not a COCO"),
        ({**document([]), "annotations": [3]}, r"annotations\[0\] is not an object"),
        ([], r"is not a JSON object, so it is not a COCO annotation file"),
        ("", r"is cut off or not valid JSON"),
        ("[" * 100_000, r"is not valid JSON \(maximum recursion depth"),
        ('{"images": ' + "1" * 5000 + "}", r"is not valid JSON \(Exceeds the limit"),
    ],
)
def test_problems_are_one_line(tmp_path, found, message):
    with pytest.raises(DataError, match=message) as problem:
        _read(tmp_path, found)
    assert "\n" not in str(problem.value)
    assert str(problem.value).startswith(str(tmp_path / "instances.json"))


def test_corners_on_the_border_or_somewhat_beyond_are_fine(tmp_path):
    mask = _read(tmp_path, document([annotation(7, 9, 1, [square(-1, -1, 9, 7)])])).mask(0)
    assert mask.all()


@pytest.mark.parametrize("end", range(1, len(json.dumps(usual())), 37))
def test_a_file_cut_off_anywhere_is_rejected(tmp_path, end):
    with pytest.raises(DataError, match=r"is cut off or not valid JSON \(.*, character"):
        _read(tmp_path, json.dumps(usual())[:end])


def test_a_file_in_another_encoding_is_rejected(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"images": "caf\xe9"}')
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_annotations(path)
    with pytest.raises(DataError, match=r"b\.json: cannot be read \(No such file"):
        read_annotations(tmp_path / "b.json")


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(usual()), encoding="utf-8-sig")
    assert read_annotations(path).class_names == ("person", "dog", "toothbrush")


def test_a_key_that_occurs_twice_is_rejected(tmp_path):
    text = json.dumps(usual())
    twice = text.replace('"annotations":', '"annotations": [], "annotations":', 1)
    with pytest.raises(DataError, match=r"is not valid JSON .key 'annotations' occurs twice"):
        _read(tmp_path, twice)


def test_the_name_of_a_category_cannot_forge_a_line(tmp_path):
    found = usual()
    found["categories"][0]["name"] = "cat\nerror: forged"
    with pytest.raises(DataError, match=r"category 'cat\\nerror: forged' has a control character"):
        _read(tmp_path, found)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_annotation_file(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DataError, match="is not a regular file"):
        read_annotations(tmp_path / "a.json")


def test_a_hundred_thousand_categories_take_seconds(tmp_path):
    found = usual()
    found["categories"] += [{"id": 10**6 + k, "name": f"c{k}"} for k in range(100_000)]
    start = time.process_time()
    assert len(_read(tmp_path, found).class_names) > 100_000
    assert time.process_time() - start < 10
