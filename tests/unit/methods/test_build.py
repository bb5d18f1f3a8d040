import torch
from tests.conformance.stand_ins import small_method, small_recipe

from tag2mask.methods.build import build_blank_method, build_method


def test_a_recipe_without_refiner_builds() -> None:
    recipe = small_recipe("cam").model_copy(update={"refiner": None})
    assert build_method(recipe).refiner is None


def test_networks_of_earlier_stages_reach_the_method_once(monkeypatch) -> None:
    given = []
    kind = type(small_method("cam"))
    monkeypatch.setattr(kind, "setup", lambda self, earlier: given.append(dict(earlier.methods)))
    recipe = small_recipe("cam")
    staged = recipe.model_copy(update={"earlier": {"first": recipe}})
    known = {"first": small_method("cam")}
    given.clear()
    build_method(staged, known)
    assert given == [known]
    given.clear()
    build_method(staged)
    assert [list(methods) for methods in given] == [[], ["first"]]
    assert isinstance(given[1]["first"], kind)
    given.clear()
    build_method(recipe)
    assert given == [{}]


def test_a_blank_method_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    method = build_blank_method(small_recipe("cam"))
    assert torch.equal(torch.get_rng_state(), before)
    assert method.backbone.weights_license == "none: trained from scratch"
