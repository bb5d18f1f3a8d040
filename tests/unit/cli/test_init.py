import pytest

from tag2mask.cli.main import run
from tag2mask.config.recipe import load_recipe
from tag2mask.data.synthetic import SyntheticConfig, write_scenes
from tag2mask.errors import Tag2MaskError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(SyntheticConfig(count=20, val_count=1, size_px=64), root)
    return root


def test_a_recipe_is_written_and_the_next_command_named(scenes, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    run(["init", str(scenes), "--out", str(path), "optim.lr=1e-4"])
    assert load_recipe(str(path)).optim.lr == 1e-4
    assert path.read_text("utf-8").count("# Set on the command line.") == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next:    tag2mask train {path} --out {tmp_path / 'mine_run'}"


@pytest.mark.parametrize(
    ("name", "message"), [("there.yaml", "exists already"), ("mine.txt", "ends in .yaml")]
)
def test_nothing_is_overwritten(scenes, tmp_path, name, message):
    (tmp_path / "there.yaml").write_text("precious", "utf-8")
    with pytest.raises(Tag2MaskError, match=message):
        run(["init", str(scenes), "--out", str(tmp_path / name)])
    assert (tmp_path / "there.yaml").read_text("utf-8") == "precious"
    assert not (tmp_path / "mine.txt").exists()
