import numpy as np
from PIL import Image as PILImage

from tag2mask.cli.command import build_command
from tag2mask.cli.demo import NEXT_STEPS, RECIPE, write_held_out
from tag2mask.cli.main import COMMANDS
from tag2mask.config.recipe import available_recipes
from tag2mask.data.synthetic import Synthetic, SyntheticConfig


def test_held_out_images_and_masks_are_written_unchanged(tmp_path):
    source = Synthetic(SyntheticConfig(count=1, val_count=2, size_px=64), "val")
    write_held_out(source, tmp_path)
    for index, name in enumerate(source.names):
        sample = source[index]
        with PILImage.open(tmp_path / "images" / f"{name}.png") as image:
            assert np.array_equal(np.asarray(image), sample.image)
        with PILImage.open(tmp_path / "truth" / f"{name}.png") as mask:
            assert np.array_equal(np.asarray(mask), sample.mask)


def test_next_steps_are_accepted():
    lines = [line.strip() for line in NEXT_STEPS.splitlines() if "tag2mask " in line]
    assert RECIPE in available_recipes()
    assert len(lines) >= 3
    for line in lines:
        _, name, *words = line.split()
        assert name in COMMANDS
        build_command(name).make_context(f"tag2mask {name}", words)
