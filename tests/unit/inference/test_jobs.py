from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tag2mask.checkpoint import save_weights
from tag2mask.data.base import Source
from tag2mask.errors import DataError
from tag2mask.inference.jobs import LabelJob, PredictJob
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.shards import Shard
from tag2mask.io.mask_folder import read_classes


@pytest.fixture
def run(segmenter: Segmenter, tmp_path: Path) -> str:
    folder = tmp_path / "run"
    path = folder / "weights" / "best.safetensors"
    save_weights(path, segmenter.method.state_dict(), segmenter.recipe)
    return str(folder)


@pytest.fixture
def data(image_folder: Callable[[], Path]) -> Path:
    folder = image_folder()
    rows = ["lane1/a.png,cat", "lane1/b.png,cow", "lane2/a.png,dog", "none.png,"]
    (folder / "tags.csv").write_text("\n".join(["image,tags", *rows]))
    return folder


def test_a_job_does_the_same_after_a_journey_to_another_process(
    run: str, data: Path, tmp_path: Path
) -> None:
    job = LabelJob(run=run, data=data, out=tmp_path / "out", overrides={"predict.scales": "1.0"})
    opened = pickle.loads(pickle.dumps(job)).open()
    assert opened.write(Shard(0, 2)).written == 2
    assert opened.write(Shard(1, 2)).unfinished == ()
    described = read_classes(tmp_path / "out")
    assert described["class_source"] == "tags"
    assert described["settings"]["scales"] == [1.0]


def test_images_can_be_read_by_name(run: str, data: Path, tmp_path: Path, source: Source) -> None:
    label = LabelJob(run=run, data=data, out=tmp_path / "out").open()
    predict = PredictJob(run=run, images=(data,), out=tmp_path / "out").open()
    for opened in (label, predict):
        assert np.array_equal(opened.read("lane1/b"), source[1].image)
        assert list(opened.names) == ["lane1/a", "lane1/b", "lane2/a", "none"]


def test_unknown_tags_stop_a_job_unless_they_are_skipped(
    run: str, data: Path, tmp_path: Path
) -> None:
    (data / "tags.csv").write_text(
        (data / "tags.csv").read_text().replace("none.png,", "none.png,zebra")
    )
    job = LabelJob(run=run, data=data, out=tmp_path / "out")
    with pytest.raises(DataError, match="'zebra'"):
        job.open()
    skipping = LabelJob(run=run, data=data, out=tmp_path / "out", skip_unknown_tags=True)
    assert len(skipping.open().names) == 4
    assert not (tmp_path / "out").exists()
