"""The command line end to end on a few synthetic scenes, and every mistake of a user."""

import errno
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask import checkpoint
from tag2mask.checkpoint import read_weights, save_weights
from tag2mask.cli.main import main
from tag2mask.config.recipe import load_recipe, parse_recipe
from tag2mask.data.synthetic import SyntheticConfig, write_scenes

TINY = """\
# The smallest recipe that uses every part.
data:     {name: folder, root: DATA, crop_px: 32, val_fraction: 0.2}
backbone: {name: mit, variant: b0}
method:   {name: cam}
refiner:  {name: par}
optim:    {steps: 2, batch_size: 2}
predict:  {scales: [1.0], flip: false}
run:      {workers: 0, log_every: 1, samples: 1, save_every: 1, evaluate_every: 0}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Sixteen small scenes in the layout of a user's folder."""
    root = tmp_path_factory.mktemp("synthetic")
    write_scenes(SyntheticConfig(count=14, val_count=2, size_px=64), root)
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, scenes):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY.replace("DATA", str(scenes)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, recipe):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", str(recipe), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def data(tmp_path, scenes):
    """A copy of the scenes that a test may damage."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


@pytest.fixture
def refusal(capsys):
    """Run a command that must fail; return its one line (or the first of `problems`)."""

    def reject(*arguments: object, problems: int = 1) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        problem_lines = [line for line in lines if line.startswith("error: ")]
        assert len(problem_lines) == problems, lines
        assert not any("Traceback" in line for line in lines)
        return problem_lines[0]

    return reject


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def tag_rows(data: Path) -> list[str]:
    return (data / "tags.csv").read_text(encoding="utf-8").splitlines()


def write_rows(data: Path, rows: list[str]) -> None:
    (data / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


# --- correct use ---


def test_check_reports_classes_and_counts(scenes, capsys):
    assert main(["check", str(scenes)]) == 0
    shown = capsys.readouterr().out
    assert "16 images, read as 'folder'" in shown
    assert "board" in shown
    assert f"ready: tag2mask train {scenes} " in shown


def test_run_folder_is_complete(run):
    for name in ("recipe.yaml", "log.jsonl", "metrics.json", "state", "samples"):
        assert (run / name).exists(), name
    assert (run / "weights" / "last.safetensors").is_file()
    assert (run / "weights" / "best.safetensors").is_file()
    assert load_recipe(str(run / "recipe.yaml")).num_foreground == 5
    first = json.loads((run / "log.jsonl").read_text("utf-8").splitlines()[0])
    assert first["command"].startswith("tag2mask train ")


def test_label_evaluate_and_report(run, scenes, tmp_path, capsys):
    masks = tmp_path / "masks"
    assert main(["label", str(run), str(scenes), "--out", str(masks), "--overlays"]) == 0
    shown = capsys.readouterr().out
    for words in ("16 masks written", "in this folder: 16 masks", "most uncertain, inspect first:"):
        assert words in shown
    assert f"gallery: {masks / 'overlays' / 'index.html'}" in shown
    assert len(list((masks / "overlays").glob("*.jpg"))) == 16
    text = (masks / "scores.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert all(0 <= row["uncertainty"] <= 1 for row in rows)
    one_scale = {"refinement", "pixels", "tags"}  # without flip there are no views to compare
    assert all(row["uncertainty_parts"].keys() == one_scale for row in rows)
    described = json.loads((masks / "classes.json").read_text(encoding="utf-8"))
    assert described["class_source"] == "tags"
    assert described["settings"]["split"] == "all"
    with PILImage.open(masks / "train_000000.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (64, 64)

    scores = tmp_path / "scores.json"
    line = ["evaluate", str(masks), str(scenes / "masks"), "--json", str(scores)]
    assert main(line) == 0
    shown = capsys.readouterr().out
    for word in ("background", "board", "mean", "16 images", "classes from tags", "refiner par"):
        assert word in shown
    written = json.loads(scores.read_text(encoding="utf-8"))
    assert written["class_source"] == "tags"
    assert 0 <= written["miou"] <= 1
    assert len(written["iou"]) == 6

    assert main(["report", str(run), "--masks", str(masks)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "16 masks in" in page


def test_label_resumes_and_rejects_other_settings(run, scenes, tmp_path, capsys, refusal):
    masks = tmp_path / "masks"
    line = ["label", str(run), str(scenes), "--split", "val", "--out", str(masks)]
    assert main(line) == 0
    before = sorted(path.stat().st_mtime_ns for path in masks.glob("*.png"))
    assert main(line) == 0
    assert "were there already" in capsys.readouterr().out
    assert sorted(path.stat().st_mtime_ns for path in masks.glob("*.png")) == before
    assert "background" in refusal(*line, "predict.background=0.3")


def test_unknown_tags_are_rejected_before_anything_is_written(run, data, tmp_path, refusal):
    rows = tag_rows(data)
    write_rows(data, [rows[0], f"{rows[1]};lorry", *rows[2:]])
    line = ["label", str(run), str(data), "--out", str(tmp_path / "masks")]
    assert "'lorry' (1 image)" in refusal(*line)
    assert not (tmp_path / "masks").exists()
    assert main([*line, "--skip-unknown-tags"]) == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 16


def test_tags_of_too_few_images_cannot_be_checked(run, scenes, refusal):
    assert "too few to check tags" in refusal("check", str(run), str(scenes))


def test_predict_takes_images_and_folders_and_overrides(run, scenes, tmp_path):
    image = scenes / "images" / "train_000000.png"
    folder = tmp_path / "more"
    folder.mkdir()
    shutil.copy(scenes / "images" / "val_000001.png", folder / "ünïcode name.png")
    out = tmp_path / "out"
    line = ["predict", run, image, folder, "--out", out]
    line += ["predict.scales=1.0,0.5", "predict.flip=yes", "refiner=none"]
    assert main([str(word) for word in line]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == [
        "train_000000.png",
        "ünïcode name.png",
    ]
    described = json.loads((out / "classes.json").read_text(encoding="utf-8"))
    assert described["class_source"] == "classifier"
    assert described["settings"]["scales"] == [1.0, 0.5]
    assert described["settings"]["flip"] is True
    assert described["settings"]["refiner"] is None


def test_overrides_are_kept_in_the_run(recipe, tmp_path):
    out = tmp_path / "run"
    line = ["train", recipe, "--out", out, "optim.lr=1e-4", "data.flip=0", "refiner=none"]
    assert main([str(word) for word in line]) == 0
    resolved = load_recipe(str(out / "recipe.yaml"))
    assert resolved.optim.lr == pytest.approx(1e-4)
    assert resolved.data.flip == 0
    assert resolved.refiner is None


def test_images_to_label_need_not_show_every_class(run, data, tmp_path):
    rows = tag_rows(data)
    rows_with_board = [row for row in rows[1:] if "board" in row]
    for row in rows[1:]:
        if row not in rows_with_board:
            (data / "images" / row.split(",")[0]).unlink()
    write_rows(data, [rows[0], *(f"{row.split(',')[0]},board" for row in rows_with_board)])
    shutil.rmtree(data / "masks")
    assert main(["label", str(run), str(data), "--out", str(tmp_path / "masks")]) == 0


def test_negative_image_trains_and_gets_an_empty_mask(recipe, run, data, tmp_path):
    rows = tag_rows(data)
    shown = {tag for row in rows[2:] for tag in row.split(",")[1].split(";")}
    assert len(shown) == 5  # emptying the first row leaves every class an image
    write_rows(data, [rows[0], f"{rows[1].split(',')[0]},", *rows[2:]])
    line = ["train", recipe, f"data.root={data}", "--out", tmp_path / "run", "data.val_fraction=0"]
    assert main([str(word) for word in line]) == 0
    assert main(["label", str(run), str(data), "--out", str(tmp_path / "masks")]) == 0
    with PILImage.open(tmp_path / "masks" / "train_000000.png") as mask:
        assert not np.asarray(mask).any()


def test_demo_runs_twice_in_the_same_folder(tmp_path, monkeypatch, capsys):
    path = tmp_path / "tiny.yaml"
    data = "{name: synthetic, count: 8, val_count: 3, size_px: 64, crop_px: 32}"
    path.write_text(re.sub(r"\{name: folder.*\}", data, TINY), encoding="utf-8")
    monkeypatch.setattr("tag2mask.cli.demo.RECIPE", str(path))
    out = tmp_path / "demo"
    for _ in range(2):
        assert main(["demo", "--out", str(out)]) == 0
        shown = capsys.readouterr().out
        assert re.search(r"mIoU 0\.\d{3} \(classes from tags\) on 3 held-out scenes", shown)
        assert "tag2mask check DATA" in shown
    assert len(list((out / "masks").glob("*.png"))) == 3
    assert (out / "report.html").is_file()
    assert json.loads((out / "scores.json").read_text("utf-8"))["class_source"] == "tags"


def test_installed_command_ends_without_traceback():
    for start in (["tag2mask"], [sys.executable, "-m", "tag2mask"]):
        path = Path(sys.executable).parent / start[0] if start == ["tag2mask"] else start[0]
        done = subprocess.run(
            [str(path), *start[1:], "chekc"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: unknown command 'chekc'. Did you mean 'check'?")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "line", ["--help", "list methods", "list recipes", "train --help", "label --help"]
)
def test_help_and_lists_load_no_heavy_library(line):
    """--help answers in half a second; imports are counted, as seconds depend on the machine."""
    code = (
        "import sys; from tag2mask.cli.main import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'transformers', 'numba', 'accelerate', 'PIL'} & set(sys.modules); "
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_overview_takes_less_than_half_a_second():
    """CPU time of the fastest of three starts, which other work on the machine hardly changes."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "tag2mask", "--help"], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_overview_imports_no_schema():
    code = (
        "import sys; from tag2mask.cli.main import main; main(['--help']); "
        "sys.exit(str({'pydantic', 'numpy', 'torch'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m tag2mask list recipes | true",
        shell=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""


# --- bad input: one line, exit code 2, no traceback ---


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check GONE", "GONE: no such folder"),
        ("train GONE.yaml --out OUT", "GONE.yaml: cannot be read"),
        ("train RECIPE data.root=GONE --out OUT", "GONE: no such folder"),
        ("train --resume GONE", "GONE: no such run folder"),
        ("label GONE DATA --out OUT", "GONE: no such run folder"),
        ("label RUN GONE --out OUT", "GONE: no such folder"),
        ("predict RUN GONE.jpg --out OUT", "GONE.jpg: no such image or folder"),
        ("predict RUN --out OUT", "missing argument 'IMAGE'"),
        ("evaluate GONE DATA", "GONE: no such folder"),
        ("evaluate DATA GONE", "GONE: no such folder"),
        ("report GONE", "GONE: no such run folder"),
        ("train RECIPE --out RUN", "is not empty"),
        ("train RECIPE", "missing: --out"),
        ("train RECIPE --out OUT --resume RUN", "name two run folders"),
        ("train --resume RUN optim.lr=1", "optim.lr"),
        ("train rml/no_such_recipe --out OUT", "'rml/no_such_recipe' is neither a folder nor"),
        ("list plugins", "'methods'"),
        ("label RUN DATA --out OUT --weights frist", "'best'"),
        ("label RUN DATA --out OUT --split tset", "unknown part 'tset'"),
        ("label RUN DATA --out OUT optim.lr=3", "optim.lr: is fixed by training"),
        ("predict RUN DATA --out OUT predict.backgroud=0.3", "Did you mean 'background'?"),
        ("predict RUN DATA --out OUT predict.background=1.3", "predict.background: Input should"),
    ],
)
def test_wrong_command_line(line, words, run, recipe, scenes, tmp_path, refusal):
    paths = {"GONE": tmp_path / "gone", "OUT": tmp_path / "out"}
    paths |= {"RUN": run, "RECIPE": recipe, "DATA": scenes}
    for name, path in paths.items():
        line = line.replace(name, str(path))
        words = words.replace(name, str(path))
    assert words in refusal(*line.split())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.stepz=3", "Did you mean 'steps'?"),
        ("--lr 3", "Did you mean optim.lr=3?"),
        ("--optim.lr 1e-4", "unknown option '--optim.lr'. Did you mean optim.lr=1e-4?"),
        ("data.crop_px=33", "data.crop_px: Input should be a multiple of 32 (got '33')"),
        ("optim.lr=-1", "optim.lr: Input should be greater than 0"),
        ("optim.lr=fast", "optim.lr: Input should be a valid number"),
        ("method.name=rmml", "Did you mean 'rml'?"),
        ("backbone.variant=b9", "backbone.variant: Input should be"),
    ],
)
def test_unknown_keys_and_values_out_of_range(override, words, recipe, tmp_path, refusal):
    assert words in refusal("train", recipe, "--out", tmp_path / "out", *override.split())
    assert not (tmp_path / "out").exists()


def test_problems_of_the_recipe_file(tmp_path, refusal):
    path = tmp_path / "r.yaml"
    path.write_text("data: {name: folder\nmethod: [", encoding="utf-8")
    assert f"{path}: line 2: is not valid YAML" in refusal("train", path, "--out", tmp_path / "o")
    path.write_text(TINY.replace("batch_size: 2", "bacth_size: 2"), encoding="utf-8")
    line = refusal("train", path, "--out", tmp_path / "o")
    assert f"{path}: unknown key 'optim.bacth_size'. Did you mean 'batch_size'?" in line
    path.write_text(TINY.replace("batch_size: 2", "batch_size: 0"), encoding="utf-8")
    assert f"{path}: optim.batch_size: Input should be" in refusal(
        "train", path, "--out", tmp_path / "o"
    )


def train_on(recipe: Path, data: Path, tmp_path: Path) -> list[object]:
    return ["train", recipe, f"data.root={data}", "--out", tmp_path / "out"]


def test_image_without_row(recipe, data, tmp_path, refusal):
    write_rows(data, tag_rows(data)[:-1])
    assert "val_000001" in refusal("check", data)
    assert "1 image without row: val_000001" in refusal(*train_on(recipe, data, tmp_path))


def test_row_without_image(recipe, data, tmp_path, refusal):
    write_rows(data, [*tag_rows(data), "ghost.jpg,board"])
    assert "ghost" in refusal("check", data)
    assert "1 row without image: ghost" in refusal(*train_on(recipe, data, tmp_path))


def test_unknown_value_in_a_mask(run, data, tmp_path, refusal):
    path = data / "masks" / "val_000000.png"
    PILImage.fromarray(np.full((64, 64), 77, np.uint8)).save(path)
    line = refusal("check", data)
    assert str(path) in line
    assert "77" in line
    masks = tmp_path / "masks"
    shutil.rmtree(masks, ignore_errors=True)
    assert main(["predict", str(run), str(data / "images"), "--out", str(masks)]) == 0
    line = refusal("evaluate", masks, data / "masks")
    assert str(path) in line
    assert "77" in line


@pytest.mark.parametrize("kind", ["truncated", "not an image"])
def test_unreadable_image_is_skipped_or_rejected(
    kind, recipe, run, data, tmp_path, capsys, refusal
):
    path = data / "images" / "train_000001.png"
    if kind == "truncated":
        truncate(path)
    else:
        path.write_text("this is a text", encoding="utf-8")
    assert main(["check", str(data)]) == 0
    assert "unreadable images: 1" in capsys.readouterr().out
    assert str(path) in refusal("check", data, "--strict")
    train = [*train_on(recipe, data, tmp_path), "data.val_fraction=0"]
    assert "train_000001" in refusal(*train, "data.strict=true")
    line = ["predict", run, data / "images", "--out", tmp_path / "masks"]
    assert "train_000001" in refusal(*line, "--strict")
    assert main([str(word) for word in line]) == 0
    assert "1 unreadable images skipped" in capsys.readouterr().out
    assert main([str(word) for word in train]) == 0


def test_class_without_image(recipe, data, tmp_path, refusal):
    rows = [row.replace("house", "board") for row in tag_rows(data)]
    write_rows(data, [row.replace("board;board", "board") for row in rows])
    line = [*train_on(recipe, data, tmp_path), "data.classes=board,house"]
    assert "house" in refusal(*line)


def test_class_in_every_image_gives_a_warning(data, capsys):
    header, *rows = tag_rows(data)
    write_rows(data, [header, *(f"{row.rstrip(';')};sky" for row in rows)])
    shutil.rmtree(data / "masks")
    assert main(["check", str(data)]) == 0
    assert "warning: class 'sky': every image shows it" in capsys.readouterr().out


def test_no_images(recipe, tmp_path, refusal):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "contains no images" in refusal("check", empty)
    assert "contains no images" in refusal(*train_on(recipe, empty, tmp_path))


def test_two_images_with_one_name(recipe, run, data, tmp_path, refusal):
    image = data / "images" / "val_000001.png"
    PILImage.open(image).save(image.with_suffix(".jpg"))
    # The doubled name, and what follows from it: the row fits one image only.
    assert "differ only in the suffix" in refusal("check", data, problems=3)
    assert "differ only in the suffix" in refusal(*train_on(recipe, data, tmp_path), problems=3)
    assert "val_000001" in refusal("predict", run, data / "images", "--out", tmp_path / "m")


def test_weights_of_another_architecture_name_the_tensors(run, tmp_path, scenes, refusal):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    state, recipe = read_weights(run / "weights" / "best.safetensors")
    raw = recipe.model_dump(mode="json")
    raw["backbone"]["variant"] = "b1"
    save_weights(other / "weights" / "best.safetensors", state, parse_recipe(raw, "other"))
    line = refusal("predict", other, scenes / "images", "--out", tmp_path / "masks")
    assert "best.safetensors" in line
    assert "backbone." in line


def test_damaged_weights(run, tmp_path, scenes, refusal):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    truncate(other / "weights" / "best.safetensors")
    line = refusal("predict", other, scenes / "images", "--out", tmp_path / "masks")
    assert "best.safetensors: weights cannot be read" in line


def test_full_disk_keeps_the_last_checkpoint_and_the_run_resumes(
    recipe, tmp_path, monkeypatch, refusal
):
    out = tmp_path / "run"
    saved = checkpoint.save_file
    calls = []

    def full_at_the_second_step(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) > 2:  # step 1 wrote weights and state
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        saved(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint, "save_file", full_at_the_second_step)
    assert "No space left on device" in refusal("train", recipe, "--out", out)
    monkeypatch.undo()
    state, _ = read_weights(out / "weights" / "last.safetensors")
    assert state
    assert not list(out.rglob("*.part"))
    assert main(["train", "--resume", str(out)]) == 0
    assert json.loads((out / "log.jsonl").read_text("utf-8").splitlines()[-2])


def test_masks_cannot_be_written_to_a_file(run, scenes, tmp_path, refusal):
    (tmp_path / "taken").write_text("x", encoding="utf-8")
    line = refusal("predict", run, scenes / "images", "--out", tmp_path / "taken")
    assert "taken" in line
