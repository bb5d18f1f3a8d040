import json
import os
from pathlib import Path

import numpy as np
import pytest

from tag2mask.data.tags import (
    annotation_tags,
    folder_tags,
    image_key,
    name_some,
    read_tag_file,
    read_tags,
    reject_empty_classes,
    resolve_classes,
    tag_matrix,
    unknown_tags,
)
from tag2mask.errors import DataError


def _csv(folder, text, encoding="utf-8"):
    path = folder / "tags.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_is_read_with_and_without_byte_order_mark_and_carriage_returns(
    tmp_path, encoding, line_end
):
    lines = ["image,tags", "a.jpg,cat;dog", "é b.png, Katze ; ;Katze", "", "n.jpg,"]
    table = read_tags(_csv(tmp_path, line_end.join(lines), encoding))
    assert table == {"a.jpg": ("cat", "dog"), "é b.png": ("Katze",), "n.jpg": ()}


def test_csv_columns_are_found_by_name_and_may_be_quoted(tmp_path):
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
        ("image,tags\n,cat\n", "line 2: the image name is empty"),
        ("image,tags\na.jpg,cat\nb.jpg,\na.jpg,dog\n", "line 4: second row for 'a.jpg'"),
        ('image,tags\n"a.jpg,cat\n', "not valid CSV"),
    ],
)
def test_invalid_csv_is_rejected_with_file_and_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as problem:
        read_tags(_csv(tmp_path, text))
    assert "tags.csv" in str(problem.value)
    assert "\n" not in str(problem.value)


def test_missing_and_unknown_tag_files_are_rejected(tmp_path):
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
def test_an_invalid_json_line_is_rejected_with_its_number(tmp_path, line):
    path = tmp_path / "tags.jsonl"
    path.write_text('{"image": "ok.jpg", "tags": []}\n' + line)
    with pytest.raises(DataError, match=r"tags\.jsonl: line 2"):
        read_tags(path)


def test_names_from_other_operating_systems_are_equal():
    assert image_key("lane1\\e\u0301.jpg ") == image_key("./lane1/\u00e9.jpg") == "lane1/\u00e9.jpg"


def test_class_folders_give_tags():
    table = folder_tags(["cat/a.jpg", "cat;dog/deep/b.jpg", "_negative/c.jpg"])
    assert table == {
        "cat/a.jpg": ("cat",),
        "cat;dog/deep/b.jpg": ("cat", "dog"),
        "_negative/c.jpg": (),
    }


def test_images_outside_class_folders_are_rejected():
    with pytest.raises(DataError, match=r"a\.jpg, b\.jpg, c\.jpg and 1 more"):
        folder_tags(["a.jpg", "b.jpg", "c.jpg", "d.jpg", "cat/e.jpg"])


def test_annotations_give_all_objects_but_no_parts(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><object><name>person</name><part><name>head</name></part></object>"
        "<object><name>dog</name><difficult>1</difficult></object>"
        "<object><name>dog</name></object><object><name>zebra</name></object></annotation>"
    )
    assert annotation_tags(path, ("dog", "head", "person")) == ("dog", "person")


def test_missing_and_invalid_annotations_are_rejected_by_name(tmp_path):
    (tmp_path / "a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"a\.xml: not valid XML"):
        annotation_tags(tmp_path / "a.xml", ())
    with pytest.raises(DataError, match=r"b\.xml: cannot be read"):
        annotation_tags(tmp_path / "b.xml", ())


def test_chosen_classes_keep_their_order_and_none_means_all():
    assert resolve_classes(("dog", "cat"), ("cat", "cow", "dog"), "here") == ("dog", "cat")
    assert resolve_classes((), ("cat", "cow"), "here") == ("cat", "cow")


def test_unknown_repeated_and_missing_classes_are_rejected():
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


def test_a_class_without_image_is_rejected():
    with pytest.raises(DataError, match="here: no image has the tag cow"):
        reject_empty_classes(np.array([[1, 0], [1, 0]], dtype=np.uint8), ("cat", "cow"), "here")


def test_long_lists_are_shortened_with_a_count():
    assert name_some(["a", "b", "c"]) == "a, b, c"
    assert name_some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_groups_are_read_from_both_formats(tmp_path):
    path = _csv(tmp_path, "image,group,tags\na.jpg,plot 1,cat\nb.jpg,,dog\n")
    assert read_tag_file(path) == ({"a.jpg": ("cat",), "b.jpg": ("dog",)}, {"a.jpg": "plot 1"})
    path = tmp_path / "tags.jsonl"
    path.write_text('{"image": "a", "tags": [], "group": 7}\n{"image": "b", "tags": []}')
    assert read_tag_file(path).groups == {"a": "7"}


@pytest.mark.parametrize("column", ["image", "tags", "group"])
def test_a_column_twice_is_rejected(tmp_path, column):
    path = _csv(tmp_path, f"image,tags,group,{column}\na.jpg,cat,x,y\n")
    with pytest.raises(DataError, match=f"line 1: two columns '{column}'; keep one"):
        read_tag_file(path)


def test_unknown_tags_name_the_mistake():
    path, classes = Path("D/tags.csv"), ("cat", "dog")
    (line,) = unknown_tags(path, {"a": ("cat,dog",)}, classes)
    assert line.endswith("unknown class 'cat,dog' of a. ',' between tags? Write cat;dog")
    (line,) = unknown_tags(path, {"a": ("dgo",), "b": ("cat",)}, classes, assumed="X's 2")
    assert "Did you mean 'dog'? Other classes than X's 2 go into classes.json." in line
    (line,) = unknown_tags(path, {"a": ("tomato", "leaf"), "b": ()}, classes, assumed="X's 2")
    assert line.endswith(
        "no tag is one of X's 2 classes; list your classes in D/classes.json: "
        '{"classes": ["leaf", "tomato"]}'
    )
    rows = {str(number): (f"strange {number}",) for number in range(50)} | {"c": ("cat",)}
    lines = unknown_tags(path, rows, classes)
    assert len(lines) == 21
    assert lines[-1].endswith("and 30 more unknown classes")


@pytest.mark.parametrize("tag", ["a\x1b[31m", "a\u202eb", "a\x7f"])
def test_a_tag_with_a_control_character_is_rejected(tmp_path, tag):
    for name, text in {
        "tags.csv": f"image,tags\na.jpg,{tag}\n",
        "tags.jsonl": json.dumps({"image": "a.jpg", "tags": [tag]}),
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"line \d: 'a.*' has a control character") as caught:
            read_tag_file(tmp_path / name)
        assert caught.value.problems[0].isprintable()
    with pytest.raises(DataError, match=r"class folder: .* has a control character"):
        folder_tags([f"{tag}/a.jpg"])
    with pytest.raises(DataError, match="has a control character"):
        resolve_classes([tag], [tag], "here")


def test_a_tag_with_a_line_break_in_quotes_cannot_forge_a_line(tmp_path):
    (tmp_path / "tags.csv").write_text('image,tags\na.jpg,"cat\nerror: forged"\n')
    with pytest.raises(DataError, match=r"cat\\nerror: forged"):
        read_tag_file(tmp_path / "tags.csv")


def test_names_are_shown_escaped():
    assert name_some(["a\nb", "\x1b[2J"]) == r"a\nb, \x1b[2J"


def test_a_pipe_is_no_tag_file(tmp_path):
    os.mkfifo(tmp_path / "tags.csv")
    with pytest.raises(DataError, match="is not a regular file"):
        read_tag_file(tmp_path / "tags.csv")
