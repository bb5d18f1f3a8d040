"""Make the mask of a large image from overlapping tiles, in memory that tiles bound.

1. The network sees each tile as an image of its own. Its maps are kept at a quarter of the side
   that it saw, in half precision.
2. The classes are selected once: a class is as probable as in its most probable tile. Each CAM is
   normalized by its minimum and maximum over all tiles, so a tile without objects stays background.
3. The maps of each tile are refined. Bands of rows are blended, thresholded and written into the
   mask one after the other.

An image that is one tile goes through the same steps, with its maps as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tag2mask.config.schema import PredictConfig
from tag2mask.functional.bands import bands, is_large, upsample_rows
from tag2mask.functional.cam import upsample
from tag2mask.inference.postprocessing import (
    SelectedMaps,
    ignore_uncertain,
    image_background,
    maps_to_mask,
    select_maps,
)
from tag2mask.inference.tiling import Tile, TileGrid
from tag2mask.inference.uncertainty import combine_parts, network_parts, refinement_parts
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.types import BACKGROUND, IGNORE, ClassSource, Image, Mask, Prediction

if TYPE_CHECKING:  # `segmenter` imports this module
    from tag2mask.inference.segmenter import Segmenter

Floats = npt.NDArray[np.float32]
KEPT_SHARE = 4
"""Maps of a tile are kept at the side that the network saw, divided by this."""


class TileMaps(NamedTuple):
    """What is kept of one tile."""

    tile: Tile
    output: NetworkOutput
    """On the host, without what propagates; the CAM is normalized over all tiles."""
    working_size: tuple[int, int]
    """(h, w) that the network saw."""


def needs_tiles(size: Sequence[int], config: PredictConfig) -> bool:
    """Return whether an image of (H, W) `size` is cut, or too large to be processed at once."""
    return is_large(size) or (config.tile_px is not None and max(size[:2]) > config.tile_px)


def segment_large(
    segmenter: Segmenter,
    image: Image,
    tags: npt.NDArray[np.uint8] | None,
    *,
    keep_cam: bool = False,
    name: str = "",
) -> Prediction:
    """Segment a large image; see `Segmenter.segment`.

    Its uncertainty is the mean over the tiles with objects, without the part `views` unless there
    is a single tile. Its CAM has the size at which maps are kept.

    Args:
        segmenter: Runs the network, refines and thresholds.
        image: (H, W, 3) uint8 RGB.
        tags: (F,) in {0, 1}; None lets the classifier select the classes.
        keep_cam: Keep the CAM that the mask was made from.
        name: Name of the image, for methods that draw random numbers while labeling.
    """
    config = segmenter.config
    grid = TileGrid.of((image.shape[0], image.shape[1]), config.tile_px, config.tile_overlap)
    tiles = _run_network(segmenter, image, tags, name, grid)
    probs = torch.stack([one.output.probs for one in tiles]).amax(dim=0)
    shared = tiles[0].output._replace(probs=probs)
    class_source: ClassSource = "classifier" if tags is None else "tags"
    classes = segmenter.select_classes(shared, tags, class_source)
    values = [one.output.cam[:, list(classes)].float().flatten(2) for one in tiles]
    background = image_background(torch.cat(values, dim=2)[:, :, None], config)
    are_chosen = tags is not None or segmenter.protocol.selects_by_classifier
    parts = network_parts(shared, classes, background, are_chosen=are_chosen)
    if classes:
        blender = _TileBlender(segmenter, image, tags, name, grid, tiles, classes, background)
        mask = blender.blend()
        parts |= _mean_parts(blender.parts)
    else:
        value = BACKGROUND if config.has_background else IGNORE
        mask = np.full(grid.size, value, dtype=np.uint8)
    return Prediction(
        mask=mask,
        class_names=segmenter.class_names,
        scores=dict(zip(segmenter.class_names, probs[0].tolist(), strict=True)),
        class_source=class_source,
        image=image,
        cam=_complete_cam(tiles, grid, classes) if keep_cam else None,
        name=name,
        uncertainty=combine_parts(parts),
    )


def _run_network(
    segmenter: Segmenter,
    image: Image,
    tags: npt.NDArray[np.uint8] | None,
    name: str,
    grid: TileGrid,
) -> list[TileMaps]:
    """Run the network on every tile and normalize the CAM over all of them."""
    found: list[TileMaps] = []
    lows, highs = [], []
    for tile in grid:
        output = segmenter.run_network(image[tile.pixels], tags, name)
        if len(grid) == 1:
            size = (output.cam.shape[-2], output.cam.shape[-1])
            return [TileMaps(tile, output, size)]
        found.append(_kept(tile, output))
        low, high = _core_range(output, grid, tile)
        lows.append(low)
        highs.append(high)
    lowest, highest = torch.stack(lows).amin(dim=0), torch.stack(highs).amax(dim=0)
    return [_normalized(one, lowest, highest) for one in found]


def _kept(tile: Tile, output: NetworkOutput) -> TileMaps:
    """Copy what is kept of a tile to the host, smaller and in half precision."""
    size = (output.cam.shape[-2], output.cam.shape[-1])
    small = (-(-size[0] // KEPT_SHARE), -(-size[1] // KEPT_SHARE))

    def smaller(maps: Tensor) -> Tensor:
        is_fine = maps.shape[-2] > small[0] or maps.shape[-1] > small[1]
        return (upsample(maps, small) if is_fine else maps).half().cpu()

    logits = None if output.logits is None else smaller(output.logits)
    limits = None if output.cam_range is None else output.cam_range.cpu()
    kept = NetworkOutput(
        smaller(output.cam), output.probs.float().cpu(), logits=logits, cam_range=limits
    )
    return TileMaps(tile, kept, size)


def _core_range(output: NetworkOutput, grid: TileGrid, tile: Tile) -> tuple[Tensor, Tensor]:
    """Return the (F,) minimum and maximum of the CAM in the core of a tile, not normalized.

    Outside of the core the network lacks the surroundings, and its maps may have peaks.
    """
    rows, columns = grid.core(tile, (output.cam.shape[-2], output.cam.shape[-1]))
    core = output.cam[0, :, rows, columns].flatten(1).cpu()
    low, span = _range(output)
    return low + span * core.amin(dim=1), low + span * core.amax(dim=1)


def _range(output: NetworkOutput) -> tuple[Tensor, Tensor]:
    """Return the (F,) minimum and span of the CAM before it was normalized, on the host."""
    if output.cam_range is None:  # values compare across tiles
        count = output.cam.shape[1]
        return torch.zeros(count), torch.ones(count)
    low, span = output.cam_range[0].cpu().unbind(dim=1)
    return low, span


def _normalized(one: TileMaps, lowest: Tensor, highest: Tensor) -> TileMaps:
    """Normalize the CAM of a tile by the (F,) minimum and maximum over all tiles."""
    if one.output.cam_range is None:
        return one
    low, span = _range(one.output)
    whole = highest - lowest + 1e-5  # as in normalize_cam
    factor, shift = span / whole, (low - lowest) / whole
    cam = one.output.cam.float() * factor[:, None, None] + shift[:, None, None]
    return one._replace(output=one.output._replace(cam=cam.clamp(0, 1).half()))


class _TileBlender:
    """Refines tiles row by row, and blends them into the mask."""

    def __init__(
        self,
        segmenter: Segmenter,
        image: Image,
        tags: npt.NDArray[np.uint8] | None,
        name: str,
        grid: TileGrid,
        tiles: Sequence[TileMaps],
        classes: tuple[int, ...],
        background: float,
    ) -> None:
        self._segmenter, self._image, self._tags, self._name = segmenter, image, tags, name
        self._grid, self._tiles = grid, tiles
        self._classes, self._background = classes, background
        self._row_weights, self._column_weights = grid.rows.weights(), grid.columns.weights()
        self.parts: list[Mapping[str, float]] = []
        """Parts of the uncertainty of each tile with an object."""

    def blend(self) -> Mask:
        """Return the (H, W) mask."""
        height, width = self._grid.size
        mask = np.zeros((height, width), dtype=np.uint8)
        starts = self._grid.rows.starts
        tops = (*starts, height)
        count = len(self._grid.columns.starts)
        open_rows: dict[int, list[SelectedMaps]] = {}
        for row, start in enumerate(starts):
            ended = [at for at in open_rows if starts[at] + self._grid.rows.side <= start]
            for at in ended:
                del open_rows[at]
            open_rows[row] = [self._refine(one) for one in self._tiles[row * count :][:count]]
            for top, bottom in bands(start, tops[row + 1], width):
                mask[top:bottom] = self._blend_band(open_rows, top, bottom)
        return mask

    def _refine(self, one: TileMaps) -> SelectedMaps:
        """Select and refine the maps of a tile; the result is on the host."""
        segmenter, output = self._segmenter, one.output
        pixels = self._image[one.tile.pixels]
        if segmenter.config.propagate and len(self._tiles) > 1:
            again = segmenter.run_network(pixels, self._tags, self._name)
            output = again._replace(cam=upsample(output.cam.to(again.cam), again.cam.shape[-2:]))
        output = output._replace(
            cam=output.cam.float().to(segmenter.device),
            logits=None if output.logits is None else output.logits.float().to(segmenter.device),
        )
        selected = select_maps(output, self._classes, self._background)
        selected = selected._replace(working_size=one.working_size)
        view = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        view = view.permute(2, 0, 1)[None].to(segmenter.device)
        refined = segmenter.postprocessor.refine(view, selected)
        if _shows_object(refined):
            self.parts.append(refinement_parts(selected, refined))
        if refined.kind == "logits":
            refined = refined._replace(maps=refined.maps.softmax(dim=1), kind="probs")
        return refined._replace(maps=refined.maps.cpu())

    def _blend_band(
        self, open_rows: Mapping[int, Sequence[SelectedMaps]], top: int, bottom: int
    ) -> Mask:
        """Blend the tiles of a band of rows, and threshold it."""
        width = self._grid.columns.length
        example = next(iter(open_rows.values()))[0]
        maps = torch.zeros(1, *example.maps.shape[1:-2], bottom - top, width)
        flat = maps.flatten(1, -3)
        for row, strip in open_rows.items():
            start = self._grid.rows.starts[row]
            end = min(bottom, start + self._grid.rows.side)
            if end <= top:
                continue
            rows = self._row_weights[row][top - start : end - start, None]
            for column, one in enumerate(strip):
                left = self._grid.columns.starts[column]
                part = upsample_rows(
                    one.maps.flatten(1, -3), self._grid.tile_size, top - start, end - start
                )
                part *= rows
                part *= self._column_weights[column]
                flat[:, :, : end - top, left : left + part.shape[-1]] += part
        size = (bottom - top, width)
        config = self._segmenter.config
        made = maps_to_mask(example._replace(maps=maps), size)
        band: Mask = ignore_uncertain(made, config.min_confidence).mask.numpy()
        return band


def _shows_object(refined: SelectedMaps) -> bool:
    """Return whether a pixel of refined maps is not background."""
    if refined.kind == "cam":
        return bool((refined.maps > refined.background).any())
    return bool(refined.maps.argmax(dim=-3).any())


def _mean_parts(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each part over tiles."""
    names = {name for parts in found for name in parts}
    return {
        name: float(np.mean([parts[name] for parts in found if name in parts])) for name in names
    }


def _complete_cam(tiles: Sequence[TileMaps], grid: TileGrid, classes: Sequence[int]) -> Floats:
    """Blend the CAM of all tiles at the size at which it is kept; see `LargeOutput`."""
    example = tiles[0].output.cam
    scale = example.shape[-2] / grid.rows.side, example.shape[-1] / grid.columns.side
    height, width = (max(1, round(side * by)) for side, by in zip(grid.size, scale, strict=True))
    total = np.zeros((example.shape[1], height, width), dtype=np.float32)
    weight = np.zeros((height, width), dtype=np.float32)
    rows, columns = grid.rows.weights(), grid.columns.weights()
    for one in tiles:
        cam = one.output.cam[0, list(classes)].float().cpu().numpy()
        top = min(round(one.tile.top * scale[0]), height - cam.shape[1])
        left = min(round(one.tile.left * scale[1]), width - cam.shape[2])
        share = np.outer(
            _sampled(rows[one.tile.row], cam.shape[1]),
            _sampled(columns[one.tile.column], cam.shape[2]),
        )
        position = (slice(top, top + cam.shape[1]), slice(left, left + cam.shape[2]))
        for index, plane in zip(classes, cam, strict=True):
            total[index][position] += plane * share
        weight[position] += share
    total /= np.maximum(weight, 1e-8)
    return total


def _sampled(weights: Tensor, count: int) -> Floats:
    """Return `count` evenly spaced values of the weights along a side."""
    at = ((np.arange(count) + 0.5) * (len(weights) / count)).astype(np.int64)
    values: Floats = weights.numpy()[at]
    return values
