"""`tests/unit/cli/test_tune.py` runs it; here is what the command line does not show."""

import pytest

import tag2mask
from tag2mask.checkpoint import save_weights
from tag2mask.errors import RunError
from tag2mask.io.masks import save_mask


@pytest.fixture
def data(image_folder, source):
    """The painted images in class folders, two with a true mask."""
    root = image_folder().parent
    rows = [
        f"{name}.png,{tag}"
        for name, tag in zip(source.names, ("cat", "cow", "dog", ""), strict=True)
    ]
    (root / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")
    (root / "masks" / "lane1").mkdir(parents=True)
    for index in (0, 1):
        save_mask(source[index].mask, root / "masks" / f"{source.names[index]}.png")
    return root


def test_a_run_that_knows_the_masks_is_warned_about(segmenter, data, tmp_path):
    known = segmenter.recipe.data.model_copy(update={"true_masks": "train"})
    recipe = segmenter.recipe.model_copy(update={"data": known})
    run = tmp_path / "run"
    save_weights(run / "weights" / "last.safetensors", segmenter.method.state_dict(), recipe)
    lines = []
    tuning = tag2mask.tune(run, data, dry_run=True, notify=lines.append)
    assert any("learned from true masks" in line for line in lines)
    assert tuning.names == ("lane1/a", "lane1/b")
    lines.clear()
    tag2mask.tune(run, data, dry_run=True, split="all", notify=lines.append)
    assert not any("learned from true masks" in line for line in lines)
    assert not (run / "tune.json").exists()


def test_a_run_on_the_hub_cannot_be_written_to(data):
    with pytest.raises(RunError, match="writes its choice into a folder"):
        tag2mask.tune("someone/model", data)
