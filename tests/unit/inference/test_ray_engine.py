"""The engine ray on a local cluster of two actors. Needs the extra `scale`: `make test-ray`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tag2mask.checkpoint import save_weights
from tag2mask.errors import MissingExtraError, RunError
from tag2mask.inference.jobs import LabelJob, PredictJob
from tag2mask.inference.ray_engine import ShardActor, write_on_ray
from tag2mask.inference.segmenter import Segmenter

# Ray warns of itself, and leaves files and processes to the end of the program.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file of a mask folder but the records of its shards."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: content for name, content in found.items() if not name.startswith("shards/")}


@pytest.fixture
def run(segmenter: Segmenter, tmp_path: Path) -> str:
    path = tmp_path / "run" / "weights" / "best.safetensors"
    save_weights(path, segmenter.method.state_dict(), segmenter.recipe)
    return str(tmp_path / "run")


@pytest.fixture
def images(image_folder: Callable[[], Path]) -> Path:
    """Twelve images, three times the four painted ones."""
    folder = image_folder()
    for path in sorted(folder.rglob("*.png")):
        for copy in ("b", "c"):
            (path.parent / f"{path.stem}{copy}.png").write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def data(image_folder: Callable[[], Path]) -> Path:
    folder = image_folder()
    rows = ["lane1/a.png,cat", "lane1/b.png,cow", "lane2/a.png,dog", "none.png,"]
    (folder / "tags.csv").write_text("\n".join(["image,tags", *rows]))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, run: str, images: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    job = PredictJob(run=run, images=(images,), out=tmp_path / "out")
    with pytest.raises(MissingExtraError, match=r"pip install 'tag2mask\[scale\]'"):
        write_on_ray(job, job.open(), 2, 1)
    assert not (tmp_path / "out").exists()


def test_an_actor_does_one_shard_after_another_and_returns_mistakes_as_text(
    run: str, data: Path, tmp_path: Path
) -> None:
    job = LabelJob(run=run, data=data, out=tmp_path / "out")
    actor = ShardActor(job, 2)
    assert [actor({"shard": number})["written"] for number in (0, 1, 0)] == [2, 2, 0]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    refused = ShardActor(LabelJob(run=run, data=data, out=tmp_path / "other"), 2)({"shard": 0})
    assert "is not empty" in refused["error"]


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_masks_of_ray_equal_those_of_one_process(run: str, data: Path, tmp_path: Path) -> None:
    one = LabelJob(run=run, data=data, out=tmp_path / "one")
    one.open().write()
    job = LabelJob(run=run, data=data, out=tmp_path / "ray")
    summary = write_on_ray(job, job.open(), 3, 2)
    assert (summary.written, summary.already, summary.unfinished) == (4, 0, ())
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "one")
    again = write_on_ray(job, job.open(), 3, 2)
    assert (again.written, again.already) == (0, 4)


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_killed_actor_loses_nothing(run: str, images: Path, tmp_path: Path) -> None:
    PredictJob(run=run, images=(images,), out=tmp_path / "one").open().write()
    job = PredictJob(run=run, images=(images,), out=tmp_path / "ray")
    killed: list[int] = []

    def kill_one_actor() -> None:
        """Kill an actor as soon as the first mask is there."""
        while not list((tmp_path / "ray").glob("*/*.png")):
            time.sleep(0.01)
        killed.append(_actor_pids()[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one_actor, daemon=True)
    thread.start()
    summary = write_on_ray(job, job.open(), 6, 2)
    thread.join()
    assert killed
    assert summary.unfinished == ()
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "one")


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_mistake_in_an_actor_is_one_line(run: str, images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_text("no picture")
    job = PredictJob(run=run, images=(images,), out=tmp_path / "ray", strict=True)
    with pytest.raises(RunError, match=r"shard \d of 4: .*broken\.png"):
        write_on_ray(job, job.open(), 4, 2)


def _actor_pids() -> list[int]:
    """Return the processes of this machine that Ray names after the actor."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(b"ray::") and b"ShardActor" in words:
            found.append(int(folder.name))
    return found
