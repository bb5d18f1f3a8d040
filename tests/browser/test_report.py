"""The report as a browser shows it: its sliders, colors and width."""

import json

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.io.mask_folder import append_scores, describe_classes, write_classes
from tag2mask.io.masks import save_mask
from tag2mask.report.page import write_report

pytestmark = pytest.mark.browser


@pytest.fixture
def address(tmp_path):
    """The page of a run whose one mask covers the right half of its image."""
    run, masks = tmp_path / "run", tmp_path / "run" / "masks"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps({"step": 1, "steps": 1, "finished": True}))
    write_classes(masks, describe_classes(("cat",), "tags", {}))
    mask = np.zeros((100, 200), dtype=np.uint8)
    mask[:, 100:] = 1
    save_mask(mask, masks / "a.png")
    PILImage.new("RGB", (200, 100), (10, 10, 10)).save(tmp_path / "a.png")
    about = {"image": "a.png", "folder": str(tmp_path), "tags": ["cat"], "areas": {"cat": 0.5}}
    append_scores(masks, {"name": "a", "uncertainty": 0.5, **about})
    return write_report(run).as_uri()


@pytest.fixture
def page(browser):
    """A tab without a network; the test fails at an error in the page's script."""
    problems = []
    context = browser.new_context(offline=True)
    opened = context.new_page()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    yield opened
    context.close()
    assert problems == []


def test_arrow_keys_move_the_line_between_image_and_mask(page, address):
    page.goto(address)
    picture = page.locator(".compare").first
    layer = picture.locator(".made")

    def left() -> str:
        return layer.evaluate("one => getComputedStyle(one).clipPath")

    assert "50%" in left()
    picture.locator("input").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert "40%" in left()
    page.keyboard.press("Home")
    assert "0%" in left()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_light_and_dark(page, address, scheme):
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in paper[4:-1].split(",")) / 3
    assert (brightness > 128) is (scheme == "light")


def test_print_shows_complete_masks_without_controls(page, address):
    page.emulate_media(media="print")
    page.goto(address)
    picture = page.locator(".compare").first
    assert not picture.locator("input").is_visible()
    clip = picture.locator(".made").evaluate("one => getComputedStyle(one).clipPath")
    assert "50%" not in clip
