"""Generated images of three domains where tags are easy to give and colors say nothing.

All textures of one image have the same mean color and the same distribution of gray values; only
the direction, size and shape of their structures differ. Light and tint change from image to image.
No threshold on color separates such textures, as on real surfaces, fields and tissues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.io.masks import save_mask

Plane = npt.NDArray[np.float64]
Random = np.random.Generator
LAND_COVER = ("crops", "forest", "scrub", "water")


class Scene(NamedTuple):
    """One image with its true mask."""

    image: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    mask: npt.NDArray[np.uint8]
    """(H, W) mask values; 0 is background."""
    tags: tuple[str, ...]


def grain(size: tuple[int, int], angle: float, length: float, width: float, rng: Random) -> Plane:
    """Draw noise whose structures have a direction, with normally distributed values.

    Args:
        size: (H, W).
        angle: Direction of the structures in radians.
        length: Their length in pixels.
        width: Their width in pixels.
        rng: Random generator.
    """
    y, x = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    gain = np.exp(-2 * ((along * length) ** 2 + (across * width) ** 2))
    gain *= 1 - np.exp(-2 * (np.hypot(along, across) * 12) ** 2)  # no broad light and dark areas
    return standardized(np.fft.irfft2(np.fft.rfft2(rng.normal(size=size)) * gain, size))


def dots(size: tuple[int, int], radius: float, rng: Random) -> Plane:
    """Draw noise of round structures of one size."""
    y, x = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    frequency = np.hypot(x, y) * radius
    gain = np.exp(-(((frequency - 0.35) / 0.12) ** 2))
    return standardized(np.fft.irfft2(np.fft.rfft2(rng.normal(size=size)) * gain, size))


def rows(size: tuple[int, int], angle: float, distance: float, rng: Random) -> Plane:
    """Draw parallel rows with irregular plants in them."""
    y, x = np.mgrid[: size[0], : size[1]]
    across = -x * np.sin(angle) + y * np.cos(angle)
    bend = 0.15 * dots(size, 20, rng)
    wave = np.sin(2 * np.pi * (across / distance + bend + rng.random()))
    return standardized(wave + 0.5 * grain(size, angle, 2, 2, rng))


def standardized(plane: Plane) -> Plane:
    """Give the values a normal distribution, by their rank: textures then share one histogram."""
    order = plane.ravel().argsort().argsort()
    uniform = (order + 0.5) / plane.size
    # logistic quantiles are close to normal ones and need no library
    return (np.log(uniform / (1 - uniform)) * np.sqrt(3) / np.pi).reshape(plane.shape).clip(-3, 3)


def blobs(size: tuple[int, int], scale: float, rng: Random) -> Plane:
    """Draw smooth values, for the outlines of regions."""
    y, x = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    gain = np.exp(-2 * (np.hypot(x, y) * scale) ** 2)
    return np.fft.irfft2(np.fft.rfft2(rng.normal(size=size)) * gain, size)


def ellipse(size: tuple[int, int], radius: float, rng: Random) -> npt.NDArray[np.bool_]:
    """Draw one irregular ellipse within the image."""
    y, x = np.mgrid[: size[0], : size[1]]
    margin = min(radius, min(size) / 3)
    cy, cx = (rng.uniform(margin, side - margin) for side in size)
    angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.55, 1.0)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    edge = blobs(size, 24, rng)
    return np.hypot(u / radius, v / (radius * ratio)) + 0.12 * edge / edge.std() < 1


def colored(plane: Plane, rng: Random, tint: Sequence[float] = (1, 1, 1)) -> npt.NDArray[np.uint8]:
    """Turn a texture of mean 0 into an RGB image in a light of its own."""
    size = plane.shape
    light = blobs(size, 0.6 * max(size), rng)
    light = 1 + 0.12 * light / (np.abs(light).max() + 1e-8)
    level, contrast = rng.uniform(95, 160), rng.uniform(20, 30)
    color = np.array(tint) * rng.uniform(0.93, 1.07, 3)
    image = (level + contrast * plane)[..., None] * light[..., None] * color
    image += rng.normal(size=(*size, 3)) * 3
    return image.clip(0, 255).astype(np.uint8)


def surface(index: int, side: int = 128) -> Scene:
    """Draw a ground metal surface; every second one has a scuff, where the grain runs elsewhere."""
    rng = np.random.default_rng((1, index))
    size, angle = (side, side), rng.uniform(-0.25, 0.25)
    plane = grain(size, angle, 30, 1.2, rng)
    mask = np.zeros(size, dtype=np.uint8)
    if index % 2:
        for _ in range(rng.integers(1, 3)):
            inside = ellipse(size, side * rng.uniform(0.16, 0.28), rng)
            turn = rng.choice((-1, 1)) * rng.uniform(0.9, 1.57)
            plane = np.where(inside, grain(size, angle + turn, 30, 1.2, rng), plane)
            mask[inside] = 1
    return Scene(colored(plane, rng), mask, ("scuff",) if mask.any() else ())


def land(index: int, side: int = 128) -> Scene:
    """Draw an aerial image in which every pixel belongs to one of its one to three land covers."""
    rng = np.random.default_rng((2, index))
    size = (side, side)
    textures: Sequence[Callable[[], Plane]] = (
        lambda: rows(size, rng.uniform(0, np.pi), rng.uniform(7, 10), rng),
        lambda: dots(size, rng.uniform(4.5, 6), rng),
        lambda: dots(size, rng.uniform(1.2, 1.8), rng),
        lambda: grain(size, rng.uniform(-0.3, 0.3), 16, 3, rng),
    )
    chosen = rng.permutation(len(textures))[: rng.integers(1, 4)]
    heights = np.stack([blobs(size, side / 4, rng) for _ in chosen])
    owner = chosen[heights.argmax(axis=0)]
    plane, mask = np.zeros(size), np.zeros(size, dtype=np.uint8)
    for value in np.unique(owner):
        inside = owner == value
        plane[inside] = textures[value]()[inside]
        mask[inside] = value + 1
    tags = tuple(LAND_COVER[value] for value in np.unique(owner))
    return Scene(colored(plane, rng, (0.95, 1.05, 0.9)), mask, tags)


def field(index: int, size: tuple[int, int]) -> Scene:
    """Draw a mosaic of a field of crop rows, with patches of weeds between them."""
    rng = np.random.default_rng((3, index))
    plane = rows(size, rng.uniform(-0.4, 0.4), 11, rng)
    height = blobs(size, 150, rng)
    inside = height > np.quantile(height, 0.88)
    inside |= dots(size, 3, rng) * 0.02 * height.std() + height > np.quantile(height, 0.88)
    weeds = dots(size, 5, rng)
    mask = inside.astype(np.uint8)
    image = colored(np.where(inside, weeds, plane), rng, (0.9, 1.05, 0.85))
    return Scene(image, mask, ("weeds",))


def patches(scene: Scene, side: int, count: int, rng: Random) -> list[Scene]:
    """Cut square patches; one with very few weeds gets no tag and no mask, as a person would say.

    Half of the patches show weeds, if the mosaic has enough of them.
    """
    found: list[Scene] = []
    height, width = scene.mask.shape
    while len(found) < count:
        top, left = rng.integers(0, height - side), rng.integers(0, width - side)
        window = (slice(top, top + side), slice(left, left + side))
        share = float((scene.mask[window] > 0).mean())
        if 0 < share < 0.05 or (share > 0) != (len(found) % 2 == 1):
            continue
        found.append(Scene(scene.image[window], scene.mask[window], scene.tags if share else ()))
    return found


def write_scenes(scenes: Sequence[Scene], folder: Path, masks: Path | None = None) -> None:
    """Write images and `tags.csv`; true masks go into a folder of their own, for scores only."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["image,tags"]
    for index, scene in enumerate(scenes):
        name = f"{index:04d}"
        PILImage.fromarray(scene.image).save(folder / "images" / f"{name}.png")
        lines.append(f"{name}.png,{';'.join(scene.tags)}")
        if masks is not None:
            masks.mkdir(parents=True, exist_ok=True)
            save_mask(scene.mask, masks / f"{name}.png")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def small_images(data: Path, steps: int) -> dict[str, object]:
    """Return the settings for a short training on images of 128 px."""
    return {
        "data.root": data,
        "data.crop_px": 128,
        "data.long_side_min_px": 112,
        "data.long_side_max_px": 160,
        "optim.steps": steps,
        "run.evaluate_every": 0,
        "run.evaluate_images": 10,
        "run.estimate": False,
    }
