import io

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.checks.near_duplicates import fingerprint, near_duplicates


def _picture(seed: int) -> Image.Image:
    """Return a smooth random image, 96x64 px."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((96, 64), Image.Resampling.BICUBIC)


def _saved(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def test_difference_hash_is_the_hand_counted_one():
    steps = np.zeros((8, 9), dtype=np.uint8)
    steps[:, :] = [0, 10, 5, 5, 20, 30, 25, 40, 0]
    bits = fingerprint(Image.fromarray(steps)).bits.reshape(8, 8)
    assert (bits == [True, False, False, True, True, False, True, False]).all()


def test_resized_and_saved_again_images_are_near_and_others_are_not():
    prints = {str(seed): fingerprint(_picture(seed)) for seed in range(40)}
    prints["small"] = fingerprint(_picture(3).resize((48, 32)))
    prints["saved"] = fingerprint(_saved(_picture(7), 30))
    prints["both"] = fingerprint(_saved(_picture(7).resize((150, 100)), 60))
    assert near_duplicates(prints) == [("3", "small"), ("7", "saved", "both")]


def test_flat_images_are_not_compared():
    prints = {name: fingerprint(Image.new("RGB", (9, 9), name)) for name in ("red", "blue", "gray")}
    assert near_duplicates(prints) == []
    assert near_duplicates({}) == []


def test_groups_do_not_depend_on_how_many_rows_are_in_memory(monkeypatch):
    prints = {str(seed): fingerprint(_picture(seed % 17)) for seed in range(60)}
    whole = near_duplicates(prints)
    monkeypatch.setattr("tag2mask.data.checks.near_duplicates._ROWS", 7)
    assert near_duplicates(prints) == whole
    assert len(whole) == 17


@pytest.mark.real
def test_real_images_are_near_to_their_copies_only(voc_animals):
    names = sorted(path.stem for path in (voc_animals / "SegmentationClass").glob("*.png"))
    images = [Image.open(voc_animals / "JPEGImages" / f"{name}.jpg") for name in names]
    prints = dict(zip(names, map(fingerprint, images), strict=True))
    assert len(prints) == 437
    assert near_duplicates(prints) == []
    for name, image in zip(names, images, strict=True):
        half = image.resize((image.width // 2, image.height // 2))
        prints[f"{name} half"] = fingerprint(_saved(half, 50))
    assert near_duplicates(prints) == [(name, f"{name} half") for name in names]
