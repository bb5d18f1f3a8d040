"""Segment images with an exported network; needs numpy, pillow and onnxruntime only.

python examples/predict_with_onnx.py model.onnx OUT image.jpg more.jpg
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, out: str, images: list[str]) -> None:
    """Write an indexed mask for each image and print its classes."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    classes = json.loads(metadata["classes"])
    print("license of the backbone's weights:", metadata["weights_license"])
    Path(out).mkdir(parents=True, exist_ok=True)
    for name in images:
        with Image.open(name) as opened:
            image = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        mask, scores = session.run(None, {"image": image})
        Image.fromarray(mask).save(Path(out) / f"{Path(name).stem}.png")
        found = [classes[value - 1] for value in np.unique(mask) if value]
        best = ", ".join(f"{c} {s:.2f}" for c, s in zip(classes, scores, strict=True) if s > 0.5)
        print(f"{Path(name).name}: {' '.join(found) or 'background only'} (probable: {best})")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
