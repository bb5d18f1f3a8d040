import pytest
from pydantic import ValidationError

from tag2mask.config.recipe import Recipe, parse_recipe, stage_recipe
from tag2mask.config.stages import StageConfig, apply_stage
from tag2mask.errors import RecipeError

RAW = {
    "data": {"name": "voc", "root": "/data", "classes": ["cat", "dog"]},
    "backbone": {"name": "mit", "variant": "b0", "weights": "some/mit"},
    "method": {"name": "cam", "pooling": "gap"},
    "refiner": {"name": "par", "iterations": 7},
    "optim": {"steps": 10, "lr": 0.5},
}
STAGES = {
    "cam": {"run": "train"},
    "seed": {"run": "label", "from": "cam", "predict": {"background": 0.3}},
    "seg": {"run": "train", "from": ["cam"], "labels": "seed", "optim": {"steps": 20}},
    "score": {"run": "evaluate", "from": "seed"},
}


def read(stages, **base):
    return parse_recipe({**RAW, **base, "stages": stages}, "r.yaml")


def problems(stages):
    with pytest.raises(RecipeError) as caught:
        read(stages)
    return str(caught.value).splitlines()


def test_stages_keep_their_order_and_one_name_is_a_list_of_one():
    recipe = read(STAGES)
    assert list(recipe.stages) == ["cam", "seed", "seg", "score"]
    assert recipe.stages["seed"].from_ == ("cam",)
    assert recipe.stages["seg"].needs == ("cam", "seed")
    assert recipe.stages["cam"].needs == ()


def test_train_stage_changes_only_the_keys_that_it_sets():
    recipe = read(STAGES)
    stage = stage_recipe(recipe, "seg")
    assert (stage.optim.steps, stage.optim.lr) == (20, 0.5)
    assert stage.stages == {}
    same = {"data", "backbone", "method", "refiner", "predict", "run"}
    assert stage.model_dump(include=same) == recipe.model_dump(include=same)


def test_section_with_another_name_is_replaced_and_otherwise_merged():
    stages = {
        "a": {"run": "train", "backbone": {"name": "tiny", "width": 8}},
        "b": {"run": "train", "backbone": {"name": "mit", "variant": "b1"}, "refiner": None},
        "c": {"run": "train", "method": {"pooling": "gmp"}, "refiner": {"iterations": 3}},
    }
    a, b, c = (stage_recipe(read(stages), name) for name in stages)
    assert (a.backbone.name, a.backbone.width, a.backbone.weights) == ("tiny", 8, None)
    assert (b.backbone.variant, b.backbone.weights, b.refiner) == ("b1", "some/mit", None)
    assert (c.method.name, c.method.pooling, c.refiner.iterations) == ("cam", "gmp", 3)


def test_label_stage_starts_from_the_settings_of_its_train_stage():
    stages = {
        "cam": {"run": "train", "method": {"name": "rml"}, "predict": {"flip": False}},
        "seed": {"run": "label", "from": "cam", "predict": {"background": 0.3}},
        "score": {"run": "evaluate", "from": "seed"},
    }
    recipe = read(stages)
    for name in ("seed", "score"):
        stage = stage_recipe(recipe, name)
        assert stage.method.name == "rml"
        assert (stage.predict.flip, stage.predict.background) == (False, 0.3)


def test_recipe_is_not_modified_by_its_stages():
    base = {"optim": {"lr": 1}, "refiner": {"name": "par"}}
    stage = StageConfig(run="train", optim={"steps": 2}, refiner=None)
    assert apply_stage(base, stage, Recipe) == {"optim": {"lr": 1, "steps": 2}, "refiner": None}
    assert base == {"optim": {"lr": 1}, "refiner": {"name": "par"}}


def test_section_inside_a_section_is_merged_key_by_key():
    method = {"name": "cam", "pooling": "gpp", "gpp": {"parts": "positive"}}
    stages = {"cam": {"run": "train", "method": {"gpp": {"gate_negative": False}}}}
    gpp = stage_recipe(read(stages, method=method), "cam").method.gpp
    assert (gpp.parts, gpp.gate_negative) == ("positive", False)


def test_stage_may_add_a_refiner():
    recipe = read({"cam": {"run": "train", "refiner": {"name": "par"}}}, refiner=None)
    assert stage_recipe(recipe, "cam").refiner.name == "par"


def test_resolved_recipe_with_stages_reads_back_equal():
    recipe = read({**STAGES, "bare": {"run": "train", "refiner": None}})
    again = parse_recipe(recipe.plain(), "again")
    assert again.model_dump() == recipe.model_dump()
    assert stage_recipe(again, "bare").refiner is None
    assert stage_recipe(again, "seg").refiner.iterations == 7


def test_recipes_of_earlier_stages_read_back_with_their_own_plugins():
    recipe = read(STAGES)
    seg = stage_recipe(recipe, "seg")
    complete = seg.model_copy(
        update={"earlier": {"cam": stage_recipe(recipe, "cam")}, "inputs": {"cam": "1f"}}
    )
    again = parse_recipe(complete.plain(), "again")
    assert again.earlier["cam"].backbone.variant == "b0"
    assert again.model_dump() == complete.model_dump()
    assert "earlier" not in seg.plain()


CAM, SEED = STAGES["cam"], STAGES["seed"]


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        (
            {"cam": CAM, "seed": {"run": "label", "from": "can"}},
            "stages.seed.from: unknown stage 'can'. Did you mean 'cam'? Known: cam, seed",
        ),
        (
            {"cam": CAM, "seed": SEED, "seg": {"run": "train", "labels": "sead"}},
            "stages.seg.labels: unknown stage 'sead'. Did you mean 'seed'? Known: cam, seed, seg",
        ),
        (
            {"seed": SEED, "cam": CAM},
            "stages.seed.from: stage 'cam' must come before the stage that uses it",
        ),
        (
            {"cam": {"run": "train", "from": "cam"}},
            "stages.cam.from: stage 'cam' must come before the stage that uses it",
        ),
        (
            {"cam": CAM, "seed": {"run": "label"}},
            "stages.seed.from: is missing: the train stage to label with",
        ),
        (
            {"cam": CAM, "score": {"run": "evaluate"}},
            "stages.score.from: is missing: the label or train stage to evaluate with",
        ),
        (
            {"a": CAM, "b": CAM, "seed": {"run": "label", "from": ["a", "b"]}},
            "stages.seed.from: a label stage takes one stage, got a, b",
        ),
        (
            {"cam": CAM, "seg": {"run": "train", "labels": "cam"}},
            "stages.seg.labels: 'cam' is a train stage; a label stage is needed",
        ),
        (
            {"cam": CAM, "seed": SEED, "two": {"run": "label", "from": "seed"}},
            "stages.two.from: 'seed' is a label stage; a train stage is needed",
        ),
        (
            {"cam": CAM, "seed": {**SEED, "class_source": "tags"}},
            "stages.seed.class_source: only an evaluate stage has it",
        ),
        (
            {
                "cam": CAM,
                "seed": SEED,
                "score": {"run": "evaluate", "from": "seed", "thresholds": [0.2]},
            },
            "stages.score.thresholds: the masks of a label stage are finished; name a train stage",
        ),
        (
            {"cam": CAM, "score": {"run": "evaluate", "from": "cam", "thresholds_from": "val"}},
            "stages.score.thresholds_from: needs stages.score.thresholds to choose from",
        ),
        (
            {"cam": CAM, "score": {"run": "evaluate", "from": "cam", "thresholds": [2]}},
            "stages.score.thresholds.0: Input should be less than or equal to 1 (got 2)",
        ),
        (
            {"cam": CAM, "seed": {**SEED, "labels": "seed"}},
            "stages.seed.labels: only a train stage learns from labels",
        ),
        (
            {"cam": CAM, "seed": {**SEED, "optim": {"steps": 3}}},
            "stages.seed.optim: a label stage may only change data, backbone, method, refiner, pre",
        ),
        (
            {"cam": CAM, "seed": SEED, "s": {**STAGES["score"], "class_source": "classifier"}},
            "stages.s.class_source: the masks of a label stage are finished; name a train stage",
        ),
        (
            {"my cam": CAM},
            "stages: 'my cam' cannot be the name of a stage's folder; use a-z, 0-9 and _",
        ),
        ({"../cam": CAM}, "stages: '../cam' cannot be the name of a stage's folder"),
        ({"weights": CAM}, "stages: 'weights' cannot be the name of a stage's folder"),
        ({"cam": {"run": "tran"}}, "stages.cam.run: Input should be 'train', 'label' or"),
        ({"cam": {}}, "stages.cam.run: is missing"),
        ({"cam": {"run": "train", "form": "x"}}, "unknown key 'stages.cam.form'. Did you mean 'fr"),
        ({"cam": {"run": "train", "optim": 3}}, "stages.cam.optim: Input should be a valid dict"),
        (
            {"cam": {"run": "train", "optim": {"stepz": 3}}},
            "unknown key 'stages.cam.optim.stepz'. Did you mean 'steps'?",
        ),
        (
            {"cam": {"run": "train", "optim": {"lr": -1}}, "seed": SEED},
            "stages.cam.optim.lr: Input should be greater than 0 (got -1)",
        ),
        (
            {"cam": {"run": "train", "method": {"name": "cam", "ciml": 1}}},
            "unknown key 'stages.cam.method.ciml'.",
        ),
    ],
)
def test_each_problem_is_one_line_that_names_file_and_key(stages, line):
    (problem,) = problems(stages)
    assert problem.startswith(f"r.yaml: {line}")


def test_all_problems_are_reported_at_once():
    assert len(problems({"seed": {"run": "label"}, "Cam": CAM, "x": {**CAM, "from": "y"}})) == 3


def test_stage_is_frozen():
    stage = read(STAGES).stages["cam"]
    with pytest.raises(ValidationError, match="frozen"):
        stage.run = "label"
