"""Label Studio project folder: config.xml, tasks.json with brush masks, images, how to import."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from tag2mask.errors import DataError
from tag2mask.formats.base import Format, MaskCollection, MaskedImage, NamedMask, ReadMasks
from tag2mask.formats.brush_rle import decode, encode
from tag2mask.io.json_files import FileSchema, find_problem, read_json
from tag2mask.io.xml_files import read_xml
from tag2mask.types import BACKGROUND, IGNORE, Mask

NAME = "label_studio"
CONFIG, TASKS, IMAGES, HOW_TO = "config.xml", "tasks.json", "images", "HOW_TO_IMPORT.txt"
LABELS, IMAGE = "label", "image"
"""Names of the two tags of the labeling interface; predictions refer to them."""
IGNORE_NAME = "ignored pixels"
IGNORE_COLOR = (224, 224, 192)
MOST_BYTES = 2**31
"""Size of the largest export; a brush mask is a list of numbers."""
Side = Annotated[int, Field(ge=1, le=2**15)]
"""Pixels along a side of an image."""
_SIDE = TypeAdapter(Side)
MOST_PIXELS = 2**27
LOCAL_FILES = "/data/local-files/?d="
HOW_TO_TEXT = """\
How to import this folder into Label Studio

1. Start Label Studio so that it may read this folder (PROJECT: absolute path of this folder):
     LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true \\
     LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=PROJECT label-studio start
2. Create a project. Settings > Labeling Interface > Code: paste config.xml, save.
3. Settings > Cloud Storage > Add Source Storage > Local files:
     Absolute local path: PROJECT/images. Save it; do not sync (tasks.json lists the images).
4. Import > tasks.json.
5. Settings > Annotation: turn on "Use predictions to prelabel tasks" and choose the model version
   tag2mask. The masks are then the start of each annotation; the brush and the eraser correct them.
6. Export > JSON (not JSON-MIN, not PNG), then:
     tag2mask import EXPORT.json --format label_studio --out DATA/masks

Pixels without a label are background, which has no label of its own.
"""


class _Value(FileSchema):
    """The shape of a region; only brush regions have labels and run lengths."""

    brushlabels: Annotated[list[str], Field(min_length=1)] | None = None
    rle: list[Annotated[int, Field(ge=0, le=255)]] | None = None


class _Region(FileSchema):
    """One region of an annotation."""

    type: str = ""
    value: _Value = Field(default_factory=_Value)
    original_width: Side | None = None
    original_height: Side | None = None


class _Annotation(FileSchema):
    """What one person or model drew on an image."""

    was_cancelled: bool | None = None
    updated_at: str | None = None
    result: list[_Region] = Field(default=[])


class _Task(FileSchema):
    """One image of an export."""

    data: dict[str, Any]
    annotations: list[_Annotation] = Field(default=[])


class LabelStudio(Format):
    """A project folder with one brush region per class and image, editable in Label Studio.

    Source:
        labelstud.io/guide/predictions (brush pre-annotations) and labelstud.io/guide/storage.
    """

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write the labeling interface, the tasks and a copy of the images."""
        tasks, has_ignore = [], False
        for image in masks:
            mask = image.load()
            has_ignore = has_ignore or bool((mask == IGNORE).any())
            tasks.append(_task(image, mask, masks.class_names))
            image.copy_image(out / IMAGES / image.file_name, NAME)
        labels = dict(zip(masks.class_names, masks.palette[1:], strict=True))
        if has_ignore:
            labels.setdefault(IGNORE_NAME, IGNORE_COLOR)
        (out / CONFIG).write_text(_config(labels), encoding="utf-8")
        (out / TASKS).write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
        (out / HOW_TO).write_text(HOW_TO_TEXT, encoding="utf-8")

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read a JSON export; tasks that nobody annotated are left out.

        Of a project folder that `write` made, the predictions count. Class names come in the order
        of a `config.xml` beside the export, else by name.
        """
        tasks = _read_tasks(path)
        annotated = {_task_name(task, path): task for task in tasks if _annotation(task)}
        used = {
            label
            for name, task in annotated.items()
            for region in _regions(task, name, path)
            for label in region["value"]["brushlabels"]
        }
        known = _config_labels((path if path.is_dir() else path.parent) / CONFIG)
        class_names = tuple(
            name for name in [*known, *sorted(used - set(known))] if name != IGNORE_NAME
        )

        def read() -> Iterator[NamedMask]:
            for name, task in annotated.items():
                yield NamedMask(name, _read_mask(task, name, class_names, path))

        return ReadMasks(class_names, read())


def _task(image: MaskedImage, mask: Mask, class_names: Sequence[str]) -> dict[str, Any]:
    """Return one task with its prediction; an empty mask has a prediction without regions."""
    names = {**dict(enumerate(class_names, start=1)), IGNORE: IGNORE_NAME}
    values = [int(value) for value in np.unique(mask) if value != BACKGROUND]
    regions = [_region(mask == value, names[value], image) for value in values]
    prediction: dict[str, Any] = {"model_version": "tag2mask", "result": regions}
    scores = [region["score"] for region in regions if "score" in region]
    if scores:
        prediction["score"] = min(scores)
    data = {
        IMAGE: f"{LOCAL_FILES}{IMAGES}/{image.file_name}",
        "name": image.name,
        "width": image.width,
        "height": image.height,
    }
    if image.uncertainty is not None:
        data["uncertainty"] = image.uncertainty
    return {"data": data, "predictions": [prediction]}


def _region(mask: Any, label: str, image: MaskedImage) -> dict[str, Any]:
    """Return the region of one class."""
    region: dict[str, Any] = {
        "id": f"tag2mask-{label}",
        "from_name": LABELS,
        "to_name": IMAGE,
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode(mask), "brushlabels": [label]},
    }
    if label in image.scores:
        region["score"] = image.scores[label]
    return region


def _config(labels: Mapping[str, tuple[int, int, int]]) -> str:
    """Return the labeling interface with a color for each label."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true")
    brush = ElementTree.SubElement(view, "BrushLabels", name=LABELS, toName=IMAGE)
    for name, (red, green, blue) in labels.items():
        color = f"#{red:02x}{green:02x}{blue:02x}"
        ElementTree.SubElement(brush, "Label", value=name, background=color)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _config_labels(path: Path) -> list[str]:
    """Read the labels of a labeling interface; none if there is no such file."""
    if not path.is_file():
        return []
    return [label.get("value", "") for label in read_xml(path).iter("Label")]


def _read_tasks(path: Path) -> list[dict[str, Any]]:
    """Read the list of tasks of an export."""
    file = path / TASKS if path.is_dir() else path
    tasks = read_json(file, advice="export as JSON", most_bytes=MOST_BYTES)
    if not isinstance(tasks, list):
        raise DataError(f"{file}: is no list of tasks; export as JSON, not JSON-MIN")
    if path.is_dir():
        tasks = [
            {**task, "annotations": task.get("predictions", [])} if isinstance(task, dict) else task
            for task in tasks
        ]
    for number, task in enumerate(tasks):
        if problem := find_problem(task, _Task):
            raise DataError(f"{file}: task {number}: {problem}; export as JSON, not JSON-MIN")
    return tasks


def _task_name(task: Mapping[str, Any], path: Path) -> str:
    """Return the name of a task's image: as exported by tag2mask, else its file's name."""
    data = task["data"]
    if isinstance(data.get("name"), str):
        return str(data["name"])
    if not isinstance(data.get(IMAGE), str):
        raise DataError(f"{path}: task {task.get('id')} has no data.{IMAGE}")
    return Path(data[IMAGE].rpartition("?d=")[2]).stem


def _annotation(task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the newest annotation of a task that was not withdrawn."""
    done = [one for one in task.get("annotations", []) if not one.get("was_cancelled")]
    return max(done, key=lambda one: str(one.get("updated_at", "")), default=None)


def _regions(task: Mapping[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """Return the brush regions of a task's annotation.

    Raises:
        DataError: If a region is no brush region, or its mask is missing.
    """
    found = []
    for region in (_annotation(task) or {}).get("result", []):
        value = region.get("value", {})
        if value.get("brushlabels") is None or value.get("rle") is None:
            kind = region.get("type", "unknown")
            raise DataError(
                f"{path}: '{name}' has a region of type '{kind}'; only brush regions are read"
            )
        found.append(region)
    return found


def _read_mask(task: Mapping[str, Any], name: str, class_names: Sequence[str], path: Path) -> Mask:
    """Paint the regions of one image; where regions overlap, the later one counts."""
    regions = _regions(task, name, path)
    sized = {**task["data"]}
    if regions:
        sized = {side: regions[0].get(f"original_{side}") for side in ("width", "height")}
    try:
        size = _SIDE.validate_python(sized.get("height")), _SIDE.validate_python(sized.get("width"))
    except ValidationError as error:
        raise DataError(
            f"{path}: '{name}' has no regions and no size; its data needs width and height"
        ) from error
    if math.prod(size) > MOST_PIXELS:
        raise DataError(f"{path}: '{name}' cannot have {size[1]}x{size[0]} px")
    values = {**{one: at for at, one in enumerate(class_names, start=1)}, IGNORE_NAME: IGNORE}
    mask: Mask = np.full(size, BACKGROUND, dtype=np.uint8)
    for region in regions:
        value = region["value"]
        try:
            mask[decode(value["rle"], size)] = values[value["brushlabels"][0]]
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}: '{name}': the brush mask is damaged ({error})") from error
    return mask
