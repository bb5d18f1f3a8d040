"""What a recipe is fitted to: a folder of tagged images, and this machine."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tag2mask.data.coco import COCOConfig, index_coco
from tag2mask.data.folder import FolderConfig, index_folder, part_names
from tag2mask.data.index import DatasetIndex
from tag2mask.data.layout import coco_splits, layout_of
from tag2mask.data.voc import index_voc, read_list, voc_lists, voc_root
from tag2mask.errors import DataError
from tag2mask.io.images import image_size

SIZED_IMAGES = 200
"""Images whose size is read; of more, evenly spread ones."""
DEFAULT_SIDE_PX = 320
"""Long side that is assumed where no image can be read."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class DataFacts:
    """A folder of tagged images."""

    root: Path
    source: str
    """Data source that reads it (`data.name`)."""
    classes: dict[str, int]
    """Tag of a training image -> number of training images that show it, sorted."""
    training_images: int
    held_out_images: int
    negatives: int
    """Training images without a tag."""
    long_side_px: int
    """Median long side of the images."""
    lists: dict[str, str] = field(default_factory=dict)
    """Keys that name the lists of a source: `split`, `val_split`."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The machine that trains."""

    cores: int
    memory_gib: float
    gpu: str | None = None
    """Name of the first GPU; None without one."""
    gpu_memory_gib: float = 0.0
    has_bf16: bool = False
    """Whether the GPU computes in bf16."""


def data_facts(root: Path) -> DataFacts:
    """Collect the form of a folder, its tags, and the number and size of its images.

    Raises:
        DataError: If training could not read it; one line per problem.
    """
    source = layout_of(root)
    index, held_out, lists = {"coco": _coco, "voc": _voc, "folder": _folder}[source](root)
    index.reject_problems()
    training = [name for name in index.images if name not in held_out]
    if not training:
        raise DataError(f"{index.where}: contains no image to train on")
    counts = Counter(tag for name in training for tag in index.tags[name])
    return DataFacts(
        root=root,
        source=source,
        classes={name: counts[name] for name in index.tag_names if counts[name]},
        training_images=len(training),
        held_out_images=len(held_out),
        negatives=sum(not index.tags[name] for name in training),
        long_side_px=_median_long_side(list(index.images.values())),
        lists=lists,
    )


def machine_facts() -> MachineFacts:
    """Collect the cores that this process may use, the memory and the GPU of this machine."""
    import torch

    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    memory = 0.0
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    if not torch.cuda.is_available():
        return MachineFacts(cores, memory)
    device = torch.cuda.get_device_properties(0)
    return MachineFacts(
        cores, memory, device.name, device.total_memory / GIB, torch.cuda.is_bf16_supported()
    )


def _folder(root: Path) -> tuple[DatasetIndex, set[str], dict[str, str]]:
    """Index a folder with tags; the source itself holds images out."""
    config = FolderConfig(name="folder", root=root)
    index = index_folder(config)
    return index, set(part_names(index, "val", config.val_fraction)), {}


def _voc(root: Path) -> tuple[DatasetIndex, set[str], dict[str, str]]:
    """Index the training list of a VOC layout; another list is held out."""
    folder = voc_root(root)
    names = voc_lists(folder)
    if not names:
        raise DataError(
            f"{folder}: there is no list in ImageSets/Segmentation; add one, a text file with one "
            "image name per line"
        )
    lists = choose_lists(names)
    held_out = read_list(folder, lists["val_split"]) if "val_split" in lists else ()
    return index_voc(folder, [lists["split"]]), set(held_out), lists


def _coco(root: Path) -> tuple[DatasetIndex, set[str], dict[str, str]]:
    """Index the training split of data in COCO format; another split is held out."""
    lists = choose_lists(coco_splits(root.expanduser()))
    config = COCOConfig(name="coco", root=root)
    held_out: set[str] = set()
    if "val_split" in lists:
        held_out = set(index_coco(config, lists["val_split"]).images)
    if not held_out:  # an instances file without its images holds nothing out
        lists = {"split": lists["split"]}
    return index_coco(config, lists["split"]), held_out, lists


def choose_lists(names: Sequence[str]) -> dict[str, str]:
    """Choose the list to train on and, if there is one, the list to hold out, by their names.

    Example:
        >>> choose_lists(["test", "train", "train_aug", "val"])
        {'split': 'train_aug', 'val_split': 'val'}
    """
    training = [name for name in names if "train" in name and "val" not in name]
    split = max(training, key=len) if training else names[0]
    held_out = [name for name in names if "val" in name and "train" not in name and name != split]
    return {"split": split} | ({"val_split": min(held_out, key=len)} if held_out else {})


def _median_long_side(paths: Sequence[Path]) -> int:
    """Return the median long side in pixels; only the headers of the files are read."""
    step = max(1, len(paths) // SIZED_IMAGES)
    sides = []
    for path in paths[::step]:
        try:
            sides.append(max(image_size(path)))
        except DataError:
            continue
    return int(statistics.median(sides)) if sides else DEFAULT_SIDE_PX
