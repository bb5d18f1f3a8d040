import torch
from torch.nn import functional as F

from tag2mask.methods.rml.neck import ContextNeck

CHANNELS = (6, 10, 12, 20)


def pyramid(side: int = 32) -> list[torch.Tensor]:
    return [
        torch.randn(2, width, side // stride, side // stride)
        for width, stride in zip(CHANNELS, (4, 8, 16, 16), strict=True)
    ]


def test_context_equals_a_convolution_of_the_concatenated_maps() -> None:
    neck, maps = ContextNeck(CHANNELS, 5), pyramid()
    resized = [
        F.interpolate(source, size=(8, 8), mode="bilinear", align_corners=False) for source in maps
    ]
    mixed = torch.einsum("nchw,kc->nkhw", torch.cat(resized, dim=1), neck.conv.weight[:, :, 0, 0])
    mean, var = (
        mixed.mean(dim=(0, 2, 3), keepdim=True),
        mixed.var(dim=(0, 2, 3), keepdim=True, unbiased=False),
    )
    expected = ((mixed - mean) / (var + 1e-5).sqrt()).clamp(min=0)

    torch.testing.assert_close(neck(maps), expected, atol=1e-5, rtol=1e-5)


def test_only_the_last_map_is_used_without_fusion() -> None:
    neck, maps = ContextNeck(CHANNELS, 5, fusion=False), pyramid()
    other_maps = [torch.randn_like(source) for source in maps[:3]] + [maps[3]]
    out = neck(maps)
    assert out.shape == (2, 5, 8, 8)
    assert torch.equal(out, neck(other_maps))
    assert not torch.equal(out, neck([*maps[:3], torch.randn_like(maps[3])]))


def test_neck_has_no_gain_or_offset_and_every_map_gets_a_gradient() -> None:
    neck, maps = ContextNeck(CHANNELS, 15), [source.requires_grad_() for source in pyramid()]
    assert [name for name, _ in neck.named_parameters()] == ["conv.weight"]
    assert neck.conv.weight.numel() == sum(CHANNELS) * 15
    (neck(maps) * torch.randn(2, 15, 8, 8)).sum().backward()
    assert all(source.grad is not None and source.grad.abs().sum() > 0 for source in maps)


def test_neck_weights_change_after_an_optimizer_step() -> None:
    neck, maps = ContextNeck(CHANNELS, 4), pyramid()
    before = neck.conv.weight.detach().clone()
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.1)
    (neck(maps) * torch.randn(2, 4, 8, 8)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, neck.conv.weight)
