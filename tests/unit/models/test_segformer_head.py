import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.models.segformer_head import SegFormerHead

CHANNELS = (8, 12, 16, 20)


def feature_maps(sides: tuple[int, ...] = (12, 6, 3, 3)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, width, side, side + 2, generator=generator)
        for width, side in zip(CHANNELS, sides, strict=True)
    ]


def plain_decoder(head: SegFormerHead, maps: list[Tensor]) -> Tensor:
    """Project, resize, concatenate from f4 to f1, fuse, normalize, classify."""
    size = maps[0].shape[-2:]
    parts = []
    for layer, source in zip(head.project, maps, strict=True):
        part = layer(source.movedim(1, -1)).movedim(-1, 1)
        parts.append(F.interpolate(part, size=size, mode="bilinear", align_corners=False))
    return head.classifier(F.relu(head.norm(head.fuse(torch.cat(parts[::-1], dim=1)))))


def test_number_of_parameters_for_mit_b1_is_the_published_one() -> None:
    head = SegFormerHead((64, 128, 320, 512), num_classes=21)
    assert sum(parameter.numel() for parameter in head.parameters()) == 531_221


def test_decoder_equals_the_plain_decoder() -> None:
    head, maps = SegFormerHead(CHANNELS, num_classes=4, width=16, dropout=0), feature_maps()
    for mode in (True, False):
        head.train(mode)
        torch.testing.assert_close(head(maps), plain_decoder(head, maps), rtol=1e-4, atol=1e-5)


def test_gradients_equal_those_of_the_plain_decoder() -> None:
    head, maps = SegFormerHead(CHANNELS, num_classes=4, width=16, dropout=0), feature_maps()
    gradients = []
    for forward in (head, lambda maps: plain_decoder(head, maps)):
        head.zero_grad()
        forward(maps).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in head.parameters()])
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-2)


def test_dropout_is_active_only_in_training() -> None:
    head, maps = SegFormerHead(CHANNELS, num_classes=4, width=16, dropout=0.5), feature_maps()
    assert not torch.equal(head(maps), head(maps))
    head.eval()
    assert torch.equal(head(maps), head(maps))
    assert head(maps).shape == (2, 4, 12, 14)
