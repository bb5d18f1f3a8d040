from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.inference.segmenter import Segmenter


def test_a_list_gives_a_list_of_what_each_image_gives(segmenter: Segmenter, source: Source) -> None:
    images = [source[index].image for index in range(3)]
    found = segmenter.predict(images)
    assert isinstance(found, list)
    for image, prediction in zip(images, found, strict=True):
        assert np.array_equal(prediction.mask, segmenter.predict(image).mask)
    assert segmenter.predict([]) == []
    assert len(segmenter.predict(tuple(images))) == 3


def test_each_image_of_a_list_has_its_own_tags(segmenter: Segmenter, source: Source) -> None:
    images = [source[index].image for index in range(3)]
    labeled = segmenter.label(images, ["cow", ["cat", "dog"], []])
    expected = [segmenter.label(images[0], ["cow"]), segmenter.label(images[1], ["cat", "dog"])]
    for prediction, one in zip(labeled, expected, strict=False):
        assert np.array_equal(prediction.mask, one.mask)
    assert labeled[2].mask.max() == 0
    every = segmenter.label(images, "dog")
    assert np.array_equal(every[1].mask, segmenter.label(images[1], ["dog"]).mask)


def test_a_word_is_one_tag(segmenter: Segmenter, source: Source) -> None:
    image = source[0].image
    assert np.array_equal(
        segmenter.label(image, "dog").mask, segmenter.label(image, tags=["dog"]).mask
    )
    with pytest.raises(DataError, match=r"unknown tag 'dgo'\. Did you mean 'dog'\?"):
        segmenter.label(image, "dgo")


def test_a_folder_is_segmented_lazily_with_names(
    segmenter: Segmenter, source: Source, image_folder: Callable[[], Path]
) -> None:
    folder = image_folder()
    for given in (folder, str(folder)):
        found = segmenter.predict(given)
        assert isinstance(found, Iterator)
        predictions = {prediction.name: prediction for prediction in found}
        assert list(predictions) == ["lane1/a", "lane1/b", "lane2/a", "none"]
        expected = segmenter.predict(source[1].image)
        assert np.array_equal(predictions["lane1/b"].mask, expected.mask)


def test_a_tagged_folder_brings_its_tags(
    segmenter: Segmenter, source: Source, image_folder: Callable[[], Path]
) -> None:
    folder = image_folder()
    rows = "image,tags\nlane1/a.png,cat\nlane1/b.png,cow;dog\nlane2/a.png,dog\nnone.png,\n"
    (folder / "tags.csv").write_text(rows, encoding="utf-8")
    predictions = {one.name: one for one in segmenter.label(folder)}
    assert list(predictions) == ["lane1/a", "lane1/b", "lane2/a", "none"]
    expected = segmenter.label(source[1].image, ["cow", "dog"])
    assert np.array_equal(predictions["lane1/b"].mask, expected.mask)
    assert predictions["lane1/b"].class_source == "tags"
    assert predictions["none"].mask.max() == 0
    with pytest.raises(DataError, match="leave out tags"):
        segmenter.label(folder, "dog")


def test_missing_tags_are_refused(segmenter: Segmenter, source: Source) -> None:
    with pytest.raises(DataError, match=r"label\(\) needs the tags of the image; predict\(\)"):
        segmenter.label([source[0].image])  # type: ignore[call-overload]


def test_settings_of_one_call_change_that_call_only(segmenter: Segmenter, source: Source) -> None:
    image = source[0].image
    plain = segmenter.label(image, "cow").mask
    small = segmenter.label(image, "cow", background=0.95, refiner="none").mask
    assert (small == 2).sum() < (plain == 2).sum()
    other = segmenter.with_settings(background=0.95, refiner="none")
    assert np.array_equal(other.label(image, "cow").mask, small)
    assert np.array_equal(segmenter.label(image, "cow").mask, plain)
    assert set(segmenter.predict(image, class_threshold=0.0).scores) == {"cat", "cow", "dog"}
    assert segmenter.predict([image], class_threshold=1.0)[0].classes == ()


def test_a_prediction_is_saved_under_its_name(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    for prediction in segmenter.predict(image_folder()):
        prediction.save(tmp_path / "masks" / f"{prediction.name}.png")
    written = sorted(path.relative_to(tmp_path) for path in (tmp_path / "masks").rglob("*.png"))
    assert [path.as_posix() for path in written] == [
        "masks/lane1/a.png",
        "masks/lane1/b.png",
        "masks/lane2/a.png",
        "masks/none.png",
    ]
