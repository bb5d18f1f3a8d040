"""FiftyOne ImageSegmentationDirectory: data/ with images, labels/ with gray masks, load.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tag2mask.data.index import find_masks
from tag2mask.errors import DataError
from tag2mask.formats.base import Format, MaskCollection, NamedMask, ReadMasks
from tag2mask.io.json_files import read_object
from tag2mask.io.masks import read_mask
from tag2mask.types import BACKGROUND, IGNORE

NAME = "fiftyone"
IMAGES, MASKS, TARGETS, LOADER = "data", "labels", "mask_targets.json", "load.py"
LOADER_TEXT = '''\
"""Open this folder in FiftyOne: python load.py"""

import json
from pathlib import Path

import fiftyone as fo

folder = Path(__file__).parent
dataset = fo.Dataset.from_dir(
    dataset_dir=str(folder), dataset_type=fo.types.ImageSegmentationDirectory
)
targets = json.loads((folder / "mask_targets.json").read_text(encoding="utf-8"))
dataset.default_mask_targets = {int(value): name for value, name in targets.items()}
scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
for sample in dataset.iter_samples(autosave=True):
    name = Path(sample.filepath).relative_to(folder / "data").as_posix()
    for field, value in scores.get(name, {}).items():
        sample[field] = value
fo.launch_app(dataset).wait()
'''


class FiftyOne(Format):
    """A folder that FiftyOne opens without a converter; masks have class indices as gray values.

    Source:
        docs.voxel51.com, ImageSegmentationDirectory: single-channel masks with the names of the
        images, folders kept.
    """

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Copy the images and write masks, names of mask values, scores and a script that loads."""
        scores = {}
        for image in masks:
            image.copy_image(out / IMAGES / image.file_name, NAME)
            image.save_gray_mask(out / MASKS / f"{image.name}.png")
            known = {} if image.uncertainty is None else {"uncertainty": image.uncertainty}
            scores[image.file_name] = {"class_scores": dict(image.scores), **known}
        names = dict(enumerate(("background", *masks.class_names), start=BACKGROUND))
        _write_json(out / TARGETS, {**names, IGNORE: "ignore"})
        _write_json(out / "scores.json", scores)
        (out / LOADER).write_text(LOADER_TEXT, encoding="utf-8")

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read `labels/` of such a folder; `mask_targets.json` names the classes."""
        class_names = _read_targets(path / TARGETS)
        folder = path / MASKS
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; export from FiftyOne with labels in it")

        def read() -> Iterator[NamedMask]:
            for name, mask in find_masks(folder).items():
                yield NamedMask(name, read_mask(mask, len(class_names)))

        return ReadMasks(class_names, read())


def _read_targets(path: Path) -> tuple[str, ...]:
    """Read the names of mask values 1, 2, ...; those of background and ignore do not matter."""
    advice = "FiftyOne does not export it: copy it from the folder that tag2mask wrote"
    written = read_object(path, advice=advice)
    try:
        targets = {int(value): str(name) for value, name in written.items()}
    except ValueError as error:
        raise DataError(f"{path}: a mask value is no whole number; {advice}") from error
    values = sorted(value for value in targets if value not in (BACKGROUND, IGNORE))
    if not values or values != list(range(1, len(values) + 1)):
        raise DataError(f"{path}: needs the names of mask values 1, 2, ... without gaps")
    return tuple(targets[value] for value in values)


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
