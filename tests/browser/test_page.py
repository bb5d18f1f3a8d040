"""What people do on the page, in a real browser, checked against files and other readers."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask import load
from tag2mask.config.overrides import apply_overrides
from tag2mask.config.recipe import load_recipe
from tag2mask.data.true_masks import open_training_images
from tag2mask.formats.coco import COCO
from tag2mask.formats.cvat import CVAT
from tag2mask.io.masks import read_mask, save_mask

pytestmark = pytest.mark.browser
READY = "#sheet:not([hidden]):not(.busy)"


def shown_colors(page):
    """(H, W, 4) colors of the mask on the page; no pixel is half transparent."""
    url = page.evaluate("document.getElementById('overlay').toDataURL('image/png')")
    picture = PILImage.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return np.asarray(picture.convert("RGBA"))


def stroke(page, start, end):
    """Draw a line between two positions, given as fractions of the image."""
    box = page.locator("#overlay").bounding_box()
    (x0, y0), (x1, y1) = (
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)
    )
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=5)
    page.mouse.up()


def open_image(page, name):
    page.click(f'#images button[title="{name}"]')
    page.wait_for_selector(READY)
    page.wait_for_function(
        "name => document.getElementById('caption').textContent.startsWith(name)", arg=name
    )


def save(page):
    with page.expect_response(lambda answer: answer.request.method == "PUT") as found:
        page.click("#save")
    return found.value.status


def test_a_stroke_is_saved_where_training_finds_it(serve, visit, data, run):
    page = visit(serve(data))
    open_image(page, "train_000002")
    before = shown_colors(page)
    page.keyboard.press("4")  # house
    stroke(page, (0.3, 0.5), (0.7, 0.5))
    drawn = shown_colors(page)
    assert drawn[64, 64].tolist() == [80, 160, 255, 255]
    assert (drawn != before).any(axis=2).sum() > 500
    assert page.locator("#caption").inner_text().endswith("corrected, not saved")

    page.keyboard.press("z")
    np.testing.assert_array_equal(shown_colors(page), before)
    page.keyboard.press("Shift+Z")
    np.testing.assert_array_equal(shown_colors(page), drawn)

    assert save(page) == 200
    mask = read_mask(data / "masks" / "train_000002.png", 5, (128, 128))
    assert (mask[58:70, 45:83] == 4).all()
    config = {"data.name": "folder", "data.root": str(data), "data.val_fraction": "0"}
    recipe = apply_overrides(load_recipe(str(run / "recipe.yaml")).plain(), config, "test")
    tags = dict(line.split(",") for line in (data / "tags.csv").read_text("utf-8").split())
    own = load(run).label(data / "images" / "train_000002.png", tags["train_000002.png"].split(";"))
    outside = np.ones_like(mask, dtype=bool)
    outside[48:80, 20:108] = False
    np.testing.assert_array_equal(mask[outside], own.mask[outside])
    learned = apply_overrides(recipe.plain(), {"data.true_masks": "train"}, "test")
    images = open_training_images(learned.data, learns_from_masks=False)
    assert [images.source.names[index] for index in images.true_masks] == ["train_000002"]
    np.testing.assert_array_equal(images.source[images.true_masks[0]].mask, mask)


def test_erasing_paints_background_and_strokes_survive_sliders(serve, visit, data):
    page = visit(serve(data))
    page.wait_for_selector(READY)
    page.keyboard.press("e")
    stroke(page, (0.2, 0.3), (0.8, 0.3))
    erased = shown_colors(page)
    assert erased[38, 40:90].max() == 0
    with page.expect_response("**/mask"):
        page.locator("#background").fill("0.05")
    page.wait_for_selector(READY)
    lower = shown_colors(page)
    assert lower[38, 40:90].max() == 0
    assert (lower[..., 3] > 0).sum() > (erased[..., 3] > 0).sum()
    page.uncheck('[aria-label="Show beetle"]')
    page.keyboard.press("m")
    assert shown_colors(page).max() == 0


def test_a_tag_typed_while_the_mask_is_made_counts(serve, visit, data):
    page = visit(serve())
    page.set_input_files("#files", data / "images" / "train_000001.png")
    page.wait_for_selector(READY)
    held = []
    page.route("**/mask", lambda route: route.continue_() if held else held.append(route))
    page.set_input_files("#files", data / "images" / "train_000002.png")
    while not held:
        page.wait_for_timeout(20)
    assert page.locator("#empty").inner_text() == "Making the mask ..."
    assert page.locator("#classes input[aria-label$='in the image']:checked").count() == 0
    assert page.locator("#source").inner_text() == ""  # nothing of the other image
    page.fill("#tag", "board")
    page.keyboard.press("Enter")
    held[0].continue_()
    page.wait_for_selector("[aria-label='board is in the image']:checked")
    assert page.locator("#source").inner_text() == "Classes come from tags."
    assert page.locator("#brush option:checked").inner_text() == "board"
    page.fill("#tag", "bord")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message.bad")
    stroke(page, (0.4, 0.6), (0.6, 0.6))
    assert page.locator("#message").inner_text() == ""  # the mistake is over


def test_the_brush_has_a_class_of_the_image_that_opens(serve, visit, data):
    page = visit(serve(data))
    page.wait_for_selector(READY)
    rows = (line.split(",") for line in (data / "tags.csv").read_text("utf-8").splitlines()[1:])
    chosen = {}
    for file, tags in rows:
        open_image(page, file.removesuffix(".png"))
        if not tags:
            continue
        chosen[file] = page.locator("#brush option:checked").inner_text()
        assert chosen[file] in tags.split(";")
    assert len(set(chosen.values())) > 1
    page.keyboard.press("u")
    open_image(page, min(chosen).removesuffix(".png"))
    assert page.locator("#brush option:checked").inner_text() == "unsure (ignored)"


def test_a_dropped_image_gets_tags_and_is_downloaded(serve, visit, data, tmp_path):
    page = visit(serve())
    page.set_input_files("#files", data / "images" / "train_000001.png")
    page.wait_for_selector(READY)
    page.fill("#tag", "bord")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message.bad")
    assert "Did you mean 'board'?" in page.locator("#message").inner_text()
    with page.expect_response("**/mask") as answer:
        page.fill("#tag", "board")
        page.keyboard.press("Enter")
    assert "board" in answer.value.json()["selected"]
    with page.expect_response("**/mask") as answer:
        page.click("#auto-tags")
    assert answer.value.json()["class_source"] == "classifier"
    page.wait_for_selector(READY)
    page.keyboard.press("5")
    page.keyboard.press("b")
    stroke(page, (0.4, 0.6), (0.6, 0.6))
    page.keyboard.press("u")
    stroke(page, (0.4, 0.8), (0.6, 0.8))
    assert save(page) == 200
    found = {}
    for name, reader in (("coco", COCO), ("cvat", CVAT)):
        page.select_option("#format", name)
        with page.expect_download() as download:
            page.click("#download")
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        read = reader().read(path, data / "images")
        ((image, mask),) = read.masks
        assert image == "train_000001"
        found[name] = np.array(["background", *read.class_names], dtype=object)[mask % 255]
    assert (found["coco"][72:82, 52:76] == "target").all()
    assert (found["coco"] == found["cvat"]).all()


def test_files_can_be_dropped_and_bad_ones_are_named(serve, visit, data):
    page = visit(serve())
    content = (data / "images" / "train_000000.png").read_bytes()
    page.evaluate(
        """([bytes]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], "cow.png"));
          files.items.add(new File(["text"], "notes.txt"));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: files, cancelable: true }));
        }""",
        [list(content)],
    )
    page.wait_for_selector(READY)
    assert page.locator("#images button").count() == 1
    assert "notes.txt: is not an image" in page.locator("#message").inner_text()


def test_a_mask_of_the_user_is_replaced_only_after_a_question(serve, visit, data):
    mask = np.full((128, 128), 3, dtype=np.uint8)
    (data / "masks").mkdir()
    (data / "masks" / "classes.json").write_text(
        '{"classes": ["beetle", "board", "flag", "house", "target"]}', encoding="utf-8"
    )
    path = data / "masks" / "train_000003.png"
    save_mask(mask, path)
    page = visit(serve(data))
    open_image(page, "train_000003")
    assert (shown_colors(page) == [255, 225, 25, 255]).all()
    page.keyboard.press("e")
    stroke(page, (0.5, 0.5), (0.5, 0.5))
    assert save(page) == 409
    page.click('#replace button[value="no"]')
    assert (read_mask(path, 5) == 3).all()
    assert save(page) == 409
    with page.expect_response(lambda answer: answer.request.method == "PUT"):
        page.click('#replace button[value="yes"]')
    assert read_mask(path, 5)[64, 64] == 0
    (kept,) = path.parent.glob(".train_000003.before-*.png")
    assert (read_mask(kept, 5) == 3).all()


def test_two_visitors_do_not_disturb_each_other(serve, visit, data):
    address = serve(data)
    anna, ben = visit(address), visit(address)
    anna.set_input_files("#files", data / "images" / "val_000000.png")
    anna.wait_for_selector(READY)
    assert anna.locator("#images button").count() == 7
    ben.reload()
    ben.wait_for_selector(READY)
    assert ben.locator("#images button").count() == 6
    for page in (anna, ben):
        open_image(page, "train_000004")
        page.keyboard.press("1" if page is anna else "2")
        stroke(page, (0.3, 0.3), (0.5, 0.3))
    assert save(anna) == 200
    assert save(ben) == 409
    assert "somebody else" in ben.locator("#replace-text").inner_text()
    with ben.expect_response(lambda answer: answer.request.method == "PUT"):
        ben.click('#replace button[value="yes"]')
    assert read_mask(data / "masks" / "train_000004.png", 5)[38, 50] == 2
    assert len(list((data / "masks").glob(".train_000004.before-*.png"))) == 1


def test_keys_walk_through_the_folder(serve, visit, data):
    page = visit(serve(data))
    page.wait_for_selector(READY)
    names = page.locator("#images .name").all_inner_texts()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    size = page.locator("#size-value").inner_text()
    page.keyboard.press("]")
    assert page.locator("#size-value").inner_text() != size
    first = page.locator("#caption").inner_text()
    page.keyboard.press("n")
    page.wait_for_function(
        "name => document.getElementById('caption').textContent !== name", arg=first
    )
    page.keyboard.press("p")
    page.wait_for_function(
        "name => document.getElementById('caption').textContent === name", arg=first
    )
    page.wait_for_selector(READY)
    page.keyboard.press("Enter")  # save, next
    page.wait_for_function(
        "name => document.getElementById('caption').textContent !== name", arg=first
    )
    assert (data / "masks" / f"{first}.png").is_file()
    assert sorted(names) == sorted(page.locator("#images .name").all_inner_texts())


def test_the_most_uncertain_image_comes_first(serve, visit, data):
    page = visit(serve(data))
    page.wait_for_function(
        "() => document.getElementById('ranking').textContent === 'Most uncertain first'"
    )
    texts = page.locator("#images .facts span:first-child").all_inner_texts()
    values = [int(text.split(" ")[0]) for text in texts]
    assert len(values) == 6
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_whole_page(serve, visit, data, scheme):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = visit(serve(data), color_scheme=scheme, **phone)
    page.wait_for_selector(READY)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    before = shown_colors(page)
    page.select_option("#brush", "1")
    box = page.locator("#overlay").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    after = shown_colors(page)
    assert after[64, 64].tolist() == [255, 60, 60, 255]
    assert (after != before).any()
    (ground,) = page.evaluate("[getComputedStyle(document.body).backgroundColor]")
    assert (int(ground.split("(")[1].split(",")[0]) < 100) == (scheme == "dark")


def test_a_password_is_asked_for(serve, visit, browser, data):
    address = serve(data, "--auth", "anna:secret")
    with_password = visit(address, http_credentials={"username": "anna", "password": "secret"})
    with_password.wait_for_selector(READY)
    context = browser.new_context()
    assert context.request.get(address).status == 401
    context.close()


def test_the_picture_on_the_page_is_the_image(serve, visit, data):
    page = visit(serve(data))
    page.wait_for_selector(READY)
    name = page.locator("#caption").inner_text()
    source = page.locator("#picture").get_attribute("src")
    shown = np.asarray(
        PILImage.open(io.BytesIO(page.request.get(f"{page.url.rstrip('/')}{source}").body())), int
    )
    true = np.asarray(PILImage.open(Path(data, "images", f"{name}.png")), int)
    assert shown.shape == true.shape
    assert np.abs(shown - true).mean() < 8
