import torch

from tag2mask.config.recipe import parse_recipe
from tag2mask.data.base import Source
from tag2mask.inference.inspection import inspect_image
from tag2mask.inference.label_stages import LabelStages, compute_label_stages
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method


def stages_of(segmenter: Segmenter, source: Source, index: int) -> LabelStages:
    sample = source[index]
    image_maps = inspect_image(segmenter, sample)
    tagged = segmenter.select_classes(image_maps.output, sample.tags, "tags")
    return compute_label_stages(segmenter, sample.image, image_maps, tagged)


def decoder_segmenter(affinity: str) -> Segmenter:
    torch.manual_seed(0)
    raw = {
        "data": {"name": "folder", "classes": ["cat", "cow", "dog"]},
        "backbone": {"name": "tiny"},
        "method": {"name": "afa", "affinity": affinity, "decoder_width": 8},
        "refiner": {"name": "par"},
        "predict": {"long_side_px": 0},
    }
    recipe = parse_recipe(raw, "test")
    return Segmenter(build_method(recipe), recipe)


def test_method_without_decoder_labels_by_its_test_time_settings(
    segmenter: Segmenter, source: Source
) -> None:
    stages = stages_of(segmenter, source, 1)
    assert stages.label_source == "settings"
    assert stages.propagated is None
    expected = segmenter.label(source[1].image, ["cow"]).mask
    assert (stages.label.mask.numpy() == expected).all()


def test_method_with_decoder_labels_from_the_propagated_cam(source: Source) -> None:
    stages = stages_of(decoder_segmenter("propagate"), source, 1)
    assert stages.label_source == "propagated"
    assert stages.propagated is not None
    torch.testing.assert_close(stages.propagated.sum(dim=1), torch.ones(1, 6, 8))


def test_without_affinity_the_label_comes_from_the_refined_cam(source: Source) -> None:
    stages = stages_of(decoder_segmenter("off"), source, 1)
    assert stages.label_source == "refined"
    assert stages.propagated is None
    winners = stages.refined.argmax(dim=1)[0] * 2  # background or cow, whose mask value is 2
    assert torch.equal(stages.label.mask, winners.to(torch.uint8))


def test_image_without_tags_is_all_background(source: Source) -> None:
    stages = stages_of(decoder_segmenter("propagate"), source, 3)
    assert stages.propagated is None
    assert not stages.label.mask.any()
