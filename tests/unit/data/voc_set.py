"""Small data sets of the true formats of VOC 2012 and SBD, written by tests that read them."""

import numpy as np
from PIL import Image

from tag2mask.io.masks import save_mask

TRAIN = ("2007_000032", "2007_000039")
VAL = ("2007_000033",)
SBD_TRAIN = ("2007_000032", "2007_000033", "2008_000008")
"""SBD's lists overlap with both lists of VOC."""
SBD_VAL = ("2008_000015",)
TRAIN_AUG = ("2007_000032", "2007_000039", "2008_000008", "2008_000015")
SIZES = {"train": 2, "val": 1, "train_aug": 4}
HEIGHT, WIDTH = 4, 6


def official_mask():
    """A cat with an ignored border."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, 2:] = 8
    mask[:, 2] = 255
    return mask


def sbd_mask():
    """A dog and a person; not symmetric, so that a transposed mask is noticed."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[0, :3] = 12
    mask[3, 5] = 15
    return mask


def write_list(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def write_voc(root):
    """Write VOC's devkit: five images of the trainval archive, two lists, three official masks."""
    for folder in ("JPEGImages", "SegmentationClass", "Annotations"):
        (root / folder).mkdir(parents=True)
    for name in sorted({*TRAIN, *VAL, *SBD_TRAIN, *SBD_VAL}):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "JPEGImages" / f"{name}.jpg")
        text = "<annotation><object><name>cat</name></object></annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    for name in (*TRAIN, *VAL):
        save_mask(official_mask(), root / "SegmentationClass" / f"{name}.png")
    write_list(root / "ImageSets" / "Segmentation" / "train.txt", TRAIN)
    write_list(root / "ImageSets" / "Segmentation" / "val.txt", VAL)
    return root


def write_sbd(root):
    """Write SBD's lists and MATLAB files as its archive holds them; needs scipy."""
    for name in {*SBD_TRAIN, *SBD_VAL}:
        write_mat(root / "dataset" / "cls" / f"{name}.mat", sbd_mask())
    write_list(root / "dataset" / "train.txt", SBD_TRAIN)
    write_list(root / "dataset" / "val.txt", SBD_VAL)
    return root


def write_mat(path, mask):
    """Write one class mask with the three fields of SBD, one of them a cell of sparse matrices."""
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    boundaries = np.empty((20, 1), dtype=object)
    for value in range(20):
        boundaries[value, 0] = csc_matrix((mask == value + 1).astype(float))
    present = np.setdiff1d(np.unique(mask), [0]).astype(np.uint8)[:, None]
    fields = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": present}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": fields}, do_compression=True)
