import math
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tag2mask.errors import RunError
from tag2mask.io.mask_folder import append_scores, describe_classes, write_classes
from tag2mask.report.network_parts import NetworkParts, Picture
from tag2mask.report.page import write_report

VOID = {"meta", "img", "br"}
"""Elements that have no end."""


class BalanceParser(HTMLParser):
    """Tracks open elements and collects every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Such an element is closed already."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write_masks(folder: Path) -> None:
    write_classes(folder, describe_classes(("cat", "cow"), "classifier", {"background": 0.45}))
    append_scores(folder, {"name": "a", "areas": {"cat": 0.25}, "uncertainty": 0.1})
    append_scores(folder, {"name": "b", "areas": {}, "uncertainty": 0.7})


def read_page(run: Path) -> str:
    page = write_report(run)
    assert page == run / "report.html"
    return page.read_text(encoding="utf-8")


def test_page_is_well_formed_and_fetches_nothing(run: Path) -> None:
    text = read_page(run)
    parser = BalanceParser()
    parser.feed(text)
    assert parser.open == []
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", text)


def test_values_are_escaped(run: Path) -> None:
    text = read_page(run)
    assert "pets &lt;1&gt;" in text
    assert "--out &lt;RUN&gt;" in text
    assert "<RUN>" not in text


def test_headline_shows_the_score_with_its_class_source_and_images(run: Path) -> None:
    text = read_page(run)
    tile = "<span>mIoU, train.json</span><strong>45.6 %</strong>"
    assert f"{tile}<small>classes from tags; 12 images</small>" in text
    assert "1 h 02 min" in text
    assert "not finished: 100 of 200 steps" in text


def test_page_leads_with_scores_and_the_summary_of_the_masks(run: Path) -> None:
    write_masks(run / "masks")
    text = read_page(run)
    tiles = re.findall(r"<span>(.*?)</span><strong>(.*?)</strong>", text)
    assert tiles[0] == ("mIoU, train.json", "45.6 %")
    assert tiles[3:6] == [
        ("uncertainty", "0.40"),
        ("empty masks", "1"),
        ("full-frame masks", "0"),
    ]
    masks = text.index("<h2>Masks</h2>")
    assert masks < text.index("<h2>Scores against true masks</h2>") < text.index("<h2>Training")
    assert "<li>b <small>0.70</small></li>" in text


def test_chosen_masks_are_summarized_and_others_rejected(run: Path, tmp_path: Path) -> None:
    write_masks(run / "masks")
    write_masks(tmp_path / "other")
    text = write_report(run, masks=tmp_path / "other").read_text(encoding="utf-8")
    assert f"masks in {tmp_path / 'other'}" in text
    with pytest.raises(RunError, match=r"gone: has no classes\.json"):
        write_report(run, masks=tmp_path / "gone")


def test_equal_values_have_equal_bars_in_every_column(run: Path) -> None:
    """A bar's length depends on its value alone, not on the width of its column."""
    text = read_page(run)
    assert text.count('<td class="score" style="--iou:0.9">90.0</td>') == 3
    assert "calc(var(--iou) * 6rem) 100%" in text


def test_page_uses_plain_words(run: Path) -> None:
    text = re.sub(r"<style>.*?</style>|<pre>.*?</pre>", "", read_page(run), flags=re.DOTALL)
    assert "Tags with an empty CAM" in text
    assert not re.search(r"\b(empty_cams|ciml|mfml|apml|class_source)\b", text)


def test_charts_are_well_formed_svg(run: Path) -> None:
    figures = re.findall(r"<figure.*?</figure>", read_page(run), flags=re.DOTALL)
    trees = [ElementTree.fromstring(figure) for figure in figures]
    assert [len(tree.findall(".//polyline")) for tree in trees] == [3, 0, 1, 1, 1]
    assert len(trees[1].findall(".//circle")) == 1
    assert all(len(tree.findall("svg")) == 1 for tree in trees)


def test_page_has_every_section(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NetworkParts(
        weights="best",
        images="held-out images",
        strips=(Picture("a", b"strip"),),
        affinity_maps=(Picture("a", b"pairs"),),
        head_weights={"block 1 of the last 1": [0.1, -0.2]},
    )
    monkeypatch.setattr("tag2mask.report.page.inspect_network", lambda run, query: network)
    write_masks(run / "masks")
    text = read_page(run)
    assert "<h2>Attention and affinity</h2>" in text
    assert "Held-out images, weights 'best'." in text
    assert f"base64,{b64encode(b'strip').decode()}" in text
    assert f"base64,{b64encode(b'pairs').decode()}" in text
    assert "Learned weight of each attention head" in text
    assert text.count("<rect ") == 2
    for title in (
        "Masks",
        "Scores against true masks",
        "Samples",
        "Training",
        "Data",
        "How it was made",
        "Recipe",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "Missing on this page" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_interrupted_run_has_a_page_that_lists_missing_parts(run: Path) -> None:
    for path in [*run.glob("*.json"), *run.glob("samples/*")]:
        path.unlink()
    text = read_page(run)
    assert "Missing on this page" in text
    assert "<h2>Scores against true masks</h2>" not in text
    assert "summary of masks: &#39;tag2mask report RUN --masks MASKS&#39; adds it" in text
    assert "<h2>Training</h2>" in text


def test_strips_of_training_replace_those_of_lost_weights(run: Path) -> None:
    text = read_page(run)
    assert text.count('src="data:image/png') == 2
    assert "Drawn during training." in text
    assert "new samples from the trained network" in text
    assert "<h2>Attention and affinity</h2>" not in text


@pytest.mark.parametrize("query", [(1.2, 0.5), (0.5, -0.1), (math.nan, 0.5)])
def test_query_outside_the_image_is_rejected(run: Path, query: tuple[float, float]) -> None:
    with pytest.raises(RunError, match="give two fractions from 0 to 1"):
        write_report(run, query)


def test_folder_without_a_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="contains no run"):
        write_report(tmp_path)
    with pytest.raises(RunError, match="no such run folder"):
        write_report(tmp_path / "gone")
