import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.checks.report import Advice, CheckReport, Duplicates, Part
from tag2mask.errors import RunError
from tag2mask.report.data_check import pair_table, render_check, write_check_page


@pytest.fixture
def report(tmp_path):
    files = {}
    for number, name in enumerate(("a", "b", "<script>")):
        files[name] = tmp_path / f"{number}.jpg"
        noise = np.random.default_rng(number).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(files[name])
    files["gone"] = tmp_path / "gone.jpg"
    return CheckReport(
        root=Path("D"),
        source="folder",
        images=1234,
        unreadable=1,
        negatives=3,
        classes={"cat": 20, "dog": 10},
        pairs=(("cat", "dog", 5),),
        parts={"train": Part(("a", "b"), {"cat": 2})},
        duplicates=(Duplicates(("a", "gone"), True, ("cat", "dog"), True, ("train",)),),
        advice=(
            Advice("few_images", "note", "a note"),
            Advice("typo", "warning", "a tag", ("<script>",)),
        ),
        files=files,
    )


def test_the_page_shows_the_facts_and_needs_no_network(report):
    page = render_check(report, "tag2mask train D --out RUN")
    for words in ("Training can start", "tag2mask train D --out RUN", "1,234", "1 unreadable"):
        assert words in page
    assert page.index("a tag") < page.index("a note")  # the more severe first
    assert "equal files, different tags" in page
    assert "tags of all: cat; dog; in train" in page
    assert "cannot be read" in page
    assert "<script>" not in page
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(addresses) == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    picture = Image.open(io.BytesIO(base64.b64decode(addresses[0].partition(",")[2])))
    assert picture.size == (176, 132)
    assert "http" not in page


def test_problems_replace_the_command():
    report = CheckReport(Path("D"), "folder", advice=(Advice("layout", "problem", "no images"),))
    page = render_check(report, "tag2mask train D --out RUN")
    assert "Training cannot start" in page
    assert "no images" in page
    assert "--out RUN" not in page


def test_pairs_are_counted_in_both_directions(report):
    table = pair_table(report)
    assert table.classes == ("cat", "dog")
    assert table.rows == (((20, 1.0), (5, 0.25)), ((5, 0.5), (10, 1.0)))
    assert pair_table(CheckReport(Path("D"), "folder")) is None


def test_a_page_that_cannot_be_written_is_the_users_mistake(report, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be saved"):
        write_check_page(report, tmp_path / "file" / "page.html", "")
    write_check_page(report, tmp_path / "new" / "page.html", "")
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")
