import json
import math

import numpy as np
import pytest

from tag2mask.cli.evaluate import print_scores
from tag2mask.cli.main import run
from tag2mask.errors import Tag2MaskError
from tag2mask.io.masks import save_mask
from tag2mask.types import Report


@pytest.fixture
def folders(tmp_path):
    """Two images of 2 x 2 pixels with class 1 of two; the test counts by hand."""
    made, true = tmp_path / "made", tmp_path / "true"
    for folder in (made, true):
        folder.mkdir()
    save_mask(np.array([[0, 1], [1, 1]], np.uint8), made / "a.png")
    save_mask(np.array([[0, 0], [1, 1]], np.uint8), true / "a.png")
    save_mask(np.array([[0, 0], [0, 0]], np.uint8), made / "b.png")
    save_mask(np.array([[0, 255], [0, 1]], np.uint8), true / "b.png")
    described = {"classes": ["cat", "dog"], "class_source": "tags", "settings": {"scales": [1.0]}}
    (made / "classes.json").write_text(json.dumps(described), encoding="utf-8")
    return made, true


def test_table_and_file_contain_the_hand_counted_scores(folders, tmp_path, capsys):
    made, true = folders
    run(["evaluate", str(made), str(true), "--json", str(tmp_path / "s.json")])
    # Intersection / union: background 3 / 5, cat 2 / 4.
    shown = capsys.readouterr().out
    cells = {
        words[0]: words[1]
        for line in shown.splitlines()
        if len(words := line.strip("\u2502 ").replace("\u2502", " ").split()) == 2
    }
    assert cells["background"] == "0.600"
    assert cells["cat"] == "0.500"
    assert cells["dog"] == "-"
    assert cells["mean"] == "0.550"
    assert "classes from tags" in shown
    assert json.loads((tmp_path / "s.json").read_text("utf-8"))["miou"] == pytest.approx(0.55)


def test_objects_by_size_are_printed_and_saved_on_request(folders, tmp_path, capsys):
    made, true = folders
    run(["evaluate", *map(str, folders), "--by-size", "--json", str(tmp_path / "s.json")])
    # Cat in b: 1 true pixel, none predicted; cat in a: 2 true pixels, 3 predicted, 2 in common.
    shown = capsys.readouterr().out
    rows = [line.replace("\u2502", " ").split() for line in shown.splitlines()]
    assert ["smallest", "quarter", "1", "1", "to", "1", "0.000", "0.000"] in rows
    assert ["second", "quarter", "1", "2", "to", "2", "0.667", "1.500"] in rows
    assert ["largest", "quarter", "0", "-", "-", "-"] in rows
    saved = json.loads((tmp_path / "s.json").read_text("utf-8"))["by_size"]
    assert [part["area_ratio"] for part in saved] == [0, 1.5, None, None]
    run(["evaluate", str(made), str(true)])
    assert "quarter" not in capsys.readouterr().out


def test_settings_behind_the_scores_are_on_one_line(capsys):
    settings = {"split": "devval", "scales": [1.0, 0.5, 1.5], "flip": True, "background": 0.45}
    settings |= {"refiner": {"name": "par"}}
    print_scores(Report(("cat",), (0.5, math.nan), 0.5, 3, "classifier", settings))
    last = capsys.readouterr().out.splitlines()[-1]
    for words in (
        "3 images",
        "classes from classifier",
        "split devval",
        "flip True",
        "refiner par",
    ):
        assert words in last


def test_less_than_one_thread_is_rejected(folders):
    with pytest.raises(
        Tag2MaskError, match="'--workers': Input should be greater than or equal to 1"
    ):
        run(["evaluate", *map(str, folders), "--workers", "0"])


def test_a_mean_of_background_alone_gets_a_warning(folders, capsys):
    made, true = folders
    for name in "ab":
        save_mask(np.zeros((2, 2), np.uint8), true / f"{name}.png")
    run(["evaluate", str(made), str(true)])
    shown = capsys.readouterr()
    assert "mean is that of background alone" in shown.err
    assert shown.out.splitlines()[-1].startswith("2 images")
