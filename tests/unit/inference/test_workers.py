import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conformance.stand_ins import small_method, small_recipe
from tests.unit.inference.stub_refiners import (
    Bare,
    Dying,
    Late,
    Located,
    Picky,
    Sleeping,
    Stub,
    Together,
    image_input,
)

from tag2mask.data.base import Source
from tag2mask.errors import DataError, RunError
from tag2mask.inference.batches import ImageInput, Input
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.workers import MaskWorkers, predict_in_workers
from tag2mask.inference.writer import MaskWriter, label_dataset
from tag2mask.types import Prediction

ROOT = Path(__file__).parents[3]
SIZES = ((48, 64), (60, 48), (96, 128), (48, 64), (60, 48), (48, 64), (30, 40))
"""(H, W) of images; the third is resized to 48 x 64 as well."""
SCRIPT = """
from tag2mask.inference.workers import predict_in_workers
from tests.unit.inference.stub_refiners import Bare, Sleeping, image_input

def images():
    for index in range(9):
        if index == 4:
            print("submitted", flush=True)
        yield str(index), image_input(index)

if __name__ == "__main__":
    list(predict_in_workers(Bare(Sleeping()), images(), 2))
"""


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


def test_two_workers_write_what_one_process_writes_in_the_same_order(
    segmenter: Segmenter, source: Source, tmp_path: Path
) -> None:
    settings = segmenter.settings("tags")
    for workers in (1, 2):
        out = tmp_path / str(workers)
        writer = MaskWriter(out, segmenter.class_names, "tags", settings)
        written = label_dataset(segmenter, source, writer, workers=workers)
        assert written.written == 4
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert len(files) == 6
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_problems_of_reading_and_of_refining_keep_their_place(workers: int) -> None:
    broken = DataError("broken.jpg: cannot be read")
    images = [
        ("a", image_input(1)),
        ("b", image_input(7)),
        ("broken", broken),
        ("d", image_input(2)),
    ]
    found = dict(predict_in_workers(Bare(Picky()), images, workers))
    assert list(found) == ["a", "b", "broken", "d"]
    assert isinstance(found["a"], Prediction)
    assert found["a"].mask[:, 7:].min() == 1
    assert str(found["b"]) == "b: too bright: 7"
    assert found["broken"] is broken
    assert isinstance(found["d"], Prediction)


@pytest.mark.parametrize("large", [False, True])
def test_the_next_image_is_read_while_one_is_processed_unless_it_is_large(
    monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr("tag2mask.inference.batches.is_large", lambda size: large)
    read = [threading.Event() for _ in range(3)]

    def images() -> Iterator[tuple[str, ImageInput]]:
        for index, event in enumerate(read):
            event.set()
            yield str(index), image_input(index)

    found = predict_in_workers(Bare(Stub()), images(), 1)
    for index in range(3):
        assert next(found)[0] == str(index)
        if index < 2:  # the consumer holds image `index` now
            assert read[index + 1].wait(0.2 if large else 20) is not large
    assert list(found) == []


def test_an_error_of_the_reader_reaches_the_caller() -> None:
    def images() -> Iterator[tuple[str, ImageInput]]:
        yield "0", image_input(0)
        raise OSError("the disk is gone")

    found = predict_in_workers(Bare(Stub()), images(), 1)
    assert next(found)[0] == "0"
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)


def mixed_images() -> list[Input]:
    """Seven images of two sizes, one of which refuses to be refined and one to be read."""
    wide = [(str(level), image_input(level)) for level in range(1, 8)]
    tall = [(name, one._replace(image=one.image.swapaxes(0, 1))) for name, one in wide]
    broken: Input = ("broken", DataError("broken.jpg: cannot be read"))
    return [wide[0], tall[1], broken, wide[2], wide[3], tall[4], wide[5], tall[6]]


@pytest.mark.parametrize("workers", [1, 2])
def test_images_that_share_passes_come_in_order_with_their_own_problems(workers: int) -> None:
    found = list(predict_in_workers(Together(Picky()), mixed_images(), workers))
    assert [name for name, _ in found] == ["1", "2", "broken", "3", "4", "5", "6", "7"]
    for name, made in found:
        if name in "123":
            assert isinstance(made, Prediction)
            assert np.unique(made.image).tolist() == [int(name)]
            assert made.mask.shape == ((12, 8) if name == "2" else (8, 12))
        else:
            reason = "broken.jpg: cannot be read" if name == "broken" else f"too bright: {name}"
            assert str(made).endswith(reason)


def test_images_of_one_size_share_a_pass_unless_it_takes_too_much_memory() -> None:
    for has_memory in (True, False):
        segmenter = Together(Stub(), has_memory=has_memory)
        assert len(list(predict_in_workers(segmenter, mixed_images(), 1))) == 8
        shared = [["1", "3", "4"], ["6"], ["2", "5", "7"]]
        alone = [[name] for group in shared for name in group]
        assert segmenter.passes == (shared if has_memory else alone)


@pytest.mark.parametrize(
    ("method", "backbone", "workers"),
    [
        ("cam", {"name": "resnet38d", "width": 1 / 16}, 1),
        ("rml", {"name": "mit", "variant": "b0"}, 1),
        ("rml", {"name": "mit", "variant": "b0"}, 2),
        ("afa", {"name": "mit", "variant": "b0"}, 1),  # masks from a decoder
    ],
)
def test_batches_give_the_masks_and_scores_of_single_images(
    method: str, backbone: dict[str, Any], workers: int
) -> None:
    network = small_method(method, backbone=backbone)
    recipe = small_recipe(method, backbone=backbone)
    random = np.random.default_rng(0)
    images: list[Input] = []
    for at, (height, width) in enumerate(SIZES):
        blocks = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        pixels = blocks.repeat(height // 6, 0).repeat(width // 8, 1)
        images.append((str(at), ImageInput(pixels, np.eye(3, dtype=np.uint8)[at % 3], str(at))))
    made = []
    for batch_size in (1, 3):
        changes = {"batch_size": batch_size, "max_side_px": 64, "long_side_px": 0}
        predict = recipe.predict.model_copy(update=changes | {"scales": (1.0, 0.5, 1.5)})
        segmenter = Segmenter(network, recipe.model_copy(update={"predict": predict}))
        assert segmenter.batch_size == batch_size
        processes = 1 if batch_size == 1 else workers
        made.append(dict(predict_in_workers(segmenter, images, processes)))
    assert list(made[0]) == list(made[1]) == [str(at) for at in range(len(SIZES))]
    for name, alone in made[0].items():
        together = made[1][name]
        assert isinstance(alone, Prediction)
        assert isinstance(together, Prediction)
        assert alone.mask.shape == alone.image.shape[:2]
        np.testing.assert_array_equal(together.mask, alone.mask)
        np.testing.assert_array_equal(together.image, alone.image)
        assert together.scores == pytest.approx(alone.scores, abs=1e-5)
        assert together.uncertainty.total == pytest.approx(alone.uncertainty.total, abs=1e-3)
    assert any(np.unique(one.mask).size > 1 for one in made[0].values())  # type: ignore[union-attr]


def test_the_network_runs_while_earlier_images_are_written() -> None:
    segmenter = Together(Stub())
    images = [(str(level), image_input(level)) for level in range(6)]
    found = predict_in_workers(segmenter, images, 1)
    assert next(found)[0] == "0"  # the consumer holds it, and writes
    deadline = time.monotonic() + 20
    while len(segmenter.passes) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert segmenter.passes == [["0", "1", "2"], ["3", "4", "5"]]
    found.close()


def test_results_come_in_the_order_of_the_images_not_of_the_workers() -> None:
    images = [(str(index), image_input(index)) for index in range(8)]
    found = list(predict_in_workers(Bare(Late()), images, 2))
    assert [name for name, _ in found] == [name for name, _ in images]
    for index, (_, prediction) in enumerate(found):
        assert isinstance(prediction, Prediction)
        assert np.unique(prediction.image).tolist() == [index]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_network_runs_in_the_workers_unless_it_is_on_a_gpu(device: str) -> None:
    segmenter = Located(Stub())
    segmenter.device = torch.device(device)
    found = list(predict_in_workers(segmenter, [("1", image_input(1)), ("2", image_input(2))], 2))
    for name, prediction in found:
        assert isinstance(prediction, Prediction)
        assert (prediction.scores["cat"] == os.getpid()) == (device == "cuda")
        assert np.unique(prediction.image).tolist() == [int(name)]
        assert prediction.mask[:, 7:].min() == 1
        assert prediction.mask[:, :5].max() == 0


def test_a_worker_that_is_killed_is_one_line() -> None:
    images = [(str(index), image_input(index)) for index in range(12)]
    with pytest.raises(RunError, match="a worker process was killed") as caught:
        list(predict_in_workers(Bare(Dying()), images, 2))
    assert "\n" not in str(caught.value)


def interrupted() -> None:
    with MaskWorkers(Bare(Sleeping()), 2) as pool:
        pool.submit([image_input(1)])
        raise KeyboardInterrupt


def test_an_interrupt_ends_workers_in_the_midst_of_a_image() -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < 60


def processes_of(session: int) -> list[int]:
    """Processes of a session, zombies left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_stays_when_the_command_is_stopped(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # a shell starts its background jobs deaf to SIGINT, and so their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"submitted\n"
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does: every process gets it
        else:
            process.kill()
        process.wait(timeout=30)
    deadline = time.monotonic() + 20
    while (left := processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
