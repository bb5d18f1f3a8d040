import html
import math
import re
import shutil
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import RunError
from tag2mask.io.mask_folder import append_scores, describe_classes, write_classes
from tag2mask.io.masks import save_mask
from tag2mask.report.network_parts import NetworkParts
from tag2mask.report.page import MOST_BYTES, write_report
from tag2mask.report.pictures import Picture
from tag2mask.report.terms import WORDS

VOID = {"meta", "img", "br", "input"}
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


def write_images(folder: Path, names: str = "abcdef") -> Path:
    """Write images of noise, the worst to compress, with a mask that covers their left half."""
    images = folder.parent / "images"
    images.mkdir()
    write_classes(folder, describe_classes(("cat", "cow"), "tags", {}))
    mask = np.zeros((300, 400), dtype=np.uint8)
    mask[:, :200] = 1
    for position, name in enumerate(names):
        noise = np.random.default_rng(position).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        PILImage.fromarray(noise).save(images / f"{name}.png")
        save_mask(mask, folder / f"{name}.png")
        row = {"name": name, "uncertainty": position / 10, "tags": ["cat"], "areas": {"cat": 0.5}}
        about = {"image": f"{name}.png", "folder": str(images), "scores": {"cat": 0.9, "cow": 0.1}}
        append_scores(folder, row | about)
    return folder


def write_truth(folder: Path, names: str) -> Path:
    """Write true masks that cover one column more for each name."""
    folder.mkdir()
    for position, name in enumerate(names):
        mask = np.zeros((300, 400), dtype=np.uint8)
        mask[:, : 200 + 50 * position] = 1
        save_mask(mask, folder / f"{name}.png")
    return folder


def read_page(run: Path) -> str:
    page = write_report(run)
    assert page == run / "report.html"
    return page.read_text(encoding="utf-8")


def without_links(text: str) -> str:
    """Return a page without the links from terms to their explanations."""
    return re.sub(r'<a class="word"[^>]*>(.*?)</a>', r"\1", text)


def test_page_is_well_formed_and_fetches_nothing(run: Path) -> None:
    text = read_page(run)
    parser = BalanceParser()
    parser.feed(text)
    assert parser.open == []
    assert all(re.match(r"data:image/(png|jpeg);base64,|#", one) for one in parser.addresses)
    assert not re.search(r"https?://|@import|url\(|<script src|<link", text)


def test_every_link_has_its_target_and_every_term_its_explanation(run: Path) -> None:
    write_images(run / "masks")
    text = write_report(run, truth=write_truth(run.parent / "truth", "ab")).read_text("utf-8")
    targets = set(re.findall(r' id="([^"]+)"', text))
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= targets
    for key in (one.removeprefix("word-") for one in links if one.startswith("word-")):
        assert html.escape(WORDS[key].explanation) in text


def test_images_come_with_their_masks_under_a_slider(run: Path) -> None:
    write_images(run / "masks")
    text = read_page(run)
    groups = re.findall(r"<h3>(.*?)</h3>", text)[:2]
    assert groups == ["Most uncertain", "Random"]
    cards = re.findall(r'<figure class="card">.*?</figure>', text, re.DOTALL)
    assert len(cards) == 8
    assert 'type="range"' in cards[0]
    assert 'aria-label="f: uncover the image or its mask"' in cards[0]
    assert "uncertainty 0.50" in cards[0]
    assert cards[0].count("<img") == 2
    assert "true masks</a></label>" not in text


def test_true_masks_add_scores_confusion_best_and_worst(run: Path) -> None:
    write_images(run / "masks")
    truth = write_truth(run.parent / "truth", "abcd")
    text = write_report(run, truth=truth).read_text("utf-8")
    assert re.findall(r"<h3>(.*?)</h3>", text)[:3] == ["Best", "Worst", "Most uncertain"]
    cards = re.findall(r'<figure class="card">.*?</figure>', text, re.DOTALL)
    assert "<b>100.0 %</b>" in cards[0]  # a
    assert "<b>57.1 %</b>" in cards[4]  # d: 200 of 350 columns
    assert cards[0].count("<img") == 3
    assert "Compared with 4 true masks" in without_links(text)
    assert "27.3 % of the pixels of cat are called background" in text  # 300 of 1100 columns
    assert "<th>the masks on this page<br>" in text
    assert "true masks</a></label>" in text
    assert "IoU per class" not in text


def test_truth_without_masks_is_an_error(run: Path) -> None:
    with pytest.raises(RunError, match="there are no masks to compare with"):
        write_report(run, truth=run)


def test_page_stays_below_its_bound_whatever_the_images(run: Path) -> None:
    write_images(run / "masks", "".join(map(chr, range(97, 123))))
    for step in range(100, 120):
        PILImage.effect_noise((1500, 210), 90).save(run / "samples" / f"step000100_{step}_z.png")
    page = write_report(run, truth=write_truth(run.parent / "truth", "abcd"))
    assert page.stat().st_size < MOST_BYTES / 2


def test_stages_share_one_page(run: Path) -> None:
    stages = "stages: {seg: {run: train}, scores: {run: evaluate, from: [seg]}}\n"
    root = run.parent / "staged"
    root.mkdir()
    shutil.copytree(run, root / "seg")
    (root / "recipe.yaml").write_text((run / "recipe.yaml").read_text() + stages)
    (root / "scores").mkdir()
    shutil.copy(run / "train.json", root / "scores" / "scores.json")
    text = read_page(root)
    assert "<h2>Stages</h2>" in text
    assert "mIoU 45.6 %" in text
    assert "mIoU of stage scores, train.json" in without_links(text)
    assert "<summary>stage seg</summary>" in text
    assert not (root / "seg" / "report.html").exists()


def test_values_are_escaped(run: Path) -> None:
    text = read_page(run)
    assert "run folder pets &lt;1&gt;" in text
    assert "--out &lt;RUN&gt;" in text
    assert "<RUN>" not in text


def test_headline_shows_the_score_with_its_class_source_and_images(run: Path) -> None:
    text = without_links(read_page(run))
    tile = "average overlap</span><strong>45.6 %</strong>"
    assert f"{tile}<small>mIoU of train.json; classes from tags; 12 images</small>" in text
    assert "1 h 02 min" in text
    assert "not finished: 100 of 200 steps" in text


def test_page_leads_with_scores_and_the_summary_of_the_masks(run: Path) -> None:
    write_masks(run / "masks")
    text = read_page(run)
    tiles = re.findall(r">([\w -]+)</a></span><strong>(.*?)</strong>", text)
    assert tiles[0] == ("average overlap", "45.6 %")
    assert tiles[1:4] == [
        ("uncertainty", "0.40"),
        ("empty masks", "1"),
        ("full-frame masks", "0"),
    ]
    order = ["How good is it?", "What to do next", "Scores of each class", "All masks", "Training"]
    positions = [text.index(f"<h2>{title}") for title in order]
    assert positions == sorted(positions)
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
    hidden = r'<style>.*?</style>|<pre>.*?</pre>|(href|id)="[^"]*"'
    text = re.sub(hidden, "", read_page(run), flags=re.DOTALL)
    text = re.sub(r"<details><summary>all settings.*?</details>", "", text, flags=re.DOTALL)
    assert "Tags with an empty CAM" in text
    assert not re.search(r"\b(empty_cams|ciml|mfml|apml|class_source)\b", text)


def test_charts_are_well_formed_svg(run: Path) -> None:
    figures = re.findall(r'<figure class="chart">.*?</figure>', read_page(run), flags=re.DOTALL)
    trees = [ElementTree.fromstring(figure) for figure in figures]
    assert [len(tree.findall(".//polyline")) for tree in trees] == [3, 0, 1, 1, 1]
    assert len(trees[1].findall(".//circle")) == 1
    assert all(len(tree.findall("svg")) == 1 for tree in trees)


def test_a_single_chart_is_as_wide_as_one_with_neighbors(run: Path) -> None:
    """`auto-fit` would collapse the empty columns, and the chart would fill the whole page."""
    rule = re.search(r"\.charts \{([^}]*)\}", read_page(run))
    assert rule is not None
    assert "repeat(auto-fill, minmax(min(26rem, 100%), 1fr))" in rule[1]


def test_page_has_every_section(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network_stub = SimpleNamespace(
        origin={"sha256": ""},
        class_names=("cat", "cow"),
        method=SimpleNamespace(works_while_labeling=False),
    )
    network = NetworkParts(
        weights="best",
        images="held-out images",
        strips=(Picture("a", b"strip"),),
        affinity_maps=(Picture("a", b"pairs"),),
        head_weights={"block 1 of the last 1": [0.1, -0.2]},
    )
    monkeypatch.setattr("tag2mask.report.page.open_network", lambda run: (network_stub, ()))
    monkeypatch.setattr("tag2mask.report.page.inspect_network", lambda *args: network)
    write_masks(run / "masks")
    text = read_page(run)
    assert "<h2>Attention and affinity</h2>" in text
    assert "Held-out images, " in text
    assert "</a> 'best' (those of the best score in training)." in text
    assert f"base64,{b64encode(b'strip').decode()}" in text
    assert f"base64,{b64encode(b'pairs').decode()}" in text
    assert "Weight of each head" in text
    assert text.count("<rect ") == 2
    for title in (
        "All masks of the folder",
        "Scores of each class",
        "From image to mask",
        "Training",
        "Data",
        "How it was made",
        "Words on this page",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "What is not on this page" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_interrupted_run_has_a_page_that_lists_missing_parts(run: Path) -> None:
    for path in [*run.glob("*.json"), *run.glob("samples/*")]:
        path.unlink()
    text = read_page(run)
    assert "What is not on this page" in text
    assert "<h2>Scores of each class</h2>" not in text
    assert "How good the masks are is unknown" in text
    assert "summary of masks: &#39;tag2mask report RUN --masks MASKS&#39; adds it" in text
    assert "<h2>Training</h2>" in text


def test_strips_of_training_replace_those_of_lost_weights(run: Path) -> None:
    text = read_page(run)
    assert text.count('src="data:image/jpeg') == 2
    assert "Drawn during training." in text
    assert "samples from the trained network" in text
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
