"""Tables of `benchmarks/` are valid recipes, and their masks are the masks a user gets."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from tag2mask import plugins
from tag2mask.config.recipe import load_recipe, parse_recipe, read_yaml, recipe_path
from tag2mask.errors import RecipeError
from tag2mask.evaluation.confusion import ConfusionMatrix
from tag2mask.inference.postprocessing import PostProcessor, select_maps
from tag2mask.inference.segmenter import Segmenter, build_final_crf
from tag2mask.methods.build import build_method
from tag2mask.methods.protocol import MultiScaleCam, NetworkOutput

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs a checkout")


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in ("ablation", "seed_quality")}
    sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("path", sorted((FOLDER / "tables").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_row_of_every_table_is_a_recipe(scripts, path):
    ablation = scripts["ablation"]
    table = ablation.Table.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    raw = table.recipe if isinstance(table.recipe, dict) else read_yaml(recipe_path(table.recipe))
    assert len({row.name for row in table.rows}) == len(table.rows)
    for row in table.rows:
        recipe = ablation.row_recipe(raw, row.set, row.name)
        ablation.reading_method(row)
        if row.stage:
            until = ablation.stages_until(recipe, row.stage)
            assert until[-1] == row.stage
            assert {need for name in until for need in recipe.stages[name].needs} <= set(until)


REFINERS = [None, "par", "{name: dense_crf, unary: label, iterations: 2}"]


@pytest.mark.parametrize("propagated", [False, True])
@pytest.mark.parametrize("spec", REFINERS)
def test_masks_of_a_row_equal_the_masks_a_user_gets(scripts, spec, propagated):
    quality = scripts["seed_quality"]
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (1, 3, 64, 96), generator=generator, dtype=torch.uint8)
    cam = torch.rand(1, 3, 64, 96, generator=generator)
    affinity = torch.rand(1, 24, 24, generator=generator) if propagated else None
    output = NetworkOutput(cam, torch.zeros(1, 3), affinity, 8)
    refiner = None
    if spec is not None:
        settings = {"name": spec} if "{" not in spec else yaml.safe_load(spec)
        kind = plugins.load("refiners", settings["name"])
        refiner = kind(kind.Config(**settings))
    elif not propagated:
        pytest.skip("the CAM itself is scored by a threshold sweep")
    plan = quality.MaskPlan(propagated, refiner, (0.2, 0.5))
    masks = quality.make_masks(image, output, (0, 2), plan)
    predict = load_recipe("rml/synthetic_tiny").predict
    for threshold, mask in zip((0.2, 0.5), masks.numpy(), strict=True):
        config = predict.model_copy(update={"background": threshold})
        selected = select_maps(output, (0, 2), threshold)
        expected = PostProcessor(config, refiner, None)(image, selected).mask.numpy()
        assert (mask != expected).mean() < 2e-3, threshold  # ties of resized maps
        assert set(np.unique(mask)) <= {0, 1, 3}
    plan = quality.MaskPlan(propagated, refiner, (0.2,))
    assert not quality.make_masks(image, output, (), plan).any()


def test_pixels_of_all_masks_are_counted_at_once(scripts):
    random = np.random.default_rng(0)
    truth = random.choice([0, 1, 3, 255], (5, 7)).astype(np.uint8)
    masks = random.choice([0, 2, 3], (3, 5, 7)).astype(np.uint8)
    counts = scripts["seed_quality"].count_pairs(torch.from_numpy(masks), truth)
    for mask, pairs in zip(masks, counts, strict=True):
        assert pairs.sum() == truth.size
        for true in (0, 1, 3, 255):
            for predicted in (0, 2, 3):
                assert pairs[true, predicted] == ((truth == true) & (mask == predicted)).sum()


def test_the_row_with_the_final_crf_is_par_then_the_crf_of_afa_at_the_images_size(scripts):
    quality = scripts["seed_quality"]
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (1, 3, 48, 64), generator=generator, dtype=torch.uint8)
    output = NetworkOutput(torch.rand(1, 3, 48, 64, generator=generator), torch.zeros(1, 3))
    kind = plugins.load("refiners", "par")
    par = kind(kind.Config())
    plan = quality.mask_plans(output, {"par": par})["cam + par + final CRF"]
    settings = plan.crf.config.model_dump()
    assert [settings[key] for key in ("bilateral_sxy", "bilateral_srgb", "bilateral_weight")] == [
        64,
        5,
        4,
    ]
    masks = quality.make_masks(image, output, (0, 2), plan._replace(thresholds=(0.3,)))
    config = load_recipe("rml/voc_mitb1").predict.model_copy(update={"background": 0.3})
    selected = select_maps(output, (0, 2), 0.3)
    finished = PostProcessor(config, par, build_final_crf(MultiScaleCam()))
    expected = finished(image, selected).mask.numpy()
    assert (masks[0].numpy() != expected).mean() < 2e-3


def test_a_table_scores_the_decoder_without_tags_and_the_maps_with_them(scripts, monkeypatch):
    ablation = scripts["ablation"]
    recipe = load_recipe("afa/animals_hybrid")
    names = ("tags", "classifier")
    monkeypatch.setattr(ablation, "open_run", lambda *_: SimpleNamespace(recipe=recipe))
    monkeypatch.setattr(ablation, "build_refiners", lambda *_: {})
    monkeypatch.setattr(ablation, "score_list", lambda *_: {name: name for name in names})
    monkeypatch.setattr(
        ablation, "summarize", lambda chosen, _: {"cam": chosen, "decoder + final CRF": chosen}
    )
    monkeypatch.setattr(ablation.plugins, "load", lambda *_: lambda *_: None)
    row = ablation.Row(name="any", paper=None)
    images = ablation.Images(None, ("devval", "train"), None)
    scores = ablation.score(None, row, images)
    assert scores == {"cam": "tags", "decoder + final CRF": "classifier"}


def test_1stage_is_scored_by_the_masks_of_its_own_protocol(scripts):
    raw = {
        "data": {"name": "synthetic", "size_px": 64, "crop_px": 64, "count": 4, "val_count": 4},
        "backbone": {"name": "tiny", "width": 8},
        "method": {"name": "onestage", "width": 8},
        "refiner": {"name": "pamr"},
        "predict": {"protocol": "onestage", "class_threshold": 0.1},
    }
    recipe = parse_recipe(raw, "onestage")
    source = plugins.load("data", "synthetic")(recipe.data, "val")
    recipe = recipe.with_classes(source.class_names)
    torch.manual_seed(0)
    segmenter = Segmenter(build_method(recipe), recipe, "cpu")
    torch.nn.init.normal_(segmenter.method.decoder.classifier.weight, std=5.0)
    scores = scripts["seed_quality"].score_list(segmenter, source, {})
    for class_source in ("tags", "classifier"):
        matrix = ConfusionMatrix(len(source.class_names) + 1)
        for index in range(len(source)):
            sample = source[index]
            tags = sample.tags if class_source == "tags" else None
            matrix.update(sample.mask, segmenter.segment(sample.image, tags).mask)
        (own,) = scores[class_source].rows["pixel_shares"].values()
        assert (own.counts == matrix.counts).all()
        assert (own.counts.sum(axis=0) > 0).sum() > 1  # several classes
        assert "pixel_shares + final CRF" in scores[class_source].rows


MISTAKES = [
    (["advcan"], "Did you mean 'advcam'"),
    (["advcam", "stepz=3"], "stepz"),
    (["advcam", "steps"], "is not KEY=VALUE"),
    (["advcam", "steps=[3"], "is not valid YAML"),
    (["advcam", "iterations=many"], "method.iterations"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=lambda part: str(part))
def test_wrong_settings_of_a_labeling_method_are_rejected(scripts, words, message):
    with pytest.raises(RecipeError, match=message):
        scripts["seed_quality"].named_method(words)


def test_settings_of_a_labeling_method_are_parsed_as_yaml(scripts):
    config = scripts["seed_quality"].named_method(["advcam", "step_size=0.05"])
    assert (config.name, config.step_size) == ("advcam", 0.05)


def test_an_unreadable_table_is_rejected_with_its_path(scripts, tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        scripts["ablation"].read_table(tmp_path / "none.yaml")
    (tmp_path / "table.yaml").write_text(
        "{recipe: cam/synthetic_tiny, rows: [{paper: 1}]}", "utf-8"
    )
    with pytest.raises(RecipeError, match=r"table\.yaml: rows\.0\.name: is missing"):
        scripts["ablation"].read_table(tmp_path / "table.yaml")
