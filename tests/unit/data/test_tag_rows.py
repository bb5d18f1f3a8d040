from tag2mask.data.tag_rows import joined_tags, match_rows


def test_rows_are_matched_with_or_without_suffix_and_folder():
    paths = {"a": "a.jpg", "x/b": "x/b.png"}
    rows = {"images/a.jpg": ("cat",), "x/b": ()}
    assert match_rows(rows, paths, "images/").rows == {"a": "images/a.jpg", "x/b": "x/b"}


def test_rows_and_images_that_do_not_match_are_counted():
    paths = {"a": "a.JPG", "b": "b.jpg"}
    matched = match_rows({"a.jpg": (), "b": (), "b.jpg": ()}, paths, "")
    assert [line.partition(":")[0] for line in matched.problems] == [
        "1 row without image",
        "images with two rows",
        "1 image without row",
    ]
    assert "(there is a.JPG)" in matched.problems[0]


def test_a_row_with_another_suffix_or_folder_names_the_image_that_is_there():
    rows = {"set/a.png": ()}
    assert "(there is deep/a.jpg)" in match_rows(rows, {"deep/a": "deep/a.jpg"}, "").problems[0]


def test_tags_joined_by_a_wrong_separator_are_named():
    tags = {"a": ("cat,dog",), "b": ("cat",), "c": ("salt, coarse",), "d": ("dog|cow",)}
    assert joined_tags(tags | {"e": ("dog",)}) == [
        "tag 'cat,dog' of a: ',' between tags? Write cat;dog",
        "tag 'dog|cow' of d: '|' between tags? Write dog;cow",
    ]


def test_many_joined_tags_are_counted():
    tags = {f"{number}.jpg": (f"cat,b{number:03}",) for number in range(30)} | {"z": ("cat",)}
    lines = joined_tags(tags)
    assert len(lines) == 11
    assert lines[-1] == "and 20 more tags of this kind"
