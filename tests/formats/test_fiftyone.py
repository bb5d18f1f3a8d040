"""FiftyOne opens the folder, where it is installed."""

import numpy as np
import pytest
from tests.formats.conftest import scene_masks

fiftyone = pytest.importorskip("fiftyone")
pytestmark = pytest.mark.formats


def test_images_and_masks_are_read(export):
    folder = export("fiftyone", "data")
    kind = fiftyone.types.ImageSegmentationDirectory
    dataset = fiftyone.Dataset.from_dir(dataset_dir=str(folder), dataset_type=kind)
    found = {
        sample.filepath.removeprefix(f"{folder}/data/").removesuffix(".jpg"): sample
        for sample in dataset
    }
    assert found.keys() == scene_masks().keys()
    for name, mask in scene_masks().items():
        segmentation = found[name].ground_truth
        assert np.array_equal(segmentation.get_mask(), mask)
