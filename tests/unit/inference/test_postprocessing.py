import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tag2mask.config.schema import ConfidentConfig, PredictConfig, RefinerConfig
from tag2mask.inference.postprocessing import (
    MaskOutput,
    PostProcessor,
    SelectedMaps,
    image_background,
    propagate_cam,
    select_maps,
)
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.refiners.base import Refiner
from tag2mask.refiners.par import PAR, ParConfig
from tag2mask.types import IGNORE

PLAIN = PredictConfig()
NO_PROBS = torch.zeros(1, 3)


class Recorder(Refiner):
    Config = RefinerConfig

    def __init__(self) -> None:
        super().__init__(RefinerConfig(name="recorder"))
        self.got: list[tuple[Tensor, Tensor]] = []

    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        self.got.append((image, probs))
        return probs


class FullSize(Recorder):
    at_full_size: ClassVar[bool] = True


class Swap(Recorder):
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        return probs.flip(2)  # background and class swapped


def black(height: int = 64, width: int = 96) -> Tensor:
    return torch.zeros(1, 3, height, width, dtype=torch.uint8)


def make_mask(
    image: Tensor,
    selected: SelectedMaps,
    config: PredictConfig = PLAIN,
    refiner: Refiner | None = None,
    crf: Refiner | None = None,
) -> MaskOutput:
    return PostProcessor(config, refiner, crf)(image, selected)


def of_classes(cam: Tensor, *class_indices: int) -> SelectedMaps:
    return select_maps(NetworkOutput(cam, NO_PROBS), class_indices, PLAIN.background_score)


def test_background_follows_the_maps_of_each_image_by_request() -> None:
    otsu = PLAIN.model_copy(update={"background_rule": "otsu"})
    for low, high in ((0.1, 0.3), (0.6, 0.9)):
        cam = torch.full((1, 3, 4, 8), low)
        cam[:, 2, :, :3] = high  # of the classes of the image, the largest map counts
        assert image_background(cam[:, [0, 2]], PLAIN) == 0.45
        background = image_background(cam[:, [0, 2]], otsu)
        assert low < background < high
        for propagate in (False, True):
            config = otsu.model_copy(update={"propagate": propagate})
            assert image_background(cam[:, [0, 2]], config) == background
        made = make_mask(
            black(4, 8), select_maps(NetworkOutput(cam, NO_PROBS), [0, 2], background), otsu
        )
        assert made.mask[:, :3].unique().tolist() == [3]
        assert made.mask[:, 3:].max() == 0
    assert image_background(cam[:, []], otsu) == 0.45  # no class


def test_without_refiner_the_cam_is_thresholded() -> None:
    cam = torch.tensor([[[[0.45, 0.5, 0.9]], [[1.0, 1.0, 1.0]], [[0.2, 0.6, 0.1]]]])
    made = make_mask(black(1, 3), of_classes(cam, 0, 2), PLAIN)
    # Class 1 (mask value 2) is not selected; 0.45 does not exceed the background score of 0.45.
    assert made.mask.tolist() == [[0, 3, 1]]
    assert made.mask.dtype == torch.uint8
    assert made.probs.shape == (1, 3, 1, 3)


def test_mask_has_the_images_size_whatever_the_network_saw() -> None:
    cam = torch.ones(1, 3, 32, 48)
    for refiner in (None, Recorder()):
        assert make_mask(black(64, 96), of_classes(cam, 0), PLAIN, refiner).mask.shape == (
            64,
            96,
        )


def test_no_class_gives_background_without_calling_a_refiner() -> None:
    refiner = Recorder()
    made = make_mask(black(), of_classes(torch.ones(1, 3, 64, 96)), PLAIN, refiner, refiner)
    assert made.mask.shape == (64, 96)
    assert made.mask.max() == 0
    assert refiner.got == []


def test_refiner_sees_half_size_and_softmax_over_background_and_classes() -> None:
    refiner = Recorder()
    cam = torch.rand(1, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    cam[0, 2] = 0.7
    make_mask(black(66, 94) + 255, of_classes(cam, 2), PLAIN, refiner)
    image, probs = refiner.got[0]
    assert image.shape == (1, 3, 16, 23)
    assert image.max() == 255
    # softmax([0.45, 0.7]) = (0.4378, 0.5622)
    assert probs.shape == (1, 1, 2, 16, 23)
    torch.testing.assert_close(probs[0, 0, 1], torch.full((16, 23), 0.5622), atol=1e-4, rtol=0)


def test_refined_mask_follows_the_refiner_and_has_class_values() -> None:
    cam = torch.zeros(1, 3, 64, 96)
    cam[:, 1, :, 48:] = 1.0
    mask = make_mask(black(), of_classes(cam, 1), PLAIN, Swap()).mask
    assert mask[:, :46].unique().tolist() == [2]
    assert mask[:, 50:].unique().tolist() == [0]


def test_a_refiner_for_the_full_size_sees_the_image_itself() -> None:
    refiner = FullSize()
    single_image = torch.randint(0, 256, (1, 3, 66, 94), dtype=torch.uint8)
    make_mask(single_image, of_classes(torch.full((1, 3, 33, 47), 0.7), 2), PLAIN, refiner)
    image, probs = refiner.got[0]
    assert image is single_image
    assert probs.shape == (1, 1, 2, 66, 94)
    torch.testing.assert_close(probs[0, 0, 1], torch.full((66, 94), 0.5622), atol=1e-4, rtol=0)


def test_the_largest_side_bounds_what_is_refined() -> None:
    refiner = FullSize()
    limited = PLAIN.model_copy(update={"max_side_px": 50})
    made = make_mask(black(60, 100), of_classes(torch.ones(1, 3, 30, 50), 0), limited, refiner)
    assert refiner.got[0][0].shape == (1, 3, 30, 50)
    assert refiner.got[0][0].dtype == torch.uint8
    assert made.mask.shape == (60, 100)


def test_crf_takes_what_the_refiner_leaves() -> None:
    refiner, crf = Swap(), FullSize()
    cam = torch.full((1, 3, 64, 96), 0.7)
    made = make_mask(black(), of_classes(cam, 1), PLAIN, refiner, crf)
    assert crf.got[0][1].shape == (1, 1, 2, 64, 96)
    torch.testing.assert_close(
        crf.got[0][1][0, 0, 0], torch.full((64, 96), 0.5622), atol=1e-4, rtol=0
    )
    assert made.mask.max() == 0
    assert make_mask(black(), of_classes(cam, 1), PLAIN, None, crf).mask.min() == 2


def test_propagation_carries_cam_along_the_affinity() -> None:
    cam = torch.zeros(1, 3, 64, 64)
    cam[:, 0, :, :48] = 1.0
    affinity = torch.ones(1, 16, 16)  # all positions belong together, none is out of reach
    made = make_mask(
        black(64, 64), select_maps(NetworkOutput(cam, NO_PROBS, affinity, 8), [0], 0.35), PLAIN
    )
    assert made.mask.unique().tolist() == [1]
    # softmax([0.35, 1]) = 0.657 on 3/4 of the positions, softmax([0.35, 0]) = 0.4134 on the rest
    torch.testing.assert_close(made.probs[0, 1], torch.full((64, 64), 0.5961), atol=1e-3, rtol=0)
    alone = select_maps(NetworkOutput(cam, NO_PROBS, torch.eye(16)[None], 8), [0], 0.35)
    assert make_mask(black(64, 64), alone, PLAIN).mask[:, 60:].max() == 0


@pytest.mark.parametrize(("propagates", "aligned"), [(False, False), (True, True)])
def test_only_propagated_maps_are_resized_for_the_refiner_with_aligned_corners(
    propagates: bool, aligned: bool
) -> None:
    refiner, cam = Recorder(), torch.rand(1, 3, 64, 64)
    affinity = torch.ones(1, 16, 16) if propagates else None
    selected_maps = select_maps(NetworkOutput(cam, NO_PROBS, affinity, 8), [0], 0.45)
    make_mask(black(64, 64), selected_maps, PLAIN, refiner)
    maps = torch.nn.functional.interpolate(
        selected_maps.maps, (32, 32), mode="bilinear", align_corners=aligned
    )
    expected = maps[:, 1] if propagates else (maps[:, 0] - 0.45).sigmoid()
    torch.testing.assert_close(refiner.got[0][1][:, 0, 1], expected)


def test_propagated_objects_shrink_as_background_scores_more() -> None:
    cam = torch.zeros(1, 3, 64, 64)
    cam[:, 0, :, :32] = 0.5
    output = NetworkOutput(cam, NO_PROBS, torch.eye(16)[None], 8)
    masks = [
        make_mask(black(64, 64), select_maps(output, [0], level), PLAIN).mask
        for level in (0.4, 0.6)
    ]
    assert masks[0][:, :16].min() == 1
    assert masks[1].max() == 0


def test_cam_propagates_no_further_than_the_radius() -> None:
    selected_cam = torch.tensor([0.9, 0, 0, 0, 0]).view(1, 1, 1, 5)
    moved = propagate_cam(selected_cam, torch.ones(1, 5, 5), (1, 5), 0.35, radius=1)
    far, near = 0.4134, 0.6341  # softmax([0.35, x]) for x = 0 and 0.9
    expected = [(near + far) / 2, (near + 2 * far) / 3, far, far, far]
    torch.testing.assert_close(moved[0, 1, 0], torch.tensor(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.sum(dim=1), torch.ones(1, 1, 5))


def test_affinity_of_another_grid_is_rejected() -> None:
    with pytest.raises(ValueError, match="15 positions"):
        select_maps(
            NetworkOutput(torch.ones(1, 3, 64, 96), NO_PROBS, torch.ones(1, 15, 15), 8), [0], 0.35
        )


def scores() -> NetworkOutput:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 4, 9, 13, generator=generator)
    return NetworkOutput(torch.zeros(1, 3, 36, 52), NO_PROBS, logits=logits)


def test_decoder_scores_are_resized_to_the_image_before_the_largest_wins() -> None:
    output = scores()
    assert output.logits is not None
    large = torch.nn.functional.interpolate(output.logits, (41, 60), mode="bilinear")
    made = make_mask(black(41, 60), select_maps(output, [0, 1, 2], 0.35), PLAIN)
    assert torch.equal(made.mask.long(), large[0].argmax(dim=0))
    tagged = make_mask(black(41, 60), select_maps(output, [0, 2], 0.35), PLAIN).mask
    assert set(tagged.unique().tolist()) == {0, 1, 3}
    torch.testing.assert_close(made.probs, output.logits.softmax(dim=1))


def test_crf_starts_from_the_softmax_of_the_resized_scores() -> None:
    output, crf = scores(), FullSize()
    assert output.logits is not None
    make_mask(black(41, 60), select_maps(output, [0, 1, 2], 0.35), PLAIN, None, crf)
    large = torch.nn.functional.interpolate(output.logits, (41, 60), mode="bilinear")
    torch.testing.assert_close(crf.got[0][1][:, 0], large.softmax(dim=1))


def test_improbable_pixels_are_ignored() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [2.0, 1.0, -1.0], [9.0, 9.0, 9.0]]).view(1, 3, 1, 3)
    output = NetworkOutput(torch.zeros(1, 2, 1, 3), NO_PROBS, logits=logits)
    # The second class is not selected: sigmoid(2) = 0.88, sigmoid(1) = 0.73.
    for least, expected in ((0.0, [1, 1, 0]), (0.7, [1, 1, 0]), (0.8, [1, 255, 255])):
        config = PLAIN.model_copy(update={"min_confidence": least})
        for crf in (None, FullSize()):
            made = make_mask(black(1, 3), select_maps(output, [0], 0.45), config, None, crf)
            assert made.mask.tolist() == [expected]
    config = PLAIN.model_copy(update={"min_confidence": 0.9})
    assert make_mask(black(1, 3), select_maps(output, [], 0.45), config).mask.max() == 0


def test_a_postprocessor_can_be_sent_to_another_process() -> None:
    postprocessor = PostProcessor(PLAIN, PAR(ParConfig(iterations=2)), None)
    selected_maps = of_classes(torch.rand(1, 3, 32, 48), 0, 1)
    image = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    there, job = pickle.loads(pickle.dumps((postprocessor, selected_maps)))
    assert torch.equal(there(image, job).mask, postprocessor(image, selected_maps).mask)


def confident_mask(
    cam: Tensor, *class_indices: int, refiner: Refiner | None = None, **how: Any
) -> MaskOutput:
    config = PLAIN.model_copy(update={"confident": ConfidentConfig(**how)})
    return make_mask(black(1, cam.shape[3]), of_classes(cam, *class_indices), config, refiner)


def test_confident_pixels_of_irn_equal_a_hand_count() -> None:
    # Between 0.05 and 0.30 a pixel is not confident; mask value 2 is not selected.
    cam = torch.tensor([[[[0.0, 0.05, 0.06, 0.30, 0.31]], [[0.9] * 5], [[0.0, 0, 0, 0.1, 0.8]]]])
    made = confident_mask(cam, 0, 2, name="irn")
    assert made.mask.tolist() == [[0, 0, IGNORE, IGNORE, 3]]
    assert made.mask.dtype == torch.uint8
    wider = confident_mask(cam, 0, name="irn", foreground_threshold=0.2, background_threshold=0.01)
    assert wider.mask.tolist() == [[0, IGNORE, IGNORE, 1, 1]]


def test_confident_pixels_of_psa_equal_a_hand_count() -> None:
    # x against (1 - x)^4 and (1 - x)^32: they are equal at x = 0.2755 and at x = 0.0776.
    cam = torch.tensor([0.27, 0.28, 0.08, 0.07]).view(1, 1, 1, 4)
    assert confident_mask(cam, 0, name="psa").mask.tolist() == [[IGNORE, 1, IGNORE, 0]]


def test_both_sets_go_through_the_refiner_at_once() -> None:
    refiner = FullSize()
    confident_mask(torch.rand(1, 3, 1, 9), 0, 2, refiner=refiner, name="irn")
    (image, probs), *more = refiner.got
    assert not more
    assert image.shape == (1, 3, 1, 9)
    assert probs.shape == (1, 2, 3, 1, 9)
    torch.testing.assert_close(probs.sum(dim=2), torch.ones(1, 2, 1, 9))
    cam = torch.tensor([0.9, 0.9, 0.0, 0.0]).view(1, 1, 1, 4)
    swapped = confident_mask(cam, 0, refiner=Swap(), name="irn")
    assert swapped.mask.tolist() == [[0, 0, 1, 1]]


def test_an_image_without_tags_is_confident_background() -> None:
    assert confident_mask(torch.rand(1, 3, 1, 4), name="psa").mask.max() == 0


def test_a_propagation_gives_cam_or_scores_with_background_first() -> None:
    cam = torch.rand(1, 3, 8, 12)

    def walk(selected_cam: Tensor) -> Tensor:
        assert torch.equal(selected_cam, cam[:, [0, 2]])
        return torch.tensor([0.2, 0.9]).view(1, 2, 1, 1)

    selected_maps = select_maps(NetworkOutput(cam, NO_PROBS, propagation=walk), [0, 2], 0.35)
    assert selected_maps.kind == "cam"
    assert make_mask(black(8, 12), selected_maps, PLAIN).mask.unique().tolist() == [3]
    scores = torch.tensor([0.3, 0.1, 0.2]).view(1, 3, 1, 1)
    selected_maps = select_maps(
        NetworkOutput(cam, NO_PROBS, propagation=lambda _: scores), [0, 2], 0.35
    )
    assert selected_maps.kind == "probs"
    made = make_mask(black(8, 12), selected_maps, PLAIN)
    assert made.mask.max() == 0
    assert made.probs[0, :, 0, 0].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 3])
    refiner = Recorder()
    make_mask(black(8, 12), selected_maps, PLAIN, refiner)
    assert refiner.got[0][1][0, 0, :, 0, 0].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 3])


TISSUE = PredictConfig(has_background=False, background_rule="otsu")


@pytest.mark.parametrize("refiner", [None, PAR(ParConfig(iterations=2))])
def test_without_background_every_pixel_gets_the_class_of_its_largest_map(refiner) -> None:
    cam = torch.zeros(1, 3, 64, 96)  # class 1 left, class 3 right, nothing in the middle
    cam[:, 0, :, :30], cam[:, 2, :, 60:], cam[:, 1] = 0.9, 0.3, 0.05
    background = image_background(cam[:, [0, 2]], TISSUE)
    selected = select_maps(NetworkOutput(cam, NO_PROBS), (0, 2), background)
    mask = make_mask(black(), selected, TISSUE, refiner).mask
    assert set(mask.unique().tolist()) <= {1, 3}
    assert (mask[:, :20] == 1).all()
    assert (mask[:, 76:] == 3).all()


def test_a_decoder_without_background_never_chooses_it() -> None:
    logits = torch.zeros(1, 4, 8, 12)
    logits[:, 0] = 9.0  # background wins everywhere
    logits[:, 1, :, :6], logits[:, 3, :, 6:] = 1.0, 2.0
    output = NetworkOutput(torch.zeros(1, 3, 64, 96), NO_PROBS, logits=logits)
    made = make_mask(black(), select_maps(output, (0, 2), TISSUE.background_score), TISSUE)
    assert (made.mask[:, :40] == 1).all()
    assert (made.mask[:, 56:] == 3).all()
    assert made.probs[:, 0].max() < 1e-40


def test_propagated_maps_lose_their_background() -> None:
    output = NetworkOutput(
        torch.zeros(1, 2, 32, 32), NO_PROBS, propagation=lambda cam: torch.ones(1, 3, 4, 4)
    )
    selected = select_maps(output, (0, 1), TISSUE.background_score)
    assert selected.maps[:, 0].max() == 0
    torch.testing.assert_close(selected.maps.sum(dim=1), torch.ones(1, 4, 4))


def test_an_image_without_tags_is_background_or_undecided() -> None:
    output = NetworkOutput(torch.zeros(1, 2, 64, 96), NO_PROBS)
    for config, value in ((PLAIN, 0), (TISSUE, IGNORE)):
        selected = select_maps(output, (), config.background_score)
        assert (make_mask(black(), selected, config).mask == value).all()
