"""What `benchmarks/labeling_rate.py` says about many images."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs a checkout")


@pytest.fixture(scope="module")
def rate():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("labeling_rate")
    sys.path.remove(str(FOLDER))


def test_the_plan_counts_days_machines_costs_and_bytes(rate):
    """10 images per second: 10 million take 1,000,000 s = 11.6 days = 277.8 hours."""
    lines = rate.plan(10.0, mask_bytes=2**20, price=2.0)
    assert lines[0].split(": ", 1)[1] == (
        "11.6 days of one such machine, costs 556; 2 machines do it in 7 days; masks 9,766 GiB"
    )
    assert "1,157.4 days" in lines[1]
    assert "166 machines" in lines[1]
    assert "costs" not in rate.plan(10.0, 1.0, None)[0]


def test_every_setup_uses_all_cores_or_one(rate):
    used = [one.shards * one.workers * one.threads for one in rate.setups(4)]
    assert used == [1, 4, 4, 4]


def test_too_few_images_are_repeated(rate, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    folder = rate.enough_images(tmp_path / "links", tmp_path / "images", 3)
    assert [path.name for path in sorted(folder.iterdir())] == [
        "000000.png",
        "000001.png",
        "000002.png",
    ]
