import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.checkpoint import save_weights
from tag2mask.data.base import Source
from tag2mask.errors import DataError, RunError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.writer import MaskWriter, label_dataset, predict_images
from tag2mask.io.image_inputs import named_images
from tag2mask.io.mask_folder import read_classes, read_skipped
from tag2mask.io.processes import own_name
from tag2mask.methods.rib import RIBConfig
from tag2mask.types import ImageProgress, Prediction, Sample

CLASSES = ("cat", "cow", "dog")


def prediction(value: int) -> Prediction:
    mask = np.full((4, 6), value, dtype=np.uint8)
    scores = {"cat": 0.1, "cow": 0.7, "dog": 0.25}
    return Prediction(mask, CLASSES, scores, "classifier", np.zeros((4, 6, 3), dtype=np.uint8))


def open_writer(out: Path, **settings: object) -> MaskWriter:
    return MaskWriter(out, CLASSES, "classifier", settings)


def score_names(out: Path) -> list[str]:
    lines = (out / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["name"] for line in lines]


def test_mask_is_an_indexed_picture_with_the_voc_palette_in_its_folder(tmp_path: Path) -> None:
    open_writer(tmp_path).write("lane1/kühe", prediction(2))
    with PILImage.open(tmp_path / "lane1" / "kühe.png") as picture:
        assert picture.mode == "P"
        assert np.unique(np.asarray(picture)).tolist() == [2]
        assert picture.getpalette()[6:9] == [0, 128, 0]


def test_classes_file_contains_values_class_source_and_settings(tmp_path: Path) -> None:
    open_writer(tmp_path, scales=(1.0, 0.5), refiner=None)
    described = read_classes(tmp_path)
    assert described["classes"] == list(CLASSES)
    assert (described["background"], described["ignore"], described["class_source"]) == (
        0,
        255,
        "classifier",
    )
    assert described["settings"] == {"scales": [1.0, 0.5], "refiner": None}
    assert described["palette"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_random_draws_depend_neither_on_the_order_of_images_nor_on_workers(
    segmenter: Segmenter, source: Source, tmp_path: Path, workers: int
) -> None:
    config = RIBConfig(
        num_reference_images=1, reference_px=32, iterations=2, lr=1e-3, max_coverage=1.0
    )
    save_weights(
        tmp_path / "weights" / "best.safetensors", segmenter.method.state_dict(), segmenter.recipe
    )
    rib = Segmenter.load(
        tmp_path, configure=lambda recipe: recipe.model_copy(update={"method": config})
    )
    label_dataset(rib, source, open_writer(tmp_path / "masks"), workers=workers)
    assert rib.method._dataset is None
    informed = rib.with_dataset(source)
    for index in (2, 0):
        sample = source[index]
        expected = informed.segment(sample.image, sample.tags, name=sample.name).mask
        with PILImage.open(tmp_path / "masks" / f"{sample.name}.png") as picture:
            assert np.array_equal(np.asarray(picture), expected)


def test_a_run_with_batches_that_was_interrupted_resumes_to_the_masks_of_single_images(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    def interrupt(progress: ImageProgress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    predict = segmenter.recipe.predict.model_copy(update={"batch_size": 3})
    recipe = segmenter.recipe.model_copy(update={"predict": predict})
    batched = Segmenter(segmenter.method, recipe)
    writers = {}
    for name, one in (("single", segmenter), ("batched", batched), ("resumed", batched)):
        out = tmp_path / name
        writers[name] = MaskWriter(out, CLASSES, "tags", one.settings("tags"))
        if name == "resumed":
            with pytest.raises(KeyboardInterrupt):
                label_dataset(one, source, writers[name], on_image=interrupt)
            assert score_names(out) == list(source.names)[:2]
            single = segmenter.settings("tags")  # the second start has no batches
            assert label_dataset(segmenter, source, MaskWriter(out, CLASSES, "tags", single))
        else:
            assert label_dataset(one, source, writers[name]).written == 4
        assert score_names(out) == list(source.names)
    for name in source.names:
        first, *others = (writer.path(name).read_bytes() for writer in writers.values())
        assert others == [first, first]


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "masks")
    writer.write("lane/a", prediction(1))
    dead = own_name()._replace(started=1)
    for folder in (tmp_path / "masks", tmp_path / "masks" / "lane"):
        (folder / f".{dead}-3.part").write_bytes(b"half a mask")
    open_writer(tmp_path / "masks")
    left = {path.name for path in (tmp_path / "masks").rglob("*")}
    assert left == {"classes.json", "scores.jsonl", "lane", "a.png"}


def test_scores_have_one_row_per_image(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.write("a", prediction(1))
    writer.write("b", prediction(0))
    rows = (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    scores = {"cat": 0.1, "cow": 0.7, "dog": 0.25}
    size = {"width": 6, "height": 4}
    assert json.loads(rows[0]) == {"name": "a", "scores": scores, "areas": {"cat": 1.0}, **size}
    assert score_names(tmp_path) == ["a", "b"]


def test_second_start_drops_torn_and_repeated_score_rows(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.write("a", prediction(1))
    writer.write("a", prediction(1))
    with (tmp_path / "scores.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "never written", "scores": {}}\n{"name": "to')
    open_writer(tmp_path)
    assert score_names(tmp_path) == ["a"]


def test_folder_of_other_settings_is_rejected_and_says_what_differs(tmp_path: Path) -> None:
    open_writer(tmp_path, background=0.45, run="here")
    with pytest.raises(RunError, match=r"background: 0\.45 before, 0\.3 now"):
        open_writer(tmp_path, background=0.3, run="here")
    open_writer(tmp_path, background=0.45, run="moved")  # the place of the run decides nothing
    with pytest.raises(RunError, match="class_source"):
        MaskWriter(tmp_path, CLASSES, "tags", {"background": 0.45})


def test_folder_of_other_files_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(RunError, match="is not empty"):
        open_writer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_disk_that_refuses_is_one_line(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    (tmp_path / "lane1").write_text("a file where a folder should be")
    with pytest.raises(RunError, match=r"lane1/a\.png: cannot be written"):
        writer.write("lane1/a", prediction(1))


def test_labeling_uses_tags_and_a_second_start_only_fills_gaps(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    settings = segmenter.settings("tags")
    writer = MaskWriter(tmp_path, segmenter.class_names, "tags", settings)
    first = label_dataset(segmenter, source, writer)
    assert (first.written, first.already, first.unreadable) == (4, 0, ())
    with PILImage.open(tmp_path / "lane1" / "b.png") as picture:
        assert set(np.unique(np.asarray(picture))) == {0, 2}
    with PILImage.open(tmp_path / "none.png") as picture:
        assert np.asarray(picture).max() == 0
    whole = (tmp_path / "lane2" / "a.png").read_bytes()
    (tmp_path / "lane2" / "a.png").unlink()
    again = MaskWriter(tmp_path, segmenter.class_names, "tags", settings)
    second = label_dataset(segmenter, source, again)
    assert (second.written, second.already) == (1, 3)
    assert (tmp_path / "lane2" / "a.png").read_bytes() == whole
    assert sorted(score_names(tmp_path)) == sorted(source.names)
    for summary in (first.masks, second.masks):  # of the complete folder, also when resumed
        assert (summary.images, summary.negatives) == (4, 1)
        assert [one.tagged for one in summary.classes.values()] == [1, 1, 1]
        assert len(summary.uncertainty) == 4


def test_unreadable_image_is_counted_or_rejected(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    folder = image_folder()
    (folder / "broken.jpg").write_bytes(b"no picture")
    writer = open_writer(tmp_path / "out")
    done = predict_images(segmenter, named_images([folder]), writer)
    assert done.written == 4
    assert len(done.unreadable) == 1
    assert "broken.jpg" in done.unreadable[0]
    with pytest.raises(DataError, match=r"broken\.jpg"):
        predict_images(segmenter, named_images([folder]), writer, strict=True)


def test_predicted_mask_keeps_the_images_size_and_folder(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    folder = image_folder()
    writer = open_writer(tmp_path / "out")
    predict_images(segmenter, named_images([folder / "lane1", folder / "none.png"]), writer)
    found = {path.relative_to(tmp_path / "out").as_posix() for path in writer.out.rglob("*.png")}
    assert found == {"a.png", "b.png", "none.png"}
    with PILImage.open(tmp_path / "out" / "a.png") as picture:
        assert picture.size == (63, 45)


def test_images_that_could_not_be_read_are_noted(
    tmp_path: Path, segmenter: Segmenter, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = type(source).__getitem__

    def torn(self: Source, index: int) -> Sample:
        if index == 1:
            raise DataError("torn")
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(type(source), "__getitem__", torn)
        label_dataset(segmenter, source, open_writer(tmp_path / "out"))
    assert read_skipped(tmp_path / "out") == {source.names[1]}
    label_dataset(segmenter, source, open_writer(tmp_path / "out"))
    assert read_skipped(tmp_path / "out") == frozenset()


def test_a_callback_receives_every_image_that_was_missing(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    calls: list[ImageProgress] = []
    folder, out = image_folder(), tmp_path / "out"
    (folder / "torn.png").write_text("broken", encoding="utf-8")
    predict_images(segmenter, named_images([folder]), open_writer(out))
    open_writer(out).path("lane2/a").unlink()
    predict_images(segmenter, named_images([folder]), open_writer(out), on_image=calls.append)
    assert [(one.name, one.done, one.total) for one in calls] == [("lane2/a", 1, 2), ("torn", 2, 2)]
    assert calls[0].prediction is not None
    assert calls[0].prediction.name == "lane2/a"
    assert calls[1].prediction is None


def test_nothing_written_is_an_error(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in "xy":
        (folder / f"{name}.jpg").write_bytes(b"no picture")
    writer = open_writer(tmp_path / "out")
    with pytest.raises(RunError, match=r"no mask was written.*x\.jpg.*and 1 more"):
        predict_images(segmenter, named_images([folder]), writer)
    summary = predict_images(segmenter, named_images([image_folder(), folder]), writer)
    assert (summary.written, summary.masks.skipped) == (4, 2)
    again = predict_images(segmenter, named_images([image_folder()]), writer)
    assert (again.already, again.masks.skipped) == (4, 2)  # of the folder, not of this call


def test_a_list_of_missing_and_damaged_images_labels_the_others(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    image_folder()
    listed = tmp_path / "list.txt"
    listed.write_text("images/none.png\nimages/gone.png\n")
    summary = predict_images(segmenter, named_images([], listed), open_writer(tmp_path / "out"))
    assert summary.written == 1
    assert "gone.png: no such file" in summary.unreadable[0]


def test_a_name_that_is_too_long_skips_only_that_image(
    segmenter: Segmenter, image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    images = image_folder()
    (images / "none.png").rename(images / f"{'x' * 250}.png")  # the longest name of a file
    long = images / f"{'é' * 120}.png"
    long.write_bytes((images / "lane1" / "a.png").read_bytes())
    writer = open_writer(tmp_path / "out")
    summary = predict_images(segmenter, named_images([images]), writer)
    assert summary.written == 5
    many = MaskWriter(tmp_path / "more", CLASSES, "tags", {})
    with pytest.raises(DataError, match="the name is too long for a file"):
        many.write("y" * 252, prediction(1))
    assert not many.done("y" * 252)
    assert score_names(tmp_path / "more") == []
