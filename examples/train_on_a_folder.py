"""Train on a folder of tagged images, then segment images without tags.

Run: python examples/train_on_a_folder.py IMAGES RUN [STEPS]
IMAGES contains images and `tags.csv` with the columns `image,tags`; `;` separates tags.
"""

import sys
from pathlib import Path

import tag2mask

images, run = Path(sys.argv[1]), Path(sys.argv[2])
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 2000

tag2mask.train(
    "rml/synthetic_tiny",
    run,
    overrides={"data.name": "folder", "data.root": images, "optim.steps": steps},
)

# One image: the mask, the class scores, and a picture of both.
segmenter = tag2mask.load(run)
path = next(path for path in sorted(images.iterdir()) if path.suffix in (".jpg", ".png"))
prediction = segmenter.predict(path)
print(path.name, prediction.mask.shape, prediction.classes)
prediction.save(run / "overlay.png", format="overlay")

# All images of a folder: indexed PNG masks and classes.json.
summary = tag2mask.predict(run, images, run / "masks")
print(f"{summary.written} masks in {run / 'masks'}")
