"""Segment NumPy arrays with a trained run, and follow the progress over a folder.

Run: python examples/segment_arrays.py RUN IMAGES OUT
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import tag2mask

run, images, out = (Path(argument) for argument in sys.argv[1:4])
segmenter = tag2mask.load(run)
paths = sorted(path for path in images.iterdir() if path.suffix in (".jpg", ".png"))[:2]

# Arrays in, masks out: RGB, gray, RGBA, or float in [0, 1]. A list gives a list.
arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
predictions = segmenter.predict([arrays[0], arrays[1] / 255], background=0.3, refiner="none")
for path, prediction in zip(paths, predictions, strict=True):
    prediction.save(out / f"{path.stem}.npy")  # the mask
    prediction.save(out / f"{path.stem}.jpg")  # the mask over the image

# One tag is enough; a list of images takes one entry of tags each.
tag = segmenter.class_names[0]
print("labeled:", segmenter.label(arrays[0], tags=tag).classes)

# A folder is segmented one image at a time.
for prediction in segmenter.predict(images):
    print(prediction.name, prediction.classes)


# Whole folders, in several processes if need be: finished masks are skipped.
def show(progress: tag2mask.ImageProgress) -> None:
    """Print one line per image."""
    print(f"{progress.done}/{progress.total} {progress.name}")


tag2mask.predict(run, images, out / "masks", on_image=show)
