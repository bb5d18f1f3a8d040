from itertools import pairwise

import numpy as np
from PIL import Image as PILImage

from tag2mask.cli.demo import NEXT_STEPS, RECIPE, write_held_out
from tag2mask.cli.main import COMMANDS
from tag2mask.config.overrides import apply_overrides, parse_overrides
from tag2mask.config.recipe import available_recipes, read_yaml, recipe_path
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


def test_next_steps_name_recipes_and_commands_that_exist():
    words = NEXT_STEPS.split()
    assert RECIPE in available_recipes()
    assert words[words.index("train") + 1] in available_recipes()
    used = {after for word, after in pairwise(words) if word == "tag2mask"}
    assert used <= set(COMMANDS)


def test_keys_of_next_steps_fit_their_recipe():
    words = NEXT_STEPS.replace("\\\n", " ").split()
    keys = parse_overrides(word for word in words if "=" in word)
    recipe = apply_overrides(read_yaml(recipe_path("rml/animals_hybrid")), keys, "demo")
    assert (recipe.data.name, recipe.data.classes) == ("folder", ())
