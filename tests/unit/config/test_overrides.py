import pytest
from pydantic import BaseModel

from tag2mask.config import recipe as recipe_module
from tag2mask.config.overrides import (
    apply_overrides,
    is_override,
    parse_overrides,
    suggest_key,
)
from tag2mask.config.recipe import Recipe, recipe_type, stage_recipe
from tag2mask.config.schema import OptimConfig, PredictConfig
from tag2mask.errors import RecipeError

RAW = {
    "data": {"name": "voc", "root": "/d", "classes": ["cat", "dog"], "split": "mine"},
    "backbone": {"name": "hybrid", "weights": "some/mobilenet", "blocks": 1},
    "method": {"name": "cam"},
    "refiner": {"name": "par"},
    "optim": {"lr": 0.1},
}


def overridden(line: str, **changes: object) -> Recipe:
    return apply_overrides({**RAW, **changes}, parse_overrides(line.split()), "r.yaml")


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        ("optim.lr=1e-4", True),
        ("data.classes=", True),
        ("a=b=c", True),
        ("stages.2nd.run=train", True),
        ("optim.lr", False),
        ("./a=b.jpg", False),
        ("=1", False),
        ("--a=b", False),
        ("my image=1.jpg", False),
    ],
)
def test_override_is_a_dotted_key_and_an_equals_sign(word, is_one):
    assert is_override(word) is is_one


def test_values_stay_text_and_hyphens_in_keys_become_underscores():
    words = ["data.crop-px=64", "data.val-split=my-list", "data.root=a=b", "method=cam"]
    assert parse_overrides(words) == {
        "data.crop_px": "64",
        "data.val_split": "my-list",
        "data.root": "a=b",
        "method.name": "cam",
    }


def test_repeated_keys_and_other_words_are_reported_at_once():
    words = ["optim.lr=1", "optim.lr=2", "refiner=par", "refiner.name=pamr", "x"]
    with pytest.raises(RecipeError) as caught:
        parse_overrides(words)
    assert str(caught.value).splitlines() == [
        "optim.lr: is set twice, to '1' and to '2'",
        "refiner.name: is set twice, to 'par' and to 'pamr'",
        "'x' is not KEY=VALUE",
    ]


@pytest.mark.parametrize(
    ("line", "value"), [("optim.lr=1e-4", 1e-4), ("optim.lr=3", 3.0), ("optim.lr=0.5", 0.5)]
)
def test_number_is_read(line, value):
    assert overridden(line).optim.lr == value


@pytest.mark.parametrize("word", ["true", "True", "yes", "on", "1"])
def test_switch_turns_on(word):
    assert overridden(f"predict.crf={word}").predict.crf is True


@pytest.mark.parametrize("word", ["false", "False", "no", "off", "0"])
def test_switch_turns_off(word):
    assert overridden(f"predict.flip={word}").predict.flip is False


@pytest.mark.parametrize("word", ["off", "no", "1e-4", "true", "0"])
def test_text_stays_text(word):
    assert overridden(f"data.split={word}").data.split == word
    assert overridden(f"backbone.weights={word}").backbone.weights == word


def test_choice_stays_text_or_becomes_the_number_that_it_is():
    afa = overridden("method=afa method.affinity=off").method
    assert (afa.name, afa.affinity) == ("afa", "off")
    assert overridden("backbone=hub backbone.stride=8").backbone.stride == 8


@pytest.mark.parametrize(
    ("word", "value"),
    [("1.0,0.5", (1.0, 0.5)), ("1", (1.0,)), ("1.0", (1.0,)), ("none", None)],
)
def test_list_takes_items_with_commas(word, value):
    assert overridden(f"predict.scales={word}").predict.scales == value


def test_list_without_text_is_empty():
    assert overridden("data.classes=").data.classes == ()
    assert overridden("data.classes=cow").data.classes == ("cow",)
    overrides = parse_overrides(["data.classes=traffic light, cow"])
    assert apply_overrides(RAW, overrides, "r").data.classes == ("traffic light", "cow")


@pytest.mark.parametrize("word", ["none", "None", "null"])
def test_none_empties_optional_keys(word):
    assert overridden(f"predict.long_side_px={word}").predict.long_side_px is None
    assert overridden(f"backbone.weights={word}").backbone.weights is None
    assert overridden(f"data.root={word}").data.root is None


def test_none_is_text_for_required_keys():
    assert overridden("data.split=none").data.split == "none"
    with pytest.raises(RecipeError, match=r"^optim\.lr: Input should be a valid number"):
        overridden("optim.lr=none")


@pytest.mark.parametrize("line", ["refiner=none", "refiner.name=none", "refiner=null"])
def test_none_removes_the_refiner(line):
    assert overridden(line).refiner is None


def test_short_form_names_a_plugin():
    method = overridden("method=advcam method.pooling=gmp").method
    assert (method.name, method.pooling) == ("advcam", "gmp")
    assert overridden("data=folder").data.name == "folder"


def test_key_of_a_section_inside_a_section_is_set():
    method = overridden("method.pooling=gpp method.gpp.parts=positive").method
    assert (method.gpp.parts, method.gpp.gate_negative) == ("positive", True)


def test_refiner_can_be_added():
    recipe = overridden("refiner=par", refiner=None)
    assert recipe.refiner is not None
    assert recipe.refiner.name == "par"


def test_switched_plugin_keeps_shared_keys_and_drops_the_rest():
    recipe = overridden("data.name=folder")
    assert type(recipe.data).__name__ == "FolderConfig"
    assert recipe.data.classes == ("cat", "dog")
    assert str(recipe.data.root) == "/d"
    assert not hasattr(recipe.data, "split")


def test_switched_backbone_does_not_inherit_weights():
    assert overridden("backbone.name=mit").backbone.weights is None
    backbone = overridden("backbone.name=mit backbone.weights=w backbone.variant=b0").backbone
    assert backbone.model_dump()["variant"] == "b0"
    assert backbone.weights == "w"


def test_naming_the_same_plugin_changes_nothing():
    assert overridden("backbone.name=hybrid").model_dump() == overridden("").model_dump()


class Confident(BaseModel, extra="forbid"):
    name: str
    foreground_threshold: float = 0.3


class Nested(PredictConfig):
    confident: Confident | None = None
    """A section that may be absent."""


@pytest.fixture
def _nested(monkeypatch):
    """Give the section `predict` an optional section with a name."""
    build = recipe_module._recipe_type

    def with_nested(kinds):
        fields = {"predict": (Nested, Nested())}
        return recipe_module.create_model("Recipe", __base__=build(kinds), **fields)

    monkeypatch.setattr(recipe_module, "_recipe_type", with_nested)


@pytest.mark.usefixtures("_nested")
def test_optional_section_with_a_name_takes_the_short_form_and_none():
    recipe = overridden("predict.confident=irn predict.confident.foreground_threshold=0.4")
    assert recipe.predict.confident == Confident(name="irn", foreground_threshold=0.4)
    raw = {"confident": {"name": "irn"}}
    assert overridden("predict.confident=none", predict=raw).predict.confident is None
    with pytest.raises(RecipeError) as caught:
        overridden("predict.confident.foreground=0.4", predict=raw)
    assert str(caught.value) == (
        "unknown key 'predict.confident.foreground'. Did you mean 'foreground_threshold'? "
        "Known: foreground_threshold, name"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("optim.lr=abc", "optim.lr: Input should be a valid number"),
        ("optim.lr=-1", "optim.lr: Input should be greater than 0 (got '-1')"),
        ("optim.lr=", "optim.lr: Input should be a valid number"),
        ("optim.lr=1,2", "optim.lr: Input should be a valid number"),
        ("optim.stepz=1", "unknown key 'optim.stepz'. Did you mean 'steps'? Known: accumulate_st"),
        ("optimm.lr=1", "unknown key 'optimm.lr'. Did you mean 'optim'?"),
        ("lr=1e-4", "unknown key 'lr'. Did you mean optim.lr=1e-4?"),
        ("optim=3", "optim: is a section; set one of its keys, such as optim.optimizer=VALUE"),
        ("predict.scales=1.0,zero", "predict.scales.1: Input should be a valid number"),
        ("predict.scales=", "predict.scales: Tuple should have at least 1 item"),
        ("predict.flip=maybe", "predict.flip: Input should be a valid boolean"),
        ("predict.flip=", "predict.flip: Input should be a valid boolean"),
        ("run.precision=fp8", "run.precision: Input should be 'fp32' or 'bf16'"),
        ("data.crop_px=33", "data.crop_px: Input should be a multiple of 32 (got '33')"),
        ("method.name=rmml", "method.name: unknown method 'rmml'. Did you mean 'rml'? Known: advc"),
        ("backbone=hub backbone.stride=7", "backbone.stride: Input should be 8, 16 or 32"),
        ("refiner=none refiner.iterations=3", "refiner.iterations: has no effect, because"),
        ("method.gpp=positive", "method.gpp: Input should be a valid dictionary"),
    ],
)
def test_each_problem_is_one_line_that_names_the_key(line, message):
    with pytest.raises(RecipeError) as caught:
        overridden(line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_all_problems_are_reported_at_once_and_those_of_the_file_name_it():
    with pytest.raises(RecipeError) as caught:
        overridden("optim.lr=-1 predict.flip=maybe", run={"seed": -1})
    assert sorted(str(caught.value).splitlines()) == [
        "optim.lr: Input should be greater than 0 (got '-1')",
        "predict.flip: Input should be a valid boolean, unable to interpret input (got 'maybe')",
        "r.yaml: run.seed: Input should be greater than or equal to 0 (got -1)",
    ]


def test_raw_recipe_is_not_modified():
    raw = {**RAW, "optim": {"lr": 0.1}}
    apply_overrides(raw, {"optim.lr": "0.2", "predict.flip": "false"}, "r")
    assert raw["optim"] == {"lr": 0.1}
    assert "predict" not in raw


@pytest.mark.parametrize(
    ("name", "values", "hint"),
    [
        ("optim.lr", ["1e-4"], "optim.lr=1e-4"),
        ("optim.lrr", ["1"], "optim.lr=1"),
        ("lr", [], "optim.lr=VALUE"),
        ("scales", ["1", "0.5"], "predict.scales=1,0.5"),
        ("strict", [], "data.strict=true"),
        ("strict", ["RUN"], "data.strict=true"),
        ("flip", ["no"], "data.flip=no or predict.flip=no"),
        ("method", ["cam"], "method=cam"),
        ("parts", ["positive"], "method.gpp.parts=positive"),
        ("stages.seg.optim.lr", ["1"], "stages.seg.optim.lr=1"),
    ],
)
def test_mistyped_key_gets_the_line_to_type(name, values, hint):
    assert suggest_key(name, values, recipe_type(RAW)) == f" Did you mean {hint}?"


def test_name_far_from_every_key_gets_no_hint():
    assert suggest_key("zzz", ["1"], Recipe) == ""


STAGED = {
    **RAW,
    "stages": {
        "cam": {"run": "train"},
        "seed": {"run": "label", "from": "cam"},
        "seg": {
            "run": "train",
            "labels": "seed",
            "method": {"name": "supervised", "decoder_width": 8},
            "optim": {"lr": 0.2},
        },
    },
}


def staged(line: str, stage: str) -> Recipe:
    overrides = parse_overrides(line.split())
    return stage_recipe(apply_overrides(STAGED, overrides, "r.yaml"), stage)


def test_override_changes_one_stage():
    line = "stages.seg.optim.steps=7 stages.seed.predict.scales=1,0.5"
    assert staged(line, "seg").optim.steps == 7
    assert staged(line, "cam").optim.steps == OptimConfig().steps
    assert staged(line, "seed").predict.scales == (1.0, 0.5)
    assert staged(line, "seg").predict.scales is None


def test_override_of_the_recipe_applies_to_stages_that_do_not_set_the_key():
    assert staged("optim.lr=0.5 data.root=/e", "cam").optim.lr == 0.5
    seg = staged("optim.lr=0.5 data.root=/e", "seg")
    assert (seg.optim.lr, str(seg.data.root)) == (0.2, "/e")


def test_plugins_of_a_stage_say_how_its_values_are_read():
    method = staged("stages.seg.method.dilations=6,12", "seg").method
    assert method.model_dump()["dilations"] == (6, 12)
    assert staged("stages.seg.method.name=aeft stages.seg.method.pooling=gap", "seg")


def test_plugin_of_a_stage_is_switched_or_removed():
    seg = staged("stages.seg.method.name=cam", "seg")
    assert (seg.method.name, hasattr(seg.method, "decoder_width")) == ("cam", False)
    for line in ("stages.seed.refiner=none", "stages.seed.refiner.name=none"):
        assert staged(line, "seed").refiner is None
        assert staged(line, "cam").refiner is not None
    assert staged("stages.seed.refiner=pamr", "seed").refiner.name == "pamr"


def test_own_keys_of_a_stage_can_be_set():
    overrides = parse_overrides(["stages.seg.from=cam", "stages.seg.labels=none"])
    recipe = apply_overrides(STAGED, overrides, "r.yaml")
    assert (recipe.stages["seg"].from_, recipe.stages["seg"].labels) == (("cam",), None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "stages.sag.optim.steps=1",
            "stages.sag.optim.steps: unknown stage 'sag'. Did you mean 'seg'? Known: cam, se",
        ),
        (
            "stages.sag.method.name=cam",
            "stages.sag.method.name: unknown stage 'sag'. Did you mean 'seg'?",
        ),
        ("stages.seg.optim.lr=-1", "stages.seg.optim.lr: Input should be greater than 0 (got"),
        ("stages.seg.optim.lr=1,2", "stages.seg.optim.lr: Input should be a valid number"),
        (
            "stages.seg.optim.stepz=1",
            "unknown key 'stages.seg.optim.stepz'. Did you mean 'steps'?",
        ),
        ("stages.seg.optin.steps=1", "unknown key 'stages.seg.optin.steps'. Did you mean"),
        ("stages.seg.labels=sead", "stages.seg.labels: unknown stage 'sead'. Did you mean"),
        ("stages.seg.run=lable", "stages.seg.run: Input should be 'train', 'label' or"),
        ("stages.seg=3", "stages.seg: Input should be a valid dictionary"),
    ],
)
def test_each_problem_of_a_stage_is_one_line_that_names_the_key(line, message):
    with pytest.raises(RecipeError) as caught:
        staged(line, "cam")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_stage_key_of_a_recipe_without_stages_is_rejected():
    with pytest.raises(RecipeError, match="the recipe has no stages"):
        overridden("stages.seg.optim.steps=1")
