"""The public names: few, all there, and free of charge until used."""

import subprocess
import sys

import pytest

import tag2mask

PUBLIC = {
    "BACKGROUND",
    "IGNORE",
    "Prediction",
    "Recipe",
    "Report",
    "Segmenter",
    "Tag2MaskError",
    "__version__",
    "evaluate_folder",
    "load",
    "load_recipe",
    "train",
}


def test_list_of_public_names_is_a_decision():
    assert set(tag2mask.__all__) == PUBLIC
    assert dir(tag2mask) == sorted(PUBLIC)
    assert set(tag2mask._HOME) == PUBLIC - {"__version__"}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_there(name):
    assert getattr(tag2mask, name) is not None


def test_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'segment_everything'"):
        tag2mask.segment_everything  # noqa: B018 -- looking it up is the test


def test_importing_the_package_imports_no_torch():
    code = "import sys, tag2mask; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
