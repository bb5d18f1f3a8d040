"""Weeds in a large mosaic: train on tagged patches, predict the mosaic by tiles.

    python examples/domains/mosaic.py OUT [STEPS] [PATCHES] [HEIGHT]

The mosaics are generated (`domain_images.field`): crop rows, and weeds that differ in texture only.
Patches of one field have the tag `weeds` or none; another field is predicted in one piece.
"""

import sys
from pathlib import Path

import numpy as np
from color_threshold import best_threshold
from domain_images import field, patches, small_images, write_scenes
from domain_picture import save_picture

import tag2mask

out = Path(sys.argv[1])
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 30
count = int(sys.argv[3]) if len(sys.argv) > 3 else 80
height = int(sys.argv[4]) if len(sys.argv) > 4 else 1600

size = (height, height * 5 // 4)
known, other = field(0, size), field(1, size)
write_scenes(patches(known, 128, count, np.random.default_rng(0)), out / "data")
write_scenes([other], out / "test", masks=out / "truth")

run = tag2mask.train("cam/own_defects", out / "run", overrides=small_images(out / "data", steps))
image = out / "test" / "images" / "0000.png"
# Tiles of a few patches show the network what it knows; in one piece, the image would be
# shrunk to 1,024 px.
for name, tile_px in (("masks", 256), ("masks_in_one_piece", 8192)):
    settings = {
        "predict.tile_px": tile_px,
        "predict.scales": "1,1.5",
        "predict.flip": False,
        "predict.refine": False,  # a texture has edges everywhere
    }
    tag2mask.predict(run, image, out / name, overrides=settings)
scores = {
    name: tag2mask.evaluate(out / name, out / "truth", class_names=["weeds"]).iou[1]
    for name in ("masks", "masks_in_one_piece")
}

threshold, feature = best_threshold([other])
save_picture([other], out / "masks", out / "picture.png", classes=1)
print(f"IoU of weeds by tiles: {scores['masks']:.3f}")
print(f"shrunk to one piece: {scores['masks_in_one_piece']:.3f}")
print(f"best color threshold, fitted with the mask: {threshold:.3f} ({feature})")
print(f"difference: {scores['masks'] - threshold:+.3f}")
