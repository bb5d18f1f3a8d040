"""Generated scenes as a data source: the same for ever, held-out ones apart, useless to color."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask import plugins
from tag2mask.data.synthetic import SCENE_CLASSES, Synthetic, SyntheticConfig, write_scenes
from tag2mask.errors import DataError
from tag2mask.types import IGNORE

CONFIG = SyntheticConfig(count=40, val_count=20)


def test_scenes_are_a_plugin() -> None:
    assert plugins.load("data", "synthetic") is Synthetic


def test_same_settings_give_the_same_scenes() -> None:
    first, second = Synthetic(CONFIG, "train"), Synthetic(CONFIG, "train")
    for index in (7, 0, 39):
        np.testing.assert_array_equal(first[index].image, second[index].image)
        np.testing.assert_array_equal(first[index].mask, second[index].mask)


def test_more_scenes_do_not_change_the_earlier_ones() -> None:
    few, many = Synthetic(CONFIG, "train"), Synthetic(SyntheticConfig(count=50), "train")
    np.testing.assert_array_equal(few[39].image, many[39].image)
    np.testing.assert_array_equal(few.tags, many.tags[:40])


def test_another_seed_gives_other_scenes() -> None:
    other = Synthetic(SyntheticConfig(count=40, seed=1), "train")
    assert (Synthetic(CONFIG, "train")[0].image != other[0].image).any()


def test_no_held_out_scene_is_trained_on() -> None:
    parts = [Synthetic(CONFIG, part) for part in ("train", "val")]
    images, names = (
        [{what(part, i) for i in range(len(part))} for part in parts]
        for what in (lambda part, i: part[i].image.tobytes(), lambda part, i: part.names[i])
    )
    assert len(images[0]) == 40
    assert len(images[1]) == 20
    assert not images[0] & images[1]
    assert not names[0] & names[1]


def test_tags_are_known_without_painting_and_agree_with_the_masks() -> None:
    source = Synthetic(CONFIG, "train")
    for index in range(len(source)):
        sample = source[index]
        assert sample.mask is not None
        shown = {int(value) - 1 for value in np.unique(sample.mask) if value}
        assert shown == set(np.flatnonzero(source.tags[index]))
        np.testing.assert_array_equal(sample.tags, source.tags[index])
    assert set(source.tags.sum(axis=1)) == {1, 2, 3}
    assert source.tags.any(axis=0).all()
    assert not source.tags.all(axis=0).any()  # every class has negatives


def test_chosen_classes_are_renumbered_and_the_others_ignored() -> None:
    whole = Synthetic(CONFIG, "train")
    part = Synthetic(SyntheticConfig(count=40, classes=("target", "beetle")), "train")
    assert part.class_names == ("target", "beetle")
    target, beetle = (SCENE_CLASSES.index(name) for name in part.class_names)
    np.testing.assert_array_equal(part.tags, whole.tags[:, [target, beetle]])
    for index in range(40):
        old, new = whole[index].mask, part[index].mask
        assert old is not None
        assert new is not None
        assert ((new == 1) == (old == target + 1)).all()
        assert ((new == 2) == (old == beetle + 1)).all()
        assert ((new == 0) == (old == 0)).all()
        assert set(np.unique(new)) <= {0, 1, 2, IGNORE}


def test_unknown_class_and_unknown_part_are_one_clear_line() -> None:
    with pytest.raises(DataError, match=r"'beetel'.*Did you mean 'beetle'"):
        Synthetic(SyntheticConfig(classes=("beetel",)), "train")
    with pytest.raises(DataError, match=r"no list 'test'\. Known: train, val"):
        Synthetic(CONFIG, "test")


def test_masks_are_left_out_when_nobody_reads_them() -> None:
    source = Synthetic(CONFIG, "val")
    source.reads_masks = False
    assert source[0].mask is None


def test_a_scene_cannot_be_spoilt_by_its_first_reader() -> None:
    image = Synthetic(CONFIG, "val")[0].image
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0


def test_written_scenes_are_the_generated_ones(tmp_path: Path) -> None:
    config = SyntheticConfig(count=4, val_count=2, size_px=64)
    write_scenes(config, tmp_path)
    with (tmp_path / "tags.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(list((tmp_path / "images").iterdir())) == 6
    source = Synthetic(config, "val")
    for index, row in enumerate(rows[4:]):
        sample = source[index]
        assert row["image"] == f"{sample.name}.png"
        shown = [SCENE_CLASSES[k] for k in np.flatnonzero(sample.tags)]
        assert row["tags"].split(";") == shown
        written = PILImage.open(tmp_path / "images" / row["image"])
        np.testing.assert_array_equal(np.asarray(written), sample.image)
        mask = PILImage.open(tmp_path / "masks" / row["image"])
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), sample.mask)
    named = json.loads((tmp_path / "masks" / "classes.json").read_text(encoding="utf-8"))
    assert named == {"classes": list(SCENE_CLASSES)}


def test_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="scenes cannot be written"):
        write_scenes(SyntheticConfig(count=1, val_count=0), tmp_path / "file" / "synthetic")


def pixels(source: Synthetic) -> tuple[np.ndarray, np.ndarray]:
    """Colors and classes of every fourth pixel."""
    samples = [source[index] for index in range(len(source))]
    color = np.concatenate([sample.image[::2, ::2].reshape(-1, 3) for sample in samples])
    truth = [sample.mask[::2, ::2].ravel() for sample in samples if sample.mask is not None]
    return color, np.concatenate(truth)


def mean_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    classes = range(len(SCENE_CLASSES) + 1)
    hit = [((predicted == k) & (truth == k)).sum() for k in classes]
    either = [((predicted == k) | (truth == k)).sum() for k in classes]
    return float(np.mean(np.array(hit) / np.array(either)))


def nearest_mean(color: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(C, pixels) likeness: how near the mean color of each class is."""
    means = np.stack([color[truth == k].mean(axis=0) for k in range(6)])
    return -((asked[None].astype(float) - means[:, None]) ** 2).sum(axis=2)


def histogram(color: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(C, pixels) share of each class's pixels in the same of 512 color bins."""

    def bins(values: np.ndarray) -> np.ndarray:
        red, green, blue = (values.astype(int) >> 5).T
        return red * 64 + green * 8 + blue

    counts = np.stack([np.bincount(bins(color[truth == k]), minlength=512) for k in range(6)])
    return ((counts + 0.5) / counts.sum(axis=1, keepdims=True))[:, bins(asked)]


@pytest.fixture(scope="module")
def parts() -> tuple[Synthetic, Synthetic]:
    config = SyntheticConfig(count=120, val_count=40)
    return Synthetic(config, "train"), Synthetic(config, "val")


@pytest.mark.parametrize("classifier", [nearest_mean, histogram])
@pytest.mark.parametrize("gate", ["classifier", "tags"])
def test_color_does_not_give_the_classes_away(
    parts: tuple[Synthetic, Synthetic], classifier: object, gate: str
) -> None:
    """Fitted with the full masks, and even told which classes a scene shows, color alone fails."""
    training, held_out = parts
    asked, truth = pixels(held_out)
    likeness = classifier(*pixels(training), asked)  # type: ignore[operator]
    if gate == "tags":
        shown = np.insert(held_out.tags, 0, 1, axis=1).astype(bool)  # background always
        likeness[~np.repeat(shown, 64 * 64, axis=0).T] = -np.inf
    assert mean_iou(likeness.argmax(axis=0), truth) <= 0.35
