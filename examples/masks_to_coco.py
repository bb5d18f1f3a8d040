"""Convert a folder of masks to a COCO file, which labeling tools import.

Run: python examples/masks_to_coco.py MASKS OUT.json
MASKS is a folder that `tag2mask label` or `tag2mask predict` wrote.
"""

import json
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as run_lengths

from tag2mask.io.masks import read_mask

folder = Path(sys.argv[1])
classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))["classes"]

images, annotations = [], []
for path in sorted(folder.rglob("*.png")):
    mask = read_mask(path, len(classes))
    height, width = mask.shape
    name = path.relative_to(folder).with_suffix(".jpg").as_posix()
    images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
    for value in set(np.unique(mask)) - {0, 255}:  # background and ignore
        encoded = run_lengths.encode(np.asfortranarray(mask == value, dtype=np.uint8))
        box, area = run_lengths.toBbox(encoded).tolist(), int(run_lengths.area(encoded))
        encoded["counts"] = encoded["counts"].decode()  # JSON has no bytes
        annotation = {"segmentation": encoded, "bbox": box, "area": area, "iscrowd": 0}
        ids = {"id": len(annotations) + 1, "image_id": images[-1]["id"], "category_id": int(value)}
        annotations.append(ids | annotation)

categories = [{"id": value, "name": name} for value, name in enumerate(classes, start=1)]
content = {"images": images, "annotations": annotations, "categories": categories}
Path(sys.argv[2]).write_text(json.dumps(content), encoding="utf-8")
print(f"{len(annotations)} masks of {len(images)} images in {sys.argv[2]}")
