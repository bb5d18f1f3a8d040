"""A small data set of COCO's true format, written by tests that read it."""

import json

import numpy as np
from PIL import Image

CATEGORIES = ((1, "person"), (18, "dog"), (90, "toothbrush"))
"""With gaps between the ids, as COCO's, and written out of order."""


def square(left, top, right, bottom):
    return [float(number) for number in (left, top, right, top, right, bottom, left, bottom)]


def annotation(number, image, category, segmentation, crowd=0):
    return {
        "segmentation": segmentation,
        "area": 1.5,
        "iscrowd": crowd,
        "image_id": image,
        "bbox": [0.0, 0.0, 2.0, 2.0],
        "category_id": category,
        "id": number,
    }


def document(annotations, images=((9, 8, 6), (25, 8, 6), (30, 8, 6)), year="train2014"):
    """An instances file; images are (id, width, height)."""
    return {
        "info": {"year": 2014, "description": "caf\u00e9 [}"},
        "images": [
            {
                "license": 5,
                "file_name": f"COCO_{year}_{number:012d}.jpg",
                "height": height,
                "width": width,
                "id": number,
            }
            for number, width, height in images
        ],
        "licenses": [{"id": 1, "name": "x"}],
        "annotations": list(annotations),
        "categories": [
            {"supercategory": "thing", "id": number, "name": name}
            for number, name in reversed(CATEGORIES)
        ],
    }


def usual():
    """A person over a dog (in file order), then a toothbrush; a crowd of dogs; nothing."""
    crowd = {"counts": [0, 12, 36], "size": [6, 8]}
    return document(
        [
            annotation(501, 25, 18, crowd, crowd=1),
            annotation(502, 9, 18, [square(0, 0, 4, 4)]),
            annotation(503, 25, 1, [square(5, 0, 8, 6)]),
            annotation(504, 9, 1, [square(2, 2, 6, 6), square(7, 0, 8, 1)]),
            annotation(505, 9, 90, [square(5, 4, 6, 6)]),
        ]
    )


def write_images(folder, found, gray=()):
    folder.mkdir(parents=True, exist_ok=True)
    for image in found["images"]:
        shape = (image["height"], image["width"])
        shape = shape if image["id"] in gray else (*shape, 3)
        picture = Image.fromarray(np.full(shape, image["id"] * 5, dtype=np.uint8))
        picture.save(folder / image["file_name"])


def write_data(root, found=None, split="train2014", **options):
    """Write the JSON and the images in COCO's own layout; returns the JSON's path."""
    found = usual() if found is None else found
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    write_images(root / split, found, **options)
    return path
