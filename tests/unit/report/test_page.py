import math
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tag2mask.errors import RunError
from tag2mask.report.network_parts import NetworkParts, Picture
from tag2mask.report.page import write_report

VOID = {"meta", "img", "br"}


class Balance(HTMLParser):
    """Keeps open elements and every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(run: Path) -> str:
    page = write_report(run)
    assert page == run / "report.html"
    return page.read_text(encoding="utf-8")


def test_page_is_well_formed_and_fetches_nothing(run: Path) -> None:
    text = read_page(run)
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", text)


def test_headline_names_gate_and_number_of_images(run: Path) -> None:
    text = read_page(run)
    assert "<strong>45.6</strong><small>train; classes from tags; 12 images</small>" in text
    assert "1 h 02 min" in text
    assert "not finished: 100 of 200 steps" in text
    assert "pets &lt;1&gt;" in text


def test_page_has_every_part(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = NetworkParts(
        weights="best",
        images="held-out images",
        strips=(Picture("a", b"strip"),),
        affinity_maps=(Picture("a", b"pairs"),),
        head_weights={"block 1 of the last 1": [0.1, -0.2]},
    )
    monkeypatch.setattr("tag2mask.report.page.look_at_network", lambda run, query: shown)
    text = read_page(run)
    assert "<h2>Attention and affinity</h2>" in text
    assert "Held-out images, weights &#x27;best&#x27;." in text
    assert f"base64,{b64encode(b'strip').decode()}" in text
    assert f"base64,{b64encode(b'pairs').decode()}" in text
    assert "Learned weight of each attention head" in text
    for title in ("Samples", "Classes", "Training", "Data", "How it was made", "Recipe"):
        assert f"<h2>{title}</h2>" in text
    assert "Missing on this page" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_stopped_run_gets_a_page_that_says_what_is_missing(run: Path) -> None:
    for path in [*run.glob("*.json"), *run.glob("samples/*")]:
        path.unlink()
    text = read_page(run)
    assert "Missing on this page" in text
    assert "<h2>Classes</h2>" not in text
    assert "<h2>Training</h2>" in text


def test_tag_precision_is_the_headline_where_there_are_no_masks(run: Path) -> None:
    (run / "train.json").unlink()
    best = '{"step": 50, "score": 0.625, "why": "mean average precision"}'
    (run / "metrics.json").write_text(f'{{"best": {best}, "history": []}}')
    assert "<strong>62.5</strong><small>mean average precision; step 50</small>" in read_page(run)


def test_strips_of_training_stand_in_where_the_weights_are_gone(run: Path) -> None:
    text = read_page(run)
    assert text.count('src="data:image/png') == 2
    assert "Drawn while training." in text
    assert "what the network sees" in text
    assert "<h2>Attention and affinity</h2>" not in text


@pytest.mark.parametrize("query", [(1.2, 0.5), (0.5, -0.1), (math.nan, 0.5)])
def test_query_outside_the_image_is_rejected(run: Path, query: tuple[float, float]) -> None:
    with pytest.raises(RunError, match="takes two fractions from 0 to 1"):
        write_report(run, query)


def test_folder_that_is_no_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)
    with pytest.raises(RunError, match="no such run folder"):
        write_report(tmp_path / "gone")
