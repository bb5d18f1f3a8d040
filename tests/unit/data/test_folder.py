import json
import pickle

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.folder import Folder, FolderConfig, is_held_out
from tag2mask.errors import DataError, NothingHeldOutError


@pytest.fixture
def data(tmp_path):
    """Write five images below `images`, one of them a negative, and `tags.csv`."""
    for index, name in enumerate(["a", "b", "c", "lane/d", "n"]):
        _image(tmp_path / "images" / f"{name}.png", index)
    _write_rows(tmp_path, ["a.png,cat", "b.png,cat;dog", "c.png,dog", "lane/d.png,cow", "n.png,"])
    return tmp_path


def _image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3, 3), value, dtype=np.uint8)).save(path)


def _write_rows(folder, rows):
    (folder / "tags.csv").write_text("\n".join(["image,tags", *rows]), encoding="utf-8")


def _write_mask(path, indices):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(indices, dtype=np.uint8)).save(path)


def _open(folder, split="all", **options):
    return Folder(FolderConfig(name="folder", root=folder, **options), split)


def test_images_are_matched_with_tags_and_negatives_are_kept(data):
    source = _open(data)
    assert source.class_names == ("cat", "cow", "dog")
    assert source.names == ("a", "b", "c", "lane/d", "n")
    np.testing.assert_array_equal(
        source.tags, [[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 0]]
    )
    sample = source[3]
    assert (sample.name, sample.image.max(), sample.mask) == ("lane/d", 3, None)
    np.testing.assert_array_equal(sample.tags, [0, 1, 0])
    assert not source.has_masks


def test_chosen_classes_define_the_order_and_other_tags_are_dropped(data):
    source = _open(data, classes=("dog", "cat"))
    np.testing.assert_array_equal(source.tags, [[0, 1], [1, 1], [1, 0], [0, 0], [0, 0]])


def test_images_to_label_need_not_show_every_class(data):
    source = _open(data, "all", classes=("goat", "dog"))
    np.testing.assert_array_equal(source.tags, [[0, 0], [0, 1], [0, 1], [0, 0], [0, 0]])


def test_rows_may_name_images_relative_to_root_or_without_suffix(data):
    _write_rows(data, ["images/a.png,cat", "b,dog", "images/c,dog", "lane\\d.png,cow", "./n.png,"])
    assert _open(data).tags.sum(axis=0).tolist() == [1, 1, 2]


def test_any_file_name_is_allowed(tmp_path):
    names = ["Kuh im Stall (1)", "日本", "a,b", "e\u0301t\u00e9", "x.y"]
    for name in names:
        _image(tmp_path / f"{name}.png")
    _write_rows(tmp_path, [f'"{name}.png",cat' for name in names])
    assert set(_open(tmp_path).names) == {*names[:3], "\u00e9t\u00e9", "x.y"}


def test_json_lines_and_class_folders_give_the_same_tags(data, tmp_path):
    (data / "tags.csv").unlink()
    rows = [("a", ["cat"]), ("b", ["cat", "dog"]), ("c", ["dog"]), ("lane/d", ["cow"]), ("n", [])]
    text = "\n".join(json.dumps({"image": f"{name}.png", "tags": tags}) for name, tags in rows)
    (data / "tags.jsonl").write_text(text)
    from_lines = _open(data)
    (data / "tags.jsonl").unlink()
    for name, tags in rows:
        folder = data / "images" / (";".join(tags) or "_negative")
        folder.mkdir()
        (data / "images" / f"{name}.png").rename(folder / f"{name[-1]}.png")
    from_folders = _open(data)
    assert from_folders.names == ("_negative/n", "cat/a", "cat;dog/b", "cow/d", "dog/c")
    np.testing.assert_array_equal(from_folders.tags, from_lines.tags[[4, 0, 1, 3, 2]])


def test_parts_are_disjoint_and_new_images_move_none(tmp_path):
    def add_images(numbers):
        for number in numbers:
            _image(tmp_path / "cat" / f"{number}.png")
        return {
            part: set(_open(tmp_path, part, val_fraction=0.3).names) for part in ("train", "val")
        }

    before = add_images(range(0, 60, 2))
    assert not before["train"] & before["val"]
    assert len(before["train"] | before["val"]) == 30
    after = add_images(range(60))
    assert before["train"] < after["train"]
    assert before["val"] < after["val"]


def test_the_held_out_fraction_is_the_configured_one():
    held_out = sum(is_held_out(f"image{number}", 0.25) for number in range(4000))
    assert abs(held_out / 4000 - 0.25) < 0.03  # four standard deviations
    assert not any(is_held_out(f"image{number}", 0.0) for number in range(50))
    assert all(is_held_out(f"image{number}", 1.0) for number in range(50))


def test_masks_use_their_own_class_list(data):
    for name in ("a", "b", "c", "lane/d", "n"):
        _write_mask(data / "masks" / f"{name}.png", [[0, 1, 2], [3, 255, 0]])
    np.testing.assert_array_equal(_open(data)[0].mask, [[0, 1, 2], [3, 255, 0]])
    (data / "masks" / "classes.json").write_text('{"classes": ["dog", "cat", "cow"]}')
    source = _open(data, classes=("cat", "dog"))
    assert source.has_masks
    np.testing.assert_array_equal(source[0].mask, [[0, 2, 1], [255, 255, 0]])
    source.reads_masks = False
    assert source[0].mask is None


def test_masks_inside_the_image_folder_are_not_images(tmp_path):
    _image(tmp_path / "a.png")
    _write_mask(tmp_path / "masks" / "a.png", [[0, 1, 0], [0, 0, 0]])
    _write_rows(tmp_path, ["a.png,cat"])
    source = _open(tmp_path)
    assert source.names == ("a",)
    assert source.has_masks


def test_some_images_may_have_masks(data):
    for name in ("b", "lane/d"):
        _write_mask(data / "masks" / f"{name}.png", [[0, 1, 0], [0, 0, 0]])
    source = _open(data)
    assert not source.has_masks
    assert list(source.mask_indices) == [1, 3]
    assert [sample.mask is not None for sample in source] == [False, True, False, True, False]


def test_a_mask_of_an_image_outside_the_folder_is_rejected_by_name(data):
    for name in ("a", "other", "lane/e"):
        _write_mask(data / "masks" / f"{name}.png", [[0, 1, 0], [0, 0, 0]])
    with pytest.raises(DataError, match=r"masks: 2 masks of images .*: lane/e, other; name each"):
        _open(data)


def test_an_invalid_mask_is_rejected_with_file_and_value(data):
    for name in ("a", "b", "c", "lane/d"):
        _write_mask(data / "masks" / f"{name}.png", [[0, 1, 0], [0, 0, 0]])
    _write_mask(data / "masks" / "n.png", [[0, 4, 0], [0, 0, 0]])
    with pytest.raises(DataError, match=r"n\.png: pixel value 4 is no class .*1\.\.3"):
        _open(data)[4]
    _write_mask(data / "masks" / "n.png", [[0, 4]])
    with pytest.raises(DataError, match=r"n\.png"):
        _open(data)[4]


def test_all_mismatches_of_rows_and_images_are_reported_at_once(data):
    _write_rows(data, ["a.png,cat", "images/a.png,cat", *(f"x{i}.png,cat" for i in range(5))])
    with pytest.raises(DataError) as problem:
        _open(data)
    lines = str(problem.value).splitlines()
    assert len(lines) == 3
    assert "5 rows without image: x0.png, x1.png, x2.png and 2 more" in lines[0]
    assert "images with two rows: images/a.png" in lines[1]
    assert "4 images without row: b.png, c.png, lane/d.png and 1 more" in lines[2]


def test_two_images_with_the_same_name_are_rejected(data):
    _image(data / "images" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png"):
        _open(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": None}, "data.root is not set"),
        ({"root": "nowhere"}, "nowhere: no such folder"),
        ({"images": "nowhere"}, r"nowhere: no such folder \(data.images\)"),
        ({"masks": "nowhere"}, r"nowhere: no such folder \(data.masks\)"),
        ({"tags": "nowhere.csv"}, r"nowhere\.csv: cannot be read"),
        ({"classes": ("cta",)}, r"unknown class 'cta'.*Did you mean 'cat'"),
    ],
)
def test_missing_files_and_classes_are_rejected_in_one_line(data, options, message):
    with pytest.raises(DataError, match=message) as problem:
        Folder(FolderConfig(**{"name": "folder", "root": data} | options), "train")
    assert "\n" not in str(problem.value)


def test_a_folder_without_images_or_tags_is_rejected(tmp_path):
    with pytest.raises(DataError, match="contains no images"):
        _open(tmp_path)
    _image(tmp_path / "a.png")
    with pytest.raises(DataError, match="outside the class folders"):
        _open(tmp_path)
    _write_rows(tmp_path, ["a.png,"])
    with pytest.raises(DataError, match="no image has a tag"):
        _open(tmp_path)


def test_two_tag_files_are_rejected(data):
    (data / "tags.jsonl").write_text("")
    with pytest.raises(DataError, match=r"select one with data\.tags"):
        _open(data)


def test_a_class_without_training_image_is_not_learned_or_if_chosen_rejected(data):
    held_out = next(f"only{i}" for i in range(99) if is_held_out(f"only{i}", 0.5))
    training = next(f"more{i}" for i in range(99) if not is_held_out(f"more{i}", 0.5))
    for name in (held_out, training):
        _image(data / "set" / f"{name}.png")
    rows = data / "set" / "tags.csv"
    rows.write_text(f"image,tags\n{held_out}.png,cow\n{training}.png,cat\n")
    chosen = {"val_fraction": 0.5, "classes": ("cat", "cow")}
    with pytest.raises(DataError, match="no image has the tag cow"):
        _open(data / "set", "train", **chosen)
    assert _open(data / "set", "val", **chosen).tags.tolist() == [[0, 1]]
    for part in ("train", "val", "all"):
        assert _open(data / "set", part, val_fraction=0.5).class_names == ("cat",)
    assert _open(data / "set", "all", val_fraction=1.0).class_names == ("cat", "cow")


def test_an_empty_or_unknown_part_is_rejected(data):
    with pytest.raises(NothingHeldOutError, match="part 'val' is empty"):
        _open(data, "val", val_fraction=0.0)
    with pytest.raises(DataError, match="unknown part 'test'"):
        _open(data, "test")


def test_unreadable_images_are_skipped_and_recorded_or_rejected(data):
    (data / "images" / "b.png").write_bytes(b"no image")
    source = _open(data)
    assert source.names == ("a", "c", "lane/d", "n")
    assert source.skipped == ("b",)
    assert source.tags.shape == (4, 3)
    with pytest.raises(DataError, match=r"1 unreadable image: .*b\.png"):
        _open(data, strict=True)


def test_a_source_can_be_pickled_for_worker_processes(data):
    copy = pickle.loads(pickle.dumps(_open(data)))
    np.testing.assert_array_equal(copy[1].image, _open(data)[1].image)


def test_a_group_is_learned_from_or_held_out_as_a_whole(tmp_path):
    rng = np.random.default_rng(3)
    groups = [f"plot {rng.integers(40)}" if rng.random() < 0.8 else "" for _ in range(200)]
    for number in range(200):
        _image(tmp_path / f"i{number}.png", number)
    rows = [f"i{number}.png,cat,{group}" for number, group in enumerate(groups)]
    (tmp_path / "tags.csv").write_text("\n".join(["image,tags,Group", *rows]))
    for fraction in (0.05, 0.1, 0.3, 0.6):
        train = _open(tmp_path, "train", val_fraction=fraction).names
        val = _open(tmp_path, "val", val_fraction=fraction).names
        assert sorted((*train, *val)) == sorted(_open(tmp_path).names)
        held_out = {groups[int(name[1:])] for name in val} - {""}
        assert held_out
        assert not held_out & {groups[int(name[1:])] for name in train}
        for name in (*train, *val):  # without a group the choice is that of the name, as before
            if not groups[int(name[1:])]:
                assert (name in val) == is_held_out(name, fraction)


def test_a_group_in_json_lines_counts_too(tmp_path):
    lines = []
    for number in range(30):
        _image(tmp_path / f"i{number}.png", number)
        row = {"image": f"i{number}.png", "tags": ["cat"], "group": number % 2}
        lines.append(json.dumps(row))
    (tmp_path / "tags.jsonl").write_text("\n".join(lines))
    held_out = [number for number in (0, 1) if is_held_out(str(number), 0.6)]
    assert held_out  # the fraction is chosen so
    val = _open(tmp_path, "val", val_fraction=0.6).names
    assert {int(name[1:]) % 2 for name in val} == set(held_out)


def test_an_image_in_two_class_folders_is_one_image_with_both_tags(tmp_path):
    for name in ("cat/a", "cat/b", "dog/b", "_negative/n", "cat+dog/c", "c++/d"):
        _image(tmp_path / f"{name}.png", sum(name.encode()) % 256)
    (tmp_path / "dog" / "a.png").write_bytes((tmp_path / "cat" / "a.png").read_bytes())
    source = _open(tmp_path)
    assert source.class_names == ("c++", "cat", "dog")
    assert dict(zip(source.names, source.tags.tolist(), strict=True)) == {
        "_negative/n": [0, 0, 0],
        "c++/d": [1, 0, 0],
        "cat+dog/c": [0, 1, 1],
        "cat/a": [0, 1, 1],
        "cat/b": [0, 1, 0],
        "dog/b": [0, 0, 1],
    }


def test_another_layout_names_the_option_that_reads_it(tmp_path):
    _image(tmp_path / "JPEGImages" / "a.png")
    with pytest.raises(DataError, match=r"add data\.name=voc"):
        _open(tmp_path)


def test_a_wrong_separator_is_a_problem_and_no_class(data):
    _write_rows(data, ["a.png,cat", 'b.png,"cat,dog"', "c.png,dog", "lane/d.png,cow", "n.png,"])
    with pytest.raises(DataError, match=r"tag 'cat,dog' of b: ',' between tags\? Write cat;dog"):
        _open(data)


def test_16_bit_images_have_the_given_range_or_their_own(data):
    values = np.array([[0, 1000, 4095]], dtype=np.uint16)
    Image.fromarray(values).save(data / "images" / "a.png")
    assert _open(data)[0].image[0, :, 0].tolist() == [0, 62, 255]
    given = _open(data, value_range=(0, 2000))
    assert given[0].image[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match="the first value must be below the second"):
        _open(data, value_range=(5, 5))
