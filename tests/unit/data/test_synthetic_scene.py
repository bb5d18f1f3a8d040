"""Painted scenes: exact masks, textures that differ, colors that do not."""

from __future__ import annotations

import numpy as np
import pytest

from tag2mask.data.synthetic_scene import MIN_VISIBLE, PAINTERS, draw_scene


@pytest.mark.parametrize("classes", [[1], [2, 5], [3, 4, 1]])
def test_scene_shows_all_its_classes_and_no_other(classes: list[int]) -> None:
    for seed in range(30):
        image, mask = draw_scene(classes, 128, np.random.default_rng(seed))
        assert image.shape == (128, 128, 3)
        assert image.dtype == mask.dtype == np.uint8
        values, pixels = np.unique(mask, return_counts=True)
        assert values.tolist() == [0, *sorted(classes)]
        assert pixels.min() >= MIN_VISIBLE * 128 * 128


def test_same_state_paints_the_same_scene_and_another_state_another() -> None:
    first, again, other = (draw_scene([1, 2], 96, np.random.default_rng(s)) for s in (4, 4, 5))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    assert (first[1] != other[1]).any()


def test_mask_edges_lie_on_image_edges() -> None:
    across, elsewhere = [], []
    for seed in range(40):
        image, mask = draw_scene([1 + seed % 5], 128, np.random.default_rng(seed))
        step = np.abs(np.diff(image.astype(int), axis=1)).sum(axis=2)
        edge = mask[:, 1:] != mask[:, :-1]
        across.append(step[edge])
        elsewhere.append(step[(mask[:, 1:] == 0) & (mask[:, :-1] == 0)])
    assert np.median(np.concatenate(across)) > 4 * np.median(np.concatenate(elsewhere))


def test_objects_overlap_in_some_scenes() -> None:
    touching = 0
    for seed in range(40):
        _, mask = draw_scene([1, 2, 3], 128, np.random.default_rng(seed))
        left, right = mask[:, :-1], mask[:, 1:]
        touching += bool(((left != right) & (left > 0) & (right > 0)).any())
    assert 5 <= touching <= 35


@pytest.mark.parametrize("painter", PAINTERS, ids=[painter.name for painter in PAINTERS])
def test_outline_fills_a_fair_part_of_its_circle(painter: object) -> None:
    radius = 40.0
    axis = np.arange(-60, 61, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    inside = painter.outline(u, v, radius) > 0  # type: ignore[attr-defined]
    assert 0.5 < inside.sum() / (np.pi * radius**2) < 1.2
    assert not inside[np.hypot(u, v) > 1.31 * radius].any()  # else it leaves its patch


def test_every_texture_has_two_colors_in_fair_shares_and_its_own_repeat() -> None:
    axis = np.arange(-64, 64, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    spectra = []
    for painter in PAINTERS:
        share = painter.texture(u, v, 10.0)
        assert share.min() == 0
        assert share.max() == 1
        assert 0.25 < share.mean() < 0.75, painter.name
        spectrum = np.abs(np.fft.rfft2(share - share.mean())).ravel()
        spectra.append(spectrum / np.linalg.norm(spectrum))
    likeness = np.array(spectra) @ np.array(spectra).T
    assert (likeness - np.eye(len(PAINTERS))).max() < 0.7
