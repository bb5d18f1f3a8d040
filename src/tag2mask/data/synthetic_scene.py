"""Paints one generated scene: textured objects over clutter, with its exact mask.

All colors come from one distribution, whoever wears them, so that color alone says nothing about
the class: a class is known by its texture and its outline. Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.types import BACKGROUND, Image, Mask

Plane = npt.NDArray[np.float32]
"""(h, w) float32."""

MIN_VISIBLE = 0.02
"""Least share of the picture that each tagged class shows."""
_COLOR_DISTANCE = 90.0  # RGB distance at which neighbors are told apart at a glance
_TINT = 0.5  # how far an object's second color goes from the first towards black or white
_WHEEL = np.array([0, 4, 2], dtype=np.float32)  # where red, green and blue peak, in sixths


class _Frame(NamedTuple):
    """Coordinates of a patch of the canvas, seen from an object's center along its own axes."""

    rows: slice
    columns: slice
    u: Plane
    v: Plane


def draw_scene(classes: Sequence[int], size: int, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Paint a scene that shows all of `classes` and no other.

    Args:
        classes: Distinct mask values, each from 1 to the number of `PAINTERS`.
        size: Side of the picture in pixels.
        rng: Source of chance; the same state gives the same scene.

    Returns:
        (size, size, 3) picture, and the mask of its topmost objects; every class owns at least
        MIN_VISIBLE of the pixels.
    """
    while True:  # nearly always once: objects are placed apart
        canvas, mask = _clutter(size, rng), np.full((size, size), BACKGROUND, dtype=np.uint8)
        _place_objects(canvas, mask, classes, rng)
        visible = np.bincount(mask.ravel(), minlength=len(PAINTERS) + 1)
        if min(visible[list(classes)]) >= MIN_VISIBLE * mask.size:
            break
    canvas *= _smooth(rng.uniform(0.85, 1.15, (3, 3)), size)[..., None]  # light
    canvas += (rng.random(canvas.shape, dtype=np.float32) - np.float32(0.5)) * np.float32(14)
    return canvas.clip(0, 255).astype(np.uint8), mask


def _place_objects(
    canvas: Plane, mask: Mask, classes: Sequence[int], rng: np.random.Generator
) -> None:
    """Paint one object per class, and up to four in all, in random order; later ones lie on top."""
    size = len(mask)
    extra = rng.choice(classes, rng.integers(0, 5 - len(classes)))
    order = rng.permutation([*classes, *extra])
    taken: list[tuple[float, float, float]] = []
    for value in order:
        radius = size * rng.uniform(0.14, 0.225)
        center = _free_place(taken, radius, size, rng)
        taken.append((*center, radius))
        _paint_object(canvas, mask, int(value), center, radius, rng)


def _free_place(
    taken: Sequence[tuple[float, float, float]],
    radius: float,
    size: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Of five random places (y, x), the one that overlaps least with those already taken."""
    places = rng.uniform(0.8 * radius, size - 0.8 * radius, (5, 2))
    if not taken:
        return float(places[0, 0]), float(places[0, 1])
    others = np.array(taken)
    apart = np.hypot(*(places[:, None, :] - others[None, :, :2]).transpose(2, 0, 1))
    best = (apart / (others[:, 2] + radius)).min(axis=1).argmax()
    return float(places[best, 0]), float(places[best, 1])


def _paint_object(
    canvas: Plane,
    mask: Mask,
    value: int,
    center: tuple[float, float],
    radius: float,
    rng: np.random.Generator,
) -> None:
    """Paint one object of class `value` in two shades of a color that its surroundings lack."""
    painter = PAINTERS[value - 1]
    angle = rng.uniform(-painter.tilt, painter.tilt)
    frame = _frame(len(mask), center, 1.3 * radius, angle)
    inside = painter.outline(frame.u, frame.v, radius)
    period = len(mask) * rng.uniform(0.07, 0.085)
    share = painter.texture(frame.u, frame.v, period)
    patch = canvas[frame.rows, frame.columns]
    shade = (1 - 0.15 * frame.v / radius)[..., None]  # lighter above than below
    color = _mix(share, *_two_shades(_without_common_class(patch, rng), rng))
    _blend(patch, color * shade, inside)
    mask[frame.rows, frame.columns][inside > 0] = value


def _clutter(size: int, rng: np.random.Generator) -> Plane:
    """A smooth many-colored ground with blobs and strokes on it; none of the class textures."""
    ground = _colors(3, rng)[rng.integers(0, 3, (3, 3))]
    canvas = np.stack([_smooth(ground[..., k], size) for k in range(3)], axis=-1)
    for _ in range(rng.integers(6, 11)):
        radius = size * rng.uniform(0.06, 0.2)
        y, x = rng.uniform(0, size, 2)
        frame = _frame(size, (y, x), 1.35 * radius, rng.uniform(0, np.pi))
        patch = canvas[frame.rows, frame.columns]
        fill = _FILLS[rng.integers(len(_FILLS))]
        _blend(patch, fill(frame, radius, rng), _blob(frame, radius, rng))
    for _ in range(rng.integers(0, 4)):
        length, width = size * rng.uniform(0.2, 0.5), rng.uniform(1.0, 2.5)
        y, x = rng.uniform(0, size, 2)
        frame = _frame(size, (y, x), length, rng.uniform(0, np.pi))
        stroke = np.minimum(width - np.abs(frame.v), length - np.abs(frame.u))
        _blend(canvas[frame.rows, frame.columns], _color(rng), stroke)
    return canvas


def _plain(frame: _Frame, radius: float, rng: np.random.Generator) -> Plane:
    return _color(rng)


def _gradient(frame: _Frame, radius: float, rng: np.random.Generator) -> Plane:
    share = ((frame.u / radius + 1) / 2).clip(0, 1)
    return _mix(share, *_colors(2, rng))


def _grain(frame: _Frame, radius: float, rng: np.random.Generator) -> Plane:
    share = rng.random(frame.u.shape, dtype=np.float32)
    return _mix(share, *_two_shades(_color(rng), rng))


def _camouflage(frame: _Frame, radius: float, rng: np.random.Generator) -> Plane:
    height, width = frame.u.shape
    field = _smooth(rng.standard_normal((4, 4)), max(height, width))[:height, :width]
    return _mix((field * 4 + 0.5).clip(0, 1), *_two_shades(_color(rng), rng))


_FILLS: tuple[Callable[[_Frame, float, np.random.Generator], Plane], ...] = (
    _plain,
    _gradient,
    _grain,
    _camouflage,
)


def _blob(frame: _Frame, radius: float, rng: np.random.Generator) -> Plane:
    """Distance to the edge of an irregular rounded outline, positive inside."""
    waves = rng.integers(2, 5)
    angle = np.arctan2(frame.v, frame.u) + np.float32(rng.uniform(0, 2 * np.pi))
    edge = radius * (1 + np.float32(rng.uniform(0.05, 0.3)) * np.sin(waves * angle))
    return _plane(edge - np.hypot(frame.u, frame.v))


def _colors(count: int, rng: np.random.Generator) -> Plane:
    """Draw any colors, (count, 3) in [0, 255], from pale to full and from dark to light."""
    hue, saturation, value = rng.random((3, count, 1), dtype=np.float32)
    wheel = np.abs((hue * 6 + _WHEEL) % 6 - 3) - 1
    return np.asarray(
        (0.25 + 0.7 * value) * (255 + 255 * (0.15 + 0.7 * saturation) * (wheel.clip(0, 1) - 1))
    )


def _color(rng: np.random.Generator) -> Plane:
    return np.asarray(_colors(1, rng)[0])


def _without_common_class(patch: Plane, rng: np.random.Generator) -> Plane:
    """Draw a color that differs from the mean color of `patch`."""
    candidates = _colors(6, rng)
    distance = np.linalg.norm(candidates - patch.mean(axis=(0, 1)), axis=1)
    far = distance > _COLOR_DISTANCE
    return np.asarray(candidates[far.argmax() if far.any() else distance.argmax()])


def _two_shades(color: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """A color and its lighter or darker tint, in random order."""
    goal = np.float32(0 if color.mean() > 110 else 255)
    tint = color + np.float32(_TINT) * (goal - color)
    return (color, tint) if rng.random() < 0.5 else (tint, color)


def _mix(share: Plane, first: Plane, second: Plane) -> Plane:
    """Mix two colors (3,) by the share (h, w) of the second one: (h, w, 3)."""
    return np.asarray(first + share[..., None] * (second - first), dtype=np.float32)


def _smooth(field: npt.NDArray[np.floating], size: int) -> Plane:
    """Blow a small field up to (size, size) without edges."""
    small = PILImage.fromarray(field.astype(np.float32))
    return np.asarray(small.resize((size, size), PILImage.Resampling.BICUBIC))


def _frame(size: int, center: tuple[float, float], reach: float, angle: float) -> _Frame:
    """Cut a square of half width `reach` out of the canvas and turn its axes by `angle`."""
    top, left = (max(0, int(c - reach)) for c in center)
    bottom, right = (min(size, int(c + reach) + 2) for c in center)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(center[0])
    x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(center[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return _Frame(slice(top, bottom), slice(left, right), x * cos + y * sin, y * cos - x * sin)


def _blend(patch: Plane, color: Plane, inside: Plane) -> None:
    """Paint `color` where `inside` (pixels to the edge) is positive, softening the edge."""
    patch += (inside + 0.5).clip(0, 1)[..., None] * (color - patch)


def _ellipse(u: Plane, v: Plane, radius: float) -> Plane:
    return _plane(0.72 * radius * (1 - np.hypot(u / radius, v / (0.72 * radius))))


def _disc(u: Plane, v: Plane, radius: float) -> Plane:
    return _plane(0.95 * radius - np.hypot(u, v))


def _rectangle(u: Plane, v: Plane, radius: float) -> Plane:
    return _plane(np.minimum(1.1 * radius - np.abs(u), 0.7 * radius - np.abs(v)))


def _square(u: Plane, v: Plane, radius: float) -> Plane:
    return _plane(0.85 * radius - np.maximum(np.abs(u), np.abs(v)))


def _house(u: Plane, v: Plane, radius: float) -> Plane:
    """A square with a pointed roof (v grows downwards)."""
    roof = 0.75 * (v + 1.15 * radius - 0.9 * np.abs(u))
    return _plane(np.minimum(np.minimum(0.85 * radius - np.abs(u), 0.85 * radius - v), roof))


def _wave(x: Plane, period: float) -> Plane:
    """0 and 1 in turns along x with that period, edges one pixel wide."""
    return _plane((np.sin(x * (2 * np.pi / period)) * (period / 6) + 0.5).clip(0, 1))


def _stripes(u: Plane, v: Plane, period: float) -> Plane:
    return _wave(u, period)


def _rings(u: Plane, v: Plane, period: float) -> Plane:
    return _wave(np.hypot(u, v), 1.1 * period)


def _checks(u: Plane, v: Plane, period: float) -> Plane:
    """Squares of two colors."""
    first, second = _wave(u, 1.5 * period), _wave(v, 1.5 * period)
    return first + second - 2 * first * second


def _dots(u: Plane, v: Plane, period: float) -> Plane:
    """Small round spots on a square grid, finer than any other texture."""
    gap = np.hypot(_fold(u, 0.75 * period), _fold(v, 0.75 * period))
    return _plane((0.24 * period - gap + 0.5).clip(0, 1))


def _bricks(u: Plane, v: Plane, period: float) -> Plane:
    """Rows of bricks, each shifted by half a brick, with thin joints."""
    height, width = 0.75 * period, 1.6 * period
    row = np.floor(v / height)
    along = np.abs(_fold(u + (row % 2) * (width / 2), width))
    across = np.abs(_fold(v - height / 2, height))
    return _plane((1.2 - np.minimum(width / 2 - along, height / 2 - across)).clip(0, 1))


def _fold(x: Plane, period: float) -> Plane:
    """Signed distance to the nearest multiple of `period`."""
    return _plane(x - period * np.rint(x / period))


def _plane(values: npt.NDArray[np.floating]) -> Plane:
    return np.asarray(values, dtype=np.float32)


class Painter(NamedTuple):
    """How a class looks."""

    name: str
    outline: Callable[[Plane, Plane, float], Plane]
    """(u, v, radius) -> distance to the edge, positive inside."""
    texture: Callable[[Plane, Plane, float], Plane]
    """(u, v, period) -> share of the second color in [0, 1]."""
    tilt: float
    """Largest turn to either side in radians."""


PAINTERS = (
    Painter("beetle", _ellipse, _dots, np.pi),
    Painter("board", _square, _checks, 0.35),
    Painter("flag", _rectangle, _stripes, 0.6),
    Painter("house", _house, _bricks, 0.3),
    Painter("target", _disc, _rings, 0.0),
)
"""Mask value k is painted by PAINTERS[k - 1]."""
