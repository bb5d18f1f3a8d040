"""What all tests share: fixed seeds, real data where it is at hand, GPU tests where one is."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seeds():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 -- outside libraries may draw from the global state
    torch.manual_seed(0)


def _folder_from(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set")
    return Path(folder)


@pytest.fixture
def voc_animals() -> Path:
    """Folder of the VOC-Animals data; the test is skipped where TAG2MASK_VOC_ANIMALS is not set."""
    return _folder_from("TAG2MASK_VOC_ANIMALS")


@pytest.fixture
def mobilenet() -> Path:
    """Folder of MobileNetV1 weights; the test is skipped where TAG2MASK_MOBILENET is not set."""
    return _folder_from("TAG2MASK_MOBILENET")


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):  # keywords also hold the names of folders
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
