import io
import math
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.palette import css_color, overlay_palette
from tag2mask.report.images import ReportImages, TrueMasks
from tag2mask.report.samples import IMAGE_BYTES, LAYER_BYTES, draw_card, draw_groups


class Images(ReportImages):
    class_names = ("cat", "cow")
    class_source = "tags"
    tags: ClassVar = {"0": ["cat"]}
    scores: ClassVar = {}

    def __init__(self, count=12, lost=()):
        self.names = tuple(str(at) for at in range(count))
        self.uncertainty = {name: int(name) / 100 for name in self.names}
        self._lost = lost
        self.truth = TrueMasks("hand", frozenset("0"), self.mask)

    def image(self, name):
        if name in self._lost:
            raise DataError(f"{name}: gone")
        return np.full((60, 80, 3), 100, dtype=np.uint8)

    def mask(self, name):
        mask = np.zeros((60, 80), dtype=np.uint8)
        mask[20:40, 20:60] = 1
        return mask


IOU = {"0": 0.9, "1": 0.8, "2": 0.7, "3": 0.6, "4": 0.5, "5": 0.1, "6": math.nan}


def shown(groups):
    return {group.title: [card.name for card in group.cards] for group in groups}


def test_groups_hold_best_worst_uncertain_and_random_images():
    groups = shown(draw_groups(Images(), IOU, seed=3))
    assert groups["Best"] == ["0", "1", "2", "3"]
    assert groups["Worst"] == ["5", "4", "3", "2"]
    assert groups["Most uncertain"] == ["11", "10", "9", "8"]
    assert len(set(groups["Random"])) == 4


def test_random_images_depend_on_the_seed_alone():
    chosen = [shown(draw_groups(Images(), IOU, seed))["Random"] for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert shown(draw_groups(Images(), {}, 1))["Random"] == chosen[0]


def test_without_true_masks_nothing_is_called_best():
    assert list(shown(draw_groups(Images(), {}, 1))) == ["Most uncertain", "Random"]


def test_lost_images_are_replaced_by_the_next():
    groups = shown(draw_groups(Images(lost=("0", "11")), IOU, 1))
    assert groups["Best"] == ["1", "2", "3", "4"]
    assert groups["Most uncertain"] == ["10", "9", "8", "7"]
    assert draw_groups(Images(lost=Images().names), IOU, 1) == ()


def test_card_has_image_and_transparent_layers_of_one_size():
    card = draw_card(Images(), "0", 0.9)
    layer = np.asarray(PILImage.open(io.BytesIO(card.mask.data)))
    assert PILImage.open(io.BytesIO(card.image.data)).size == (card.width, card.height) == (80, 60)
    assert layer.shape == (60, 80, 4)
    assert layer[30, 40].tolist() == [*overlay_palette()[1].tolist(), 115]
    assert layer[0, 0, 3] == 0
    assert card.truth.data == card.mask.data
    assert (card.iou, card.uncertainty, card.tags) == (0.9, 0.0, "cat")
    assert card.legend == (("cat", css_color(1)),)
    assert draw_card(Images(), "1").truth is None
    assert draw_card(Images(), "1").iou is None


def test_noise_stays_within_its_bounds(monkeypatch):
    rng = np.random.default_rng(0)
    images = Images()
    monkeypatch.setattr(images, "image", lambda n: rng.integers(0, 256, (900, 700, 3), np.uint8))
    monkeypatch.setattr(images, "mask", lambda n: rng.integers(0, 3, (900, 700)).astype(np.uint8))
    card = draw_card(images, "1")
    assert len(card.image.data) <= IMAGE_BYTES
    assert len(card.mask.data) <= LAYER_BYTES


def test_mask_of_another_size_is_rejected(monkeypatch):
    images = Images()
    monkeypatch.setattr(images, "mask", lambda name: np.zeros((5, 5), dtype=np.uint8))
    with pytest.raises(DataError, match="differ in size"):
        draw_card(images, "1")
