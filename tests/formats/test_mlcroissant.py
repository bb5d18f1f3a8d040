"""mlcroissant validates the metadata and reads every record, image and mask."""

import numpy as np
import pytest
from tests.formats.conftest import scene_masks

mlcroissant = pytest.importorskip("mlcroissant")
pytestmark = [
    pytest.mark.formats,
    pytest.mark.filterwarnings(
        "ignore:ConjunctiveGraph is deprecated:DeprecationWarning"
    ),  # rdflib
]


@pytest.fixture
def dataset(export):
    folder = export("croissant", "data")
    return mlcroissant.Dataset(str(folder / "croissant.json"))


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def test_samples_name_images_and_masks_that_are_read(dataset):
    masks = scene_masks()
    images, found = (
        {
            text(record[f"{folder}/path"]): record[f"{folder}/content"]
            for record in dataset.records(folder)
        }
        for folder in ("images", "masks")
    )
    samples = list(dataset.records("samples"))
    assert len(samples) == len(images) == len(found) == len(masks)
    for sample in samples:
        path = text(sample["samples/mask"])
        mask = masks[path.removeprefix("masks/").removesuffix(".png")]
        values = np.asarray(found[path])  # mlcroissant repeats a gray value for each color
        assert np.array_equal(values[..., 0], mask)
        assert images[text(sample["samples/image"])].size == mask.shape[::-1]


def test_mask_values_are_named(dataset):
    names = {row["classes/value"]: text(row["classes/name"]) for row in dataset.records("classes")}
    assert names == {0: "background", 1: "cat", 2: "two words", 255: "ignore"}


def test_nothing_is_wrong_with_the_metadata(dataset):
    assert not dataset.metadata.ctx.issues.errors
