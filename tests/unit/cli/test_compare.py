from types import SimpleNamespace

import numpy as np
import pytest

from tag2mask.cli.main import run
from tag2mask.errors import DataError, Tag2MaskError


@pytest.fixture
def drawn(monkeypatch, source, segmenter):
    """Runs without files: the same network for all, and a recorder in place of the drawing."""
    calls = []

    def rows(segmenters, samples, what, *, tagged, query):
        calls.append(SimpleNamespace(runs=list(segmenters), samples=samples, what=what))
        calls[-1].tagged, calls[-1].query = tagged, query
        return []

    monkeypatch.setattr("tag2mask.api.open_run", lambda run, overrides: segmenter)
    monkeypatch.setattr("tag2mask.api.open_source", lambda *given: (source, given[2]))
    monkeypatch.setattr("tag2mask.visualization.comparison.comparison_rows", rows)
    monkeypatch.setattr("tag2mask.visualization.comparison.save_comparison", lambda rows, out: None)
    return calls


def test_images_of_a_data_set_come_with_tags_and_masks(drawn, capsys):
    options = "--split val --images lane2/a,lane1/a --what affinity --query 0.25 1 --out f.png"
    run(["compare", "runs/A", "runs/B", "--data", "DATA", *options.split()])
    (call,) = drawn
    assert (call.runs, call.what, call.tagged, call.query) == (
        ["A", "B"],
        "affinity",
        True,
        (0.25, 1.0),
    )
    assert [sample.name for sample in call.samples] == ["lane2/a", "lane1/a"]
    assert call.samples[0].mask is not None
    assert capsys.readouterr().out == "figure: f.png\n"


def test_image_files_have_no_tags(drawn, image_folder):
    path = image_folder() / "lane1" / "a.png"
    run(["compare", "A", "--images", str(path), "--out", "f.png"])
    (call,) = drawn
    assert (call.tagged, call.query, call.what) == (False, None, "masks")
    assert [sample.name for sample in call.samples] == ["a"]
    assert call.samples[0].mask is None
    assert np.array_equal(call.samples[0].tags, [0, 0, 0])


def test_runs_of_one_name_keep_their_folders(drawn, image_folder):
    path = image_folder() / "lane1" / "a.png"
    run(["compare", "x/cam", "y/cam", "y/cam", "--images", str(path), "--out", "f.png"])
    assert drawn[0].runs == ["x/cam", "y/cam"]


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("A --images a.png", Tag2MaskError, "missing option '--out'"),
        ("--images a.png --out f.png", Tag2MaskError, "missing argument 'RUN'"),
        ("A --images a --out f.png --split val", Tag2MaskError, "--split val: needs --data"),
        (
            "A --images lane1/c --data D --split val --out f.png",
            DataError,
            "D: the list 'val' has no image 'lane1/c'. Did you mean 'lane1/",
        ),
        ("A --images a.png --out f.png --what mask", Tag2MaskError, "Did you mean 'masks'"),
    ],
)
def test_wrong_lines_are_rejected(drawn, line, kind, words):
    with pytest.raises(kind, match=words):
        run(["compare", *line.split()])
