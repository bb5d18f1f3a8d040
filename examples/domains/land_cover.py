"""Land cover, where every pixel belongs to a class: masks without background from tags.

    python examples/domains/land_cover.py OUT [STEPS] [IMAGES]

The images are generated (`domain_images.land`): one to three of four land covers, which differ in
texture only. Tissue works in the same way. `predict.has_background=false` is all that it takes.
"""

import itertools
import sys
from pathlib import Path

from color_threshold import linear_miou
from domain_images import LAND_COVER, land, small_images, write_scenes
from domain_picture import save_picture

import tag2mask

out = Path(sys.argv[1])
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 30
count = int(sys.argv[3]) if len(sys.argv) > 3 else 80

# One land cover alone is easy for everybody, so only mixed images are scored.
candidates = (land(10_000 + index) for index in itertools.count())
mixed = list(itertools.islice((one for one in candidates if len(one.tags) > 1), max(4, count // 4)))
write_scenes([land(index) for index in range(count)], out / "data")
write_scenes(mixed, out / "test", masks=out / "truth")

run = tag2mask.train("cam/own_land_cover", out / "run", overrides=small_images(out / "data", steps))
tag2mask.label(run, out / "test", out / "masks")
score = tag2mask.evaluate(out / "masks", out / "truth", class_names=LAND_COVER)

baseline = linear_miou(mixed, len(LAND_COVER))
save_picture(mixed, out / "masks", out / "picture.png", classes=len(LAND_COVER))
print(f"mean IoU, classes from tags: {score.miou:.3f}")
print(f"best linear function of the color, fitted with the masks, with the tags: {baseline:.3f}")
print(f"difference: {score.miou - baseline:+.3f}")
