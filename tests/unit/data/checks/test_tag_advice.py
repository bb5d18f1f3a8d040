import time

from tag2mask.data.checks.tag_advice import count_pairs, tag_advice
from tag2mask.data.index import DatasetIndex


def _advice(rows, **parts):
    tags = {f"i{number}": row for number, row in enumerate(rows)}
    found = {}
    for line in tag_advice(DatasetIndex("here", {}, tags, {}, **parts)):
        found.setdefault(line.kind, []).append(line)
    return found


def test_pairs_are_counted():
    rows = [("dog", "cat"), ("cat", "dog", "cow"), ("cow",), ()]
    assert count_pairs(rows) == (("cat", "dog", 2), ("cat", "cow", 1), ("cow", "dog", 1))


def test_good_tags_get_no_advice():
    rows = [("cat",)] * 10 + [("dog",)] * 10 + [("cat", "dog")] * 2 + [()]
    assert _advice(rows) == {}


def test_nine_images_are_few_and_ten_are_not():
    (line,) = _advice([("cat",)] * 9 + [("dog",)] * 10)["few_images"]
    assert "fewer than 10 images: cat (9);" in line.message


def test_a_typo_is_named_with_its_images_and_is_no_small_class():
    found = _advice([("dog",)] * 12 + [("cat",)] * 12 + [("dgo",)])
    assert list(found) == ["typo"]
    assert found["typo"][0].names == ("i24",)
    assert "'dgo' of i24: did you mean 'dog' (12 images)?" in found["typo"][0].message


def test_what_tags_cannot_teach_is_named():
    found = _advice([("field", "cow", "grass")] * 11 + [("field", "cat")] * 11)
    assert [line.message.partition(":")[0] for line in found["in_every_image"]] == ["class 'field'"]
    assert "'cow' and 'grass' always occur together" in found["inseparable"][0].message
    many = _advice([(f"a{number:02}", f"b{number:02}") for number in range(15)])
    assert many["inseparable"][-1].message.startswith("and 5 more")


def test_classes_of_masks_without_images_are_named():
    found = _advice([("cat",)] * 10 + [()], mask_classes=("cat", "dog"))
    assert found["unused_classes"][0].message == "no image shows dog; they are not learned"


def test_five_thousand_tags_take_seconds():
    rows = [(f"species {number % 5000:04} of plant", f"t{number}") for number in range(5000)]
    start = time.process_time()
    _advice(rows)
    assert time.process_time() - start < 10
