"""Draw the picture of the README: image, CAM, pseudo-label and mask of a few scenes of the demo.

Run: python docs/make_demo_picture.py demo_run docs/images/demo.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image as PILImage

from tag2mask.data.synthetic import Synthetic
from tag2mask.inference.inspection import inspect_image
from tag2mask.inference.segmenter import Segmenter
from tag2mask.visualization.panels import PAPER
from tag2mask.visualization.strips import draw_strip, strip_panels

TITLES = {
    "image": "image and tags",
    "CAM": "class activation map",
    "pseudo-label": "pseudo-label (from tags)",
    "prediction": "mask without tags",
}
"""Panels of a strip that the picture shows, with their captions there."""
SCENES = (10, 12)
COLORS = 256


def scene_strip(segmenter: Segmenter, source: Synthetic, index: int) -> PILImage.Image:
    """Draw the panels of one held-out scene."""
    sample = source[index]
    panels = strip_panels(segmenter, sample, inspect_image(segmenter, sample))
    shown = [panel for panel in panels if panel.title in TITLES]
    return draw_strip([panel._replace(title=TITLES[panel.title]) for panel in shown])


def stack_rows(strips: list[PILImage.Image]) -> PILImage.Image:
    """Put strips below each other."""
    width = max(strip.width for strip in strips)
    picture = PILImage.new("RGB", (width, sum(strip.height for strip in strips)), PAPER)
    top = 0
    for strip in strips:
        picture.paste(strip, (0, top))
        top += strip.height
    return picture


def main() -> None:
    """Load the demo's network and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder that `tag2mask demo` wrote")
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--scenes", type=int, nargs="+", default=SCENES, help="held-out scenes")
    args = parser.parse_args()
    segmenter = Segmenter.load(args.run)
    source = Synthetic(segmenter.recipe.data, "val")
    picture = stack_rows([scene_strip(segmenter, source, index) for index in args.scenes])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLORS).save(args.out, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
