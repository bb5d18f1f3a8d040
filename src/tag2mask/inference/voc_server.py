"""Masks in the format of VOC's evaluation server, which alone can score the list `test`.

```
OUT/results/VOC2012/Segmentation/comp5_test_cls/ID.png   one mask per image; upload `results`
OUT/classes.json, OUT/scores.jsonl                       as beside all masks
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tag2mask.data.index import count
from tag2mask.data.tags import name_some
from tag2mask.data.voc import IMAGE_FOLDER, VOC_CLASSES, read_list, voc_root
from tag2mask.errors import DataError, RunError, did_you_mean

SERVER_FOLDER = Path("results", "VOC2012", "Segmentation", "comp5_test_cls")
"""Where the server expects the masks (VOC 2012 development kit, section 5)."""


def server_images(paths: Sequence[Path], name: str) -> list[Path]:
    """Return the images of a VOC list, in its order.

    Args:
        paths: One folder in VOC layout.
        name: Name of the list: `test`, or `val` to try it out.

    Raises:
        DataError: If there are several folders, or the list or an image is missing.
    """
    if len(paths) != 1:
        raise DataError(f"--voc-server {name}: give one folder in VOC layout, not {len(paths)}")
    root = voc_root(paths[0])
    images = [root / IMAGE_FOLDER / f"{image}.jpg" for image in read_list(root, name)]
    missing = [image.name for image in images if not image.is_file()]
    if missing:
        raise DataError(
            f"{root / IMAGE_FOLDER}: {count(len(missing), 'image')} of {name} missing: "
            f"{name_some(missing)}; the server rejects incomplete results"
        )
    return images


def reject_other_classes(class_names: Sequence[str]) -> None:
    """Reject a network whose mask values are not those of VOC.

    Raises:
        RunError: If the classes are not VOC's 20 in their order.
    """
    if tuple(class_names) == VOC_CLASSES:
        return
    strange = next((name for name in class_names if name not in VOC_CLASSES), None)
    hint = f" '{strange}' is none.{did_you_mean(strange, VOC_CLASSES)}" if strange else ""
    raise RunError(
        f"--voc-server needs a run with VOC's 20 classes in alphabetical order, this one has "
        f"{len(class_names)}.{hint}"
    )
