import pytest

from tag2mask.cli.words import sort_words
from tag2mask.config.recipe import Recipe
from tag2mask.errors import Tag2MaskError

OPTIONS = {"--out": 1, "--query": 2, "--strict": 0}


def sort(line: str) -> tuple[list[str], list[str]]:
    return sort_words(line.split(), OPTIONS, lambda plain: Recipe)


@pytest.mark.parametrize(
    ("line", "plain", "keys"),
    [
        ("R optim.lr=1 --out O", "R --out O", "optim.lr=1"),
        ("optim.lr=1 R predict.flip=no D", "R D", "optim.lr=1 predict.flip=no"),
        ("R --out a=b --query 1 2 run.seed=3", "R --out a=b --query 1 2", "run.seed=3"),
        ("R --out=a=b", "R --out=a=b", ""),
        ("R --strict x=1", "R --strict", "x=1"),
        ("R -- a=b.jpg --odd", "R -- a=b.jpg --odd", ""),
        ("R ./a=b.jpg -1", "R ./a=b.jpg -1", ""),
        ("R data.jpg run.v2", "R data.jpg run.v2", ""),
    ],
)
def test_keys_are_separated_from_other_words(line, plain, keys):
    assert sort(line) == (plain.split(), keys.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--optim.lr 1e-4", "unknown option '--optim.lr'. Did you mean optim.lr=1e-4?"),
        ("--optim.lr=1e-4", "unknown option '--optim.lr'. Did you mean optim.lr=1e-4?"),
        ("--lr 1e-4", "unknown option '--lr'. Did you mean optim.lr=1e-4?"),
        ("--crop-px 64", "unknown option '--crop-px'. Did you mean data.crop_px=64?"),
        (
            "--predict.scales 1 0.5",
            "unknown option '--predict.scales'. Did you mean predict.scales=1,",
        ),
        ("--data.strict --out O", "unknown option '--data.strict'. Did you mean data.strict=true?"),
        ("--predict.flip no", "unknown option '--predict.flip'. Did you mean predict.flip=no?"),
        ("--refiner none", "unknown option '--refiner'. Did you mean refiner=none?"),
        (
            "--stages.a.optim.lr 1",
            "unknown option '--stages.a.optim.lr'. Did you mean stages.a.optim",
        ),
        ("--optim.lrr 3", "unknown option '--optim.lrr'. Did you mean optim.lr=3?"),
        ("--ot O", "unknown option '--ot'. Did you mean '--out'?"),
        ("--zzz", "unknown option '--zzz'."),
        ("-o O", "unknown option '-o'."),
        ("optim.lr 1e-4", "'optim.lr' has no value. Did you mean optim.lr=1e-4?"),
        ("optim.lr = 1e-4", "'optim.lr' has no value. Did you mean optim.lr=1e-4?"),
        ("R optim.lr", "'optim.lr' has no value. Did you mean optim.lr=VALUE?"),
        ("R --query 1", "--query: needs 2 values"),
        ("R --out", "--out: needs a value"),
    ],
)
def test_wrong_word_is_one_line_with_the_right_notation(line, message):
    with pytest.raises(Tag2MaskError) as caught:
        sort(line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_all_wrong_words_are_reported_at_once():
    with pytest.raises(Tag2MaskError) as caught:
        sort("--lr 1 --ot O optim.steps 3 --out")
    assert len(str(caught.value).splitlines()) == 4


def test_existing_file_is_no_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "optim.lr").touch()
    assert sort("optim.lr") == (["optim.lr"], [])


def test_command_without_keys_takes_every_word_as_it_is():
    assert sort_words(["a=b", "optim.lr"], OPTIONS) == (["a=b", "optim.lr"], [])
    with pytest.raises(Tag2MaskError, match=r"^unknown option '--lr'\.$"):
        sort_words(["--lr", "1"], OPTIONS)
