import pytest

from tag2mask.cli.target import is_folder, read_recipe
from tag2mask.errors import RecipeError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_distinguished_from_a_recipe(here):
    (here / "photos").mkdir()
    assert is_folder("photos")
    assert not is_folder("rml/own_images")
    assert not is_folder("mine.yaml")


def test_a_name_that_means_both_is_refused_with_both_readings(here):
    (here / "rml" / "own_images").mkdir(parents=True)
    with pytest.raises(RecipeError) as caught:
        is_folder("rml/own_images")
    assert "write ./rml/own_images for the folder" in str(caught.value)
    assert "--recipe rml/own_images for the recipe" in str(caught.value)
    assert is_folder("./rml/own_images")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rml/own_image", "Did you mean 'rml/own_images'?"),
        ("photso", "'photso' is neither a folder nor a recipe"),
        ("photos.zip", "unpack an archive first"),
        ("run", "--resume run resumes it, and 'train DATA --from run'"),
    ],
)
def test_other_words_are_refused(here, word, message):
    (here / "photos.zip").write_bytes(b"PK")
    (here / "run" / "weights").mkdir(parents=True)
    (here / "run" / "recipe.yaml").write_text("", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"^[^\n]*$") as caught:
        is_folder(word)
    assert message in str(caught.value)


def test_a_recipe_takes_the_weights_of_a_run():
    recipe = read_recipe("cam/synthetic_tiny", "RUN", {"optim.steps": "9"})
    assert (recipe.run.weights_from, recipe.optim.steps) == ("RUN", 9)
    assert read_recipe("cam/synthetic_tiny", None, {}).run.weights_from is None
