import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.config.overrides import apply_overrides
from tag2mask.config.recipe import load_recipe
from tag2mask.errors import RunError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method
from tag2mask.types import Sample
from tag2mask.visualization.comparison import comparison_rows, draw_grid, save_comparison
from tag2mask.visualization.panels import CAPTION_PX, Panel, overlay_mask


@pytest.fixture
def afa(source):
    raw = load_recipe("afa/synthetic_tiny").plain()
    keys = {"method.zero_init": "false"}  # otherwise every affinity is 0.5
    recipe = apply_overrides(raw, keys, "test").with_classes(source.class_names)
    return Segmenter(build_method(recipe), recipe, "cpu")


def test_a_row_has_the_image_the_truth_and_one_panel_per_run(segmenter, afa, source):
    samples = [source[0], source[1]]
    rows = comparison_rows({"a": segmenter, "b": afa}, samples, "masks", tagged=True)
    assert [[panel.title for panel in row] for row in rows] == [
        ["lane1/a", "ground truth", "a", "b"],
        ["lane1/b", "ground truth", "a", "b"],
    ]
    assert rows[1][0].note == "tags: cow"
    assert rows[1][1].values == ((2, "cow"),)
    mask = segmenter.segment(samples[1].image, samples[1].tags, name="lane1/b").mask
    assert (rows[1][2].picture == overlay_mask(samples[1].image, mask)).all()


def test_without_tags_the_classifier_chooses_and_there_is_no_truth(segmenter, source):
    bare = Sample("x", source[1].image, np.zeros(3, dtype=np.uint8))
    (row,) = comparison_rows({"a": segmenter}, [bare], "masks", tagged=False)
    assert [panel.title for panel in row] == ["x", "a"]
    assert row[0].note == "classes from classifier"
    mask = segmenter.segment(bare.image).mask
    assert (row[1].picture == overlay_mask(bare.image, mask)).all()


def test_cams_are_those_of_the_tags(segmenter, source):
    (row,) = comparison_rows({"a": segmenter}, [source[1]], "cams", tagged=True)
    assert row[-1].note == "cow"
    (other,) = comparison_rows({"a": segmenter}, [source[2]], "cams", tagged=True)
    assert other[-1].note == "dog"


@pytest.mark.parametrize("what", ["attention", "affinity"])
def test_all_runs_show_the_query_point_of_the_first(segmenter, afa, source, what):
    runs = {"cam": segmenter, "afa": afa, "again": afa}
    (row,) = comparison_rows(runs, [source[0]], what, tagged=True)
    image, _, without, first, second = row
    assert without.note == f"the network has no {what}"
    assert first.point == second.point == image.point
    assert first.point is not None
    assert (first.picture == second.picture).all()
    (asked,) = comparison_rows(runs, [source[0]], what, tagged=True, query=(0.9, 0.1))
    assert asked[0].point == (0.9, 0.1)
    assert (asked[3].picture != first.picture).any()


def test_runs_with_other_classes_are_rejected(segmenter, afa, source):
    afa.class_names = ("cat", "cow", "goat")
    with pytest.raises(RunError, match="b has learned cat, cow, goat, and a cat, cow, dog"):
        comparison_rows({"a": segmenter, "b": afa}, [source[0]], "masks", tagged=True)


def test_columns_are_aligned_and_rows_keep_the_images_shape(tmp_path):
    wide, tall = (np.full((*size, 3), 90, dtype=np.uint8) for size in ((50, 100), (100, 50)))
    rows = [[Panel(wide, "a"), Panel(wide, "b")], [Panel(tall, "a"), Panel(tall, "b")]]
    picture = np.asarray(draw_grid(rows))
    assert picture.shape == (6 + 100 + CAPTION_PX + 6 + 400 + CAPTION_PX + 6, 3 * 6 + 2 * 200, 3)
    dark = (picture == 90).all(axis=2)
    assert dark[50].nonzero()[0].tolist() == [*range(6, 206), *range(212, 412)]
    assert dark[:, 100].sum() == 100 + 400
    save_comparison(rows, tmp_path / "new" / "figure.png")
    with PILImage.open(tmp_path / "new" / "figure.png") as saved:
        assert (np.asarray(saved) == picture).all()
