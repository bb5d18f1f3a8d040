import pytest

from tag2mask.config.overrides import apply_overrides, split_overrides, suggest_option
from tag2mask.config.recipe import Recipe, stage_recipe
from tag2mask.config.schema import OptimConfig
from tag2mask.errors import RecipeError, UnknownPluginError

RAW = {
    "data": {"name": "voc", "root": "/d", "classes": ["cat", "dog"], "split": "mine"},
    "backbone": {"name": "hybrid", "weights": "some/mobilenet", "blocks": 1},
    "method": {"name": "cam"},
    "refiner": {"name": "par"},
    "optim": {"lr": 0.1},
}


def overridden(line: str) -> Recipe:
    plain, overrides = split_overrides(line.split())
    assert plain == []
    return apply_overrides(RAW, overrides, "r.yaml")


def test_words_belong_to_the_option_before_them():
    plain, overrides = split_overrides(
        ["rml/x", "--out", "R", "--optim.lr", "1e-4", "--predict.scales", "1.0", "0.5"]
    )
    assert plain == ["rml/x", "--out", "R"]
    assert overrides == {"optim.lr": ["1e-4"], "predict.scales": ["1.0", "0.5"]}
    plain, overrides = split_overrides(["--a.b=c", "--resume", "Q", "--run.seed", "3"])
    assert plain == ["--resume", "Q"]
    assert overrides == {"a.b": ["c"], "run.seed": ["3"]}


def test_a_value_with_dots_and_a_negative_number_are_no_options():
    assert split_overrides(["--out", "run.v2", "--optim.lr", "-1"]) == (
        ["--out", "run.v2"],
        {"optim.lr": ["-1"]},
    )


def test_hyphens_read_as_underscores_in_keys_only():
    _, overrides = split_overrides(["--data.crop-px", "64", "--data.val-split=my-list"])
    assert overrides == {"data.crop_px": ["64"], "data.val_split": ["my-list"]}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("--optim.lr 1e-4", 1e-4),
        ("--optim.lr 3", 3.0),
        ("--optim.lr=0.5", 0.5),
    ],
)
def test_numbers(line, value):
    assert overridden(line).optim.lr == value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("--predict.flip false", False),
        ("--predict.flip False", False),
        ("--predict.flip true", True),
        ("--predict.flip", True),
        ("--predict.flip no", False),
    ],
)
def test_switches(line, value):
    assert overridden(line).predict.flip is value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("--predict.scales 1.0 0.5", (1.0, 0.5)),
        ("--predict.scales 1", (1.0,)),
    ],
)
def test_lists(line, value):
    assert overridden(line).predict.scales == value


def test_a_list_without_words_is_empty():
    assert overridden("--data.classes").data.classes == ()
    assert overridden("--data.classes cow").data.classes == ("cow",)


@pytest.mark.parametrize("word", ["none", "None", "null"])
def test_none_empties_what_may_be_empty(word):
    assert overridden(f"--predict.long_side_px {word}").predict.long_side_px is None
    assert overridden(f"--backbone.weights {word}").backbone.weights is None
    assert overridden(f"--data.root {word}").data.root is None


def test_none_is_ordinary_text_where_nothing_may_be_empty():
    with pytest.raises(RecipeError, match=r"--optim\.lr: Input should be a valid number"):
        overridden("--optim.lr none")


@pytest.mark.parametrize("line", ["--refiner none", "--refiner.name none", "--refiner=none"])
def test_refiner_can_be_removed(line):
    assert overridden(line).refiner is None


def test_method_can_be_named_in_short():
    assert (
        overridden("--method advcam --method.pooling gmp").method.model_dump().items()
        >= {
            "name": "advcam",
            "pooling": "gmp",
        }.items()
    )


def test_refiner_can_be_added():
    _, overrides = split_overrides(["--refiner", "par"])
    recipe = apply_overrides({**RAW, "refiner": None}, overrides, "r")
    assert recipe.refiner is not None
    assert recipe.refiner.name == "par"


def test_switched_plugin_keeps_shared_keys_and_drops_the_rest():
    recipe = overridden("--data.name folder")
    assert type(recipe.data).__name__ == "FolderConfig"
    assert recipe.data.classes == ("cat", "dog")
    assert str(recipe.data.root) == "/d"
    assert not hasattr(recipe.data, "split")


def test_switched_backbone_does_not_inherit_weights():
    assert overridden("--backbone.name mit").backbone.weights is None
    kept = overridden("--backbone.name mit --backbone.weights w --backbone.variant b0").backbone
    assert kept.model_dump()["variant"] == "b0"
    assert kept.weights == "w"


def test_naming_the_same_plugin_changes_nothing():
    assert overridden("--backbone.name hybrid").model_dump() == overridden("").model_dump()


def test_unknown_plugin_gets_a_hint():
    with pytest.raises(UnknownPluginError, match=r"unknown method 'rmml'\. Did you mean 'rml'"):
        overridden("--method.name rmml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--optim.lr abc", "--optim.lr: Input should be a valid number"),
        ("--optim.lr -1", "--optim.lr: Input should be greater than 0 (got '-1')"),
        ("--optim.lr", "--optim.lr: takes one value, got none"),
        ("--optim.lr 1 2", "--optim.lr: takes one value, got 2: 1 2"),
        ("--optim.stepz 1", "unknown option '--optim.stepz'. Did you mean 'steps'?"),
        ("--optimm.lr 1", "unknown option '--optimm.lr'. Did you mean 'optim'?"),
        ("--predict.scales 1.0 zero", "--predict.scales.1: Input should be a valid number"),
        ("--predict.flip maybe", "--predict.flip: Input should be a valid boolean"),
        ("--run.precision fp8", "--run.precision: Input should be 'fp32' or 'bf16'"),
        ("--data.crop_px 33", "--data.crop_px: Input should be a multiple of 32 (got '33')"),
        ("--predict.scales", "--predict.scales: "),
        ("--method.name", "--method.name: takes one value, got none"),
    ],
)
def test_each_problem_is_one_line_that_names_the_option(line, message):
    with pytest.raises(RecipeError) as caught:
        overridden(line)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_problems_of_the_file_still_name_the_file():
    _, overrides = split_overrides(["--optim.lr", "-1"])
    with pytest.raises(RecipeError) as caught:
        apply_overrides({**RAW, "run": {"seed": -1}}, overrides, "r.yaml")
    assert sorted(str(caught.value).splitlines()) == [
        "--optim.lr: Input should be greater than 0 (got '-1')",
        "r.yaml: run.seed: Input should be greater than or equal to 0 (got -1)",
    ]


def test_the_raw_recipe_is_not_changed():
    raw = {**RAW, "optim": {"lr": 0.1}}
    apply_overrides(raw, {"optim.lr": ["0.2"], "predict.flip": ["false"]}, "r")
    assert raw["optim"] == {"lr": 0.1}
    assert "predict" not in raw


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--lr", "unknown option '--lr'. Did you mean --optim.lr?"),
        ("--crop-px", "unknown option '--crop-px'. Did you mean --data.crop_px?"),
        ("--rsume", "unknown option '--rsume'. Did you mean 'resume'?"),
        ("--zzz", "unknown option '--zzz'."),
    ],
)
def test_option_without_its_section_is_explained(word, hint):
    assert suggest_option(word, Recipe, ["out", "resume"]) == hint


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
    _, overrides = split_overrides(line.split())
    return stage_recipe(apply_overrides(STAGED, overrides, "r.yaml"), stage)


def test_an_override_reaches_one_stage():
    line = "--stages.seg.optim.steps 7 --stages.seed.predict.scales 1 0.5"
    assert staged(line, "seg").optim.steps == 7
    assert staged(line, "cam").optim.steps == OptimConfig().steps
    assert staged(line, "seed").predict.scales == (1.0, 0.5)
    assert staged(line, "seg").predict.scales is None


def test_an_override_of_the_recipe_reaches_the_stages_that_do_not_set_the_key():
    assert staged("--optim.lr 0.5 --data.root /e", "cam").optim.lr == 0.5
    seg = staged("--optim.lr 0.5 --data.root /e", "seg")
    assert (seg.optim.lr, str(seg.data.root)) == (0.2, "/e")


def test_the_shape_of_a_stage_s_value_is_that_of_its_own_plugins():
    method = staged("--stages.seg.method.dilations 6 12", "seg").method
    assert method.model_dump()["dilations"] == (6, 12)
    assert staged("--stages.seg.method.name aeft --stages.seg.method.pooling gap", "seg")


def test_a_plugin_of_a_stage_is_switched_or_removed():
    seg = staged("--stages.seg.method.name cam", "seg")
    assert (seg.method.name, hasattr(seg.method, "decoder_width")) == ("cam", False)
    for line in ("--stages.seed.refiner none", "--stages.seed.refiner.name none"):
        assert staged(line, "seed").refiner is None
        assert staged(line, "cam").refiner is not None
    assert staged("--stages.seed.refiner pamr", "seed").refiner.name == "pamr"


def test_a_stage_s_own_keys_can_be_set():
    _, overrides = split_overrides(["--stages.seg.from", "cam", "--stages.seg.labels", "none"])
    recipe = apply_overrides(STAGED, overrides, "r.yaml")
    assert (recipe.stages["seg"].from_, recipe.stages["seg"].labels) == (("cam",), None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--stages.sag.optim.steps 1",
            "unknown option '--stages.sag.optim.steps'. Did you mean 'seg'? Known stages: cam, se",
        ),
        (
            "--stages.sag.method.name cam",
            "unknown option '--stages.sag.method.name'. Did you mean 'seg'?",
        ),
        ("--stages.seg.optim.lr -1", "--stages.seg.optim.lr: Input should be greater than 0 (got"),
        ("--stages.seg.optim.lr 1 2", "--stages.seg.optim.lr: takes one value, got 2"),
        (
            "--stages.seg.optim.stepz 1",
            "unknown option '--stages.seg.optim.stepz'. Did you mean 'steps'?",
        ),
        ("--stages.seg.optin.steps 1", "unknown option '--stages.seg.optin.steps'. Did you mean"),
        ("--stages.seg.labels sead", "--stages.seg.labels: unknown stage 'sead'. Did you mean"),
        ("--stages.seg.run lable", "--stages.seg.run: Input should be 'train', 'label' or"),
        ("--stages.seg 3", "--stages.seg: Input should be a valid dictionary"),
    ],
)
def test_each_problem_of_a_stage_is_one_line_that_names_the_option(line, message):
    with pytest.raises(RecipeError) as caught:
        staged(line, "cam")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_recipe_without_stages_says_so():
    with pytest.raises(RecipeError, match="The recipe has no stages"):
        overridden("--stages.seg.optim.steps 1")
