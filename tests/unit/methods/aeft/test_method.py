from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.conformance.stand_ins import CLASSES, small_batch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tag2mask.config.recipe import parse_recipe
from tag2mask.functional.cam import upsample
from tag2mask.methods.aeft import method as aeft
from tag2mask.methods.aeft.losses import erasing_map
from tag2mask.methods.aeft.method import AEFT
from tag2mask.methods.build import build_method
from tag2mask.types import Batch

LATE = 9
TAGS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0]])


def make(**changes: Any) -> AEFT:
    torch.manual_seed(0)
    recipe = parse_recipe(
        {
            "data": {"name": "synthetic", "classes": CLASSES},
            "backbone": {"name": "tiny", "width": 8},
            "method": {"name": "aeft", "width": 0} | changes,
            "optim": {"steps": 10},
        },
        "recipe",
    )
    method = build_method(recipe)
    assert isinstance(method, AEFT)
    return method.eval()  # as in the paper, batch statistics are fixed


def make_batch(tags: Tensor = TAGS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (len(tags), 3, 4, 4), generator=generator).float()
    image = upsample(coarse, (64, 64)).to(torch.uint8)
    valid = torch.ones(len(tags), 64, 64, dtype=torch.bool)
    return Batch(image, tags, valid, [str(n) for n in range(len(tags))], max_tags=2)


def test_only_the_classification_is_trained_before_start() -> None:
    assert set(make(start=0.5).losses(make_batch(), 4)) == {"classification"}
    assert set(make(start=0.5).losses(make_batch(), 5)) == {
        "classification",
        "attraction",
        "repulsion",
    }


@pytest.mark.parametrize("name", ["attraction", "repulsion"])
def test_a_weight_of_zero_removes_the_loss(name: str) -> None:
    others = {"attraction", "repulsion"} - {name}
    assert set(make(**{name: 0}).losses(make_batch(), LATE)) == others | {"classification"}


def test_classification_learns_from_the_first_images_only() -> None:
    batch = make_batch()
    other = replace(batch, tags=torch.cat([batch.tags[:4], 1 - batch.tags[4:]]))
    for num_classified, same in ((4, True), (0, False)):
        method = make(num_classified=num_classified)
        losses = [method.losses(each, 0)["classification"].item() for each in (batch, other)]
        assert (losses[0] == losses[1]) is same
    image = make().backbone.normalize(batch.image)
    probs = make().compute_cam(image).logits.sigmoid()[:4]
    by_hand = -(batch.tags[:4] * probs.log() + (1 - batch.tags[:4]) * (1 - probs).log()).mean()
    torch.testing.assert_close(make(num_classified=4).losses(batch, 0)["classification"], by_hand)


@torch.no_grad()
def test_losses_equal_the_paper_step_by_step() -> None:
    method, batch = (
        make(min_hard_pairs=0),
        make_batch(TAGS[:2]),
    )  # each is the other's only negative
    image = method.backbone.normalize(batch.image)
    tags = batch.tags[:, :, None, None]

    def pyramid_of(single_image: Tensor) -> tuple[Tensor, Tensor]:
        cam = method.head.classifier(method.backbone(single_image).maps[-1])
        return cam, method.head.pyramid(cam)

    cam, attention = pyramid_of(image)
    large = torch.nn.functional.interpolate(cam.relu(), (64, 64), mode="bilinear")
    shifted = large - large.amin((2, 3), keepdim=True)
    strongest = (shifted / (shifted.amax((2, 3), keepdim=True) + 1e-5) * tags).amax(1, True)
    erased = image * torch.where(strongest < 0.6, strongest, 0)
    anchor = attention.relu().mean((2, 3)) * batch.tags
    positive = pyramid_of(erased)[1].relu().mean((2, 3)) * batch.tags
    attraction = (anchor - positive).abs().mean()

    small = cam.relu() - cam.relu().amin((2, 3), keepdim=True)
    low = small / (small.amax((2, 3), keepdim=True) + 1e-5) < 0.2
    scaled = attention / (attention.abs().amax((2, 3), keepdim=True) + 1e-5)
    low_anchor = (scaled * low).sum((2, 3)) / (low.sum((2, 3)) + 1e-5) * batch.tags
    negative = (scaled.mean((2, 3)) * batch.tags)[[1, 0]]
    distance = (low_anchor - negative).square().sum(1)
    hard = distance[distance < 0.5]
    repulsion = (0.5 - hard).mean() if len(hard) else torch.tensor(0.0)

    losses = method.losses(batch, LATE)
    torch.testing.assert_close(losses["attraction"], 0.2 * attraction)
    torch.testing.assert_close(losses["repulsion"], 0.15 * repulsion)
    assert len(hard)


def test_the_attraction_gradient_flows_through_the_erasing_map() -> None:
    """The anchor is detached here, so only the erasing map connects the loss with the CAM."""
    method, batch = make(), make_batch()
    image = method.backbone.normalize(batch.image)
    cam = method._cam(image).detach().requires_grad_()
    attention = method.head.pyramid(cam).detach()
    method._attraction(batch, image, cam, attention).backward()
    assert cam.grad is not None
    assert (cam.grad.abs().amax((2, 3)) > 0)[batch.tags.bool()].any()


@pytest.mark.parametrize("same", [torch.tensor([[1.0, 0, 0]] * 6), torch.zeros(6, 3)])
def test_a_batch_without_negatives_has_zero_repulsion_and_finite_gradients(same: Tensor) -> None:
    method = make(min_hard_pairs=0)
    losses = method.losses(make_batch(same), LATE)
    assert losses["repulsion"].item() == 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_few_hard_pairs_have_zero_repulsion() -> None:
    method = make(margin=100.0)  # every pair is hard
    assert method.losses(make_batch(TAGS[:4]), LATE)["repulsion"].item() == 0
    assert method.monitor["hard_pairs"].item() <= 4
    assert method.losses(make_batch(), LATE)["repulsion"].item() > 0
    assert method.monitor["hard_pairs"].item() == len(TAGS)


def test_the_mean_over_classes_divides_the_repulsion_and_keeps_its_pairs() -> None:
    summed, mean = make(min_hard_pairs=0), make(min_hard_pairs=0, repulsion_over="mean")
    losses = [method.losses(make_batch(TAGS[:2]), LATE)["repulsion"] for method in (summed, mean)]
    assert losses[0].item() > 0
    torch.testing.assert_close(losses[0] / 3, losses[1])
    assert torch.equal(summed.monitor["hard_pairs"], mean.monitor["hard_pairs"])


@pytest.mark.parametrize("pooling", ["gap", "gpp"])
@pytest.mark.parametrize("embedding", ["pyramid", "direct"])
def test_each_variant_trains_all_its_parameters(pooling: str, embedding: str) -> None:
    method = make(pooling=pooling, embedding=embedding, margin=100.0, width=16).train()
    sum(method.losses(make_batch(), LATE).values()).backward()
    untrained = {n for n, p in method.named_parameters() if p.grad is None}
    assert not {name for name in untrained if name.startswith(("head", "embedder"))}
    gated = any("gates" in name for name, _ in method.named_parameters())
    assert gated is (pooling == "gpp" or embedding == "pyramid")


@torch.no_grad()
def test_direct_embeddings_come_from_the_class_maps_of_anchor_and_positive() -> None:
    method, batch = make(embedding="direct"), make_batch()
    image = method.backbone.normalize(batch.image)
    cam = method.compute_cam(image).cam
    erased = image * erasing_map(cam, batch.tags, 2, (64, 64), 0.6)
    difference = cam.relu().mean((2, 3)) - method.compute_cam(erased).cam.relu().mean((2, 3))
    loss = method.losses(batch, LATE)["attraction"]
    torch.testing.assert_close(loss, 0.2 * (difference * batch.tags).abs().mean())


def test_gap_scores_classes_by_the_mean_of_the_map() -> None:
    output = make(pooling="gap").compute_cam(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(output.logits, output.cam.mean((2, 3)))


class NoWaiting(TorchDispatchMode):
    """Forbid operations that synchronize with the device: reading values, data-dependent sizes."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITS, name
        if name in ("index", "index_put_"):
            assert all(part is None or part.dtype != torch.bool for part in args[1]), name
        return func(*args, **(kwargs or {}))


def test_a_step_does_not_wait_for_the_device() -> None:
    method, batch = make(), make_batch()
    with NoWaiting():
        losses = method.losses(batch, LATE)
        torch.stack(list(losses.values())).sum().backward()


def test_the_erasing_map_gets_the_cam_with_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = []

    def spy(cam: Tensor, *rest: Any) -> Tensor:
        recorded.append(cam.requires_grad)
        return erasing_map(cam, *rest)

    monkeypatch.setattr(aeft, "erasing_map", spy)
    make().losses(make_batch(), LATE)
    assert recorded == [True]


def test_the_small_batch_has_all_three_losses() -> None:
    assert len(make().losses(small_batch(), LATE)) == 3


VARIANTS = (
    {},
    {"pooling": "gmp"},
    {"pooling": "ngwp"},
    {"pooling": "gpp"},
    {"pooling": "gpp", "gpp": {"parts": "positive"}},
    {"pooling": "gpp", "gpp": {"parts": "negative"}},
    {"pooling": "gpp", "gpp": {"gate_negative": False}},
    {"name": "aeft"},
    {"name": "aeft", "pooling": "gpp"},
    {"name": "aeft", "pooling": "gpp", "embedding": "direct"},
)
"""The rows of AEFT's ablations."""


def test_every_row_of_the_ablations_has_different_losses() -> None:
    totals = []
    for changes in VARIANTS:
        recipe = parse_recipe(
            {
                "data": {"name": "synthetic", "classes": CLASSES},
                "backbone": {"name": "tiny", "width": 8},
                "method": {"name": "cam", "pooling": "gap"} | changes,
                "optim": {"steps": 10},
            },
            "variant",
        )
        torch.manual_seed(0)
        losses = build_method(recipe).eval().losses(make_batch(), LATE)
        totals.append(round(sum(loss.item() for loss in losses.values()), 6))
    assert len(set(totals)) == len(VARIANTS)
