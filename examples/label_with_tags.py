"""Write masks of tagged images with a trained run, and score them if there are true masks.

Run: python examples/label_with_tags.py RUN IMAGES MASKS [TRUE_MASKS]
IMAGES contains images and `tags.csv` with the columns `image,tags`; `;` separates tags.
"""

import sys
from pathlib import Path

import tag2mask

run, images, masks = (Path(argument) for argument in sys.argv[1:4])

# The tags select the classes of each mask. The run's own settings apply unless they are overridden.
summary = tag2mask.label(run, images, masks, overrides={"predict.scales": [1.0, 0.5]})
print(f"{summary.written} masks in {masks}, {len(summary.unreadable)} unreadable images")

# The same for a single image, with its maps.
segmenter = tag2mask.load(run)
path = sorted(path for path in images.iterdir() if path.suffix in (".jpg", ".png"))[0]
prediction = segmenter.label(path, tags=segmenter.class_names[:2], keep_cam=True)
print(path.name, prediction.classes, prediction.cam.shape)

if len(sys.argv) > 4:
    report = tag2mask.evaluate(masks, sys.argv[4], class_names=segmenter.class_names)
    for name, iou in zip(("background", *report.class_names), report.iou, strict=True):
        print(f"{name:<12}{iou:.3f}")
    print(f"{'mean':<12}{report.miou:.3f}")
