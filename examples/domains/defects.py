"""Defects from good and bad images: train on tags, score the masks, compare with a color threshold.

    python examples/domains/defects.py OUT [STEPS] [IMAGES]

The images are generated (`domain_images.surface`): ground metal, on which a scuff is a place where
the grain runs in another direction. Bad images have the tag `scuff`, good ones none. True masks of
images that training never saw are used for the scores only.
"""

import sys
from pathlib import Path

from color_threshold import best_threshold
from domain_images import small_images, surface, write_scenes
from domain_picture import save_picture

import tag2mask

out = Path(sys.argv[1])
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 30
count = int(sys.argv[3]) if len(sys.argv) > 3 else 80

held_out = [surface(10_000 + index) for index in range(max(4, count // 4))]
write_scenes([surface(index) for index in range(count)], out / "data")
write_scenes(held_out, out / "test", masks=out / "truth")

run = tag2mask.train("cam/own_defects", out / "run", overrides=small_images(out / "data", steps))
# Without tags: the classifier decides which images have a defect. A texture has edges everywhere,
# so no refiner follows them; small defects need a close look, at twice the size.
close = {"predict.refine": False, "predict.scales": 2, "predict.background_rule": "fixed"}
tag2mask.predict(run, out / "test" / "images", out / "masks", overrides=close)
score = tag2mask.evaluate(out / "masks", out / "truth", class_names=["scuff"])

threshold, feature = best_threshold(held_out)
save_picture(held_out, out / "masks", out / "picture.png", classes=1)
print(f"IoU of scuffs, classes from the classifier: {score.iou[1]:.3f}")
print(f"best color threshold, fitted with the masks: {threshold:.3f} ({feature})")
print(f"difference: {score.iou[1] - threshold:+.3f}")
