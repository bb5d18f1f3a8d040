import json

import numpy as np
import pytest

from tag2mask.data.tags import (
    annotation_tags,
    folder_tags,
    image_key,
    name_some,
    read_tags,
    reject_empty_classes,
    resolve_classes,
    tag_matrix,
)
from tag2mask.errors import DataError


def _csv(folder, text, encoding="utf-8"):
    path = folder / "tags.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_is_read_with_or_without_mark_and_carriage_returns(tmp_path, encoding, line_end):
    lines = ["image,tags", "a.jpg,cat;dog", "é b.png, Katze ; ;Katze", "", "n.jpg,"]
    found = read_tags(_csv(tmp_path, line_end.join(lines), encoding))
    assert found == {"a.jpg": ("cat", "dog"), "é b.png": ("Katze",), "n.jpg": ()}


def test_csv_columns_are_found_by_name_and_quotes_are_honoured(tmp_path):
    path = _csv(tmp_path, 'id,Tags,Image\n1,"red, ripe;x","a,b.jpg"\n')
    assert read_tags(path) == {"a,b.jpg": ("red, ripe", "x")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header must be"),
        ("a.jpg,cat\n", "line 1: the header must be"),
        ("image;tags\na.jpg;cat\n", "columns separated by commas"),
        ("image,tags\na.jpg,cat,dog\n", "line 2: 3 columns"),
        ("image,tags\n\na.jpg\n", "line 3: 1 columns"),
        ("image,tags\n,cat\n", "line 2: names no image"),
        ("image,tags\na.jpg,cat\nb.jpg,\na.jpg,dog\n", "line 4: 'a.jpg' has a row already"),
        ('image,tags\n"a.jpg,cat\n', "is no readable CSV"),
    ],
)
def test_faulty_csv_is_rejected_with_file_and_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as problem:
        read_tags(_csv(tmp_path, text))
    assert "tags.csv" in str(problem.value)
    assert "\n" not in str(problem.value)


def test_missing_or_foreign_tag_files_are_rejected(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        read_tags(tmp_path / "no.csv")
    with pytest.raises(DataError, match="not UTF-8"):
        read_tags(_csv(tmp_path, "image,tags\né.jpg,cat\n", "latin-1"))
    with pytest.raises(DataError, match=r"\.csv or \.jsonl"):
        read_tags(tmp_path / "tags.xlsx")


def test_json_lines_are_read(tmp_path):
    path = tmp_path / "tags.jsonl"
    rows = [{"image": "a.jpg", "tags": ["cat", "cat"], "by": "me"}, {"image": "n.jpg", "tags": []}]
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8-sig")
    assert read_tags(path) == {"a.jpg": ("cat",), "n.jpg": ()}


@pytest.mark.parametrize(
    "line",
    [
        '{"image": "a.jpg"',
        '{"image": "a.jpg"}',
        '{"image": "a.jpg", "tags": "cat"}',
        '{"image": 7, "tags": []}',
        '["a.jpg"]',
        '{"image": "ok.jpg", "tags": []}',
    ],
)
def test_faulty_json_line_is_rejected_by_number(tmp_path, line):
    path = tmp_path / "tags.jsonl"
    path.write_text('{"image": "ok.jpg", "tags": []}\n' + line)
    with pytest.raises(DataError, match=r"tags\.jsonl: line 2"):
        read_tags(path)


def test_names_written_on_other_systems_are_the_same_name():
    assert image_key("lane1\\e\u0301.jpg ") == image_key("./lane1/\u00e9.jpg") == "lane1/\u00e9.jpg"


def test_class_folders_are_tags():
    found = folder_tags(["cat/a.jpg", "cat;dog/deep/b.jpg", "_negative/c.jpg"])
    assert found == {
        "cat/a.jpg": ("cat",),
        "cat;dog/deep/b.jpg": ("cat", "dog"),
        "_negative/c.jpg": (),
    }


def test_images_beside_class_folders_are_rejected():
    with pytest.raises(DataError, match=r"a\.jpg, b\.jpg, c\.jpg and 1 more"):
        folder_tags(["a.jpg", "b.jpg", "c.jpg", "d.jpg", "cat/e.jpg"])


def test_annotation_gives_objects_difficult_or_not_but_no_parts(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><object><name>person</name><part><name>head</name></part></object>"
        "<object><name>dog</name><difficult>1</difficult></object>"
        "<object><name>dog</name></object><object><name>zebra</name></object></annotation>"
    )
    assert annotation_tags(path, ("dog", "head", "person")) == ("dog", "person")


def test_missing_or_broken_annotation_is_rejected_by_name(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"a\.xml: is no readable XML"):
        annotation_tags(tmp_path / "a.xml", ())
    with pytest.raises(DataError, match=r"b\.xml: cannot be read"):
        annotation_tags(tmp_path / "b.xml", ())


def test_classes_keep_the_wanted_order_or_are_all():
    assert resolve_classes(("dog", "cat"), ("cat", "cow", "dog"), "here") == ("dog", "cat")
    assert resolve_classes((), ("cat", "cow"), "here") == ("cat", "cow")


def test_unknown_doubled_or_no_classes_are_rejected():
    with pytest.raises(DataError, match=r"here: unknown class 'hrose'.* Did you mean 'horse'\?"):
        resolve_classes(("hrose",), ("cow", "horse"), "here")
    with pytest.raises(DataError, match="twice: cow, cow"):
        resolve_classes(("cow", "cow"), ("cow",), "here")
    with pytest.raises(DataError, match="0 classes"):
        resolve_classes((), (), "here")
    with pytest.raises(DataError, match="255 classes"):
        resolve_classes((), [str(number) for number in range(255)], "here")


def test_tag_matrix_drops_other_classes_and_keeps_negatives():
    matrix = tag_matrix([("cat", "zebra"), (), ("dog", "cat")], ("dog", "cat"))
    np.testing.assert_array_equal(matrix, [[0, 1], [0, 0], [1, 1]])
    assert matrix.dtype == np.uint8


def test_class_without_image_is_rejected():
    with pytest.raises(DataError, match="here: no image shows cow"):
        reject_empty_classes(np.array([[1, 0], [1, 0]], dtype=np.uint8), ("cat", "cow"), "here")


def test_long_lists_are_cut_with_their_count():
    assert name_some(["a", "b", "c"]) == "a, b, c"
    assert name_some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
