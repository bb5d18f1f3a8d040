import json
import os

import numpy as np
import pytest
from tests.unit.data.coco_file import annotation, document, square, usual

from tag2mask.data.instances import read_instances
from tag2mask.errors import DataError


def _read(folder, found):
    path = folder / "instances.json"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return read_instances(path)


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


def test_lists_may_stand_in_any_order_and_run_lengths_are_painted(tmp_path):
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
    read = read_instances(path)
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
    assert read_instances(first.path) is first
    os.utime(first.path, ns=(1, 1))
    assert read_instances(first.path) is not first
    first.path.write_text("[]")
    with pytest.raises(DataError, match="changed while it was in use"):
        first.mask(0)


ODD = [annotation(7, 9, 1, [[0.0, 0.0, 4.0, 0.0, 4.0]])]
OUTSIDE = [annotation(7, 9, 1, [square(9, 0, 12, 4)]), annotation(8, 9, 1, [square(0, 7, 2, 9)])]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (document(ODD), r"annotation 7 \(image 9\): a polygon is x, y, .* one has 5 numbers"),
        (document(OUTSIDE), r"annotation 7 .*outside its image of 8x6 px .*; 1 more"),
        (
            document([annotation(7, 77, 1, [])]),
            r"unknown image: annotation 7 \(image 77",
        ),
        (document([annotation(7, 9, 2, [])]), r"unknown category: annotation 7 \(category 2\)"),
        (
            document([annotation(7, 9, 1, {"counts": [24], "size": [4, 6]})]),
            r"annotation 7 .*run lengths are of 6x4 px, its image has 8x6 px",
        ),
        (
            document([annotation(7, 9, 1, {"counts": [40], "size": [6, 8]})]),
            r"annotation 7 .*run lengths sum to 40, its size 8x6 px",
        ),
        (document([annotation(7, 9, 1, {"counts": "~", "size": [6, 8]})]), r"does not occur in"),
        (document([annotation(7, 9, 1, {"size": [6, 8]})]), r"no polygons and no run lengths"),
        (document([annotation(7, 9, 1, [[None] * 6])]), r"no polygons and no run lengths"),
        (document([annotation(7, 9, 1, [[float("nan")] * 6])]), r"infinite"),
        (document([annotation(7, "9", 1, [])]), r"lacks image_id or category_id"),
        (document([], images=((9, 8, 0),)), r"image 9 .*lacks a height and width"),
        (document([], images=((9, 8, 6), (9, 8, 6))), r"two images have the id 9"),
        ({**document([]), "categories": []}, r"lists no images, or no categories"),
        ({"images": [], "annotations": []}, r"has no list 'categories', so it is no COCO"),
        ({**document([]), "annotations": [3]}, r"a member of 'annotations' is no object"),
        ([], r"is cut off or no readable JSON"),
        (json.dumps(usual())[:-400], r"is cut off or no readable JSON .*byte 908 of 1,061\)"),
    ],
)
def test_problems_are_one_line(tmp_path, found, told):
    with pytest.raises(DataError, match=told) as problem:
        _read(tmp_path, found)
    assert "\n" not in str(problem.value)
    assert str(problem.value).startswith(str(tmp_path / "instances.json"))


def test_corners_on_the_border_or_somewhat_beyond_are_fine(tmp_path):
    mask = _read(tmp_path, document([annotation(7, 9, 1, [square(-1, -1, 9, 7)])])).mask(0)
    assert mask.all()
