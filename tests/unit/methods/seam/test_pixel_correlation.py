import torch

from tag2mask.methods.seam.pixel_correlation import PixelCorrelation


def module() -> PixelCorrelation:
    torch.manual_seed(0)
    return PixelCorrelation((8, 12))


def test_widths_are_those_of_the_paper() -> None:
    widths = {name: tuple(weight.shape[:2]) for name, weight in module().named_parameters()}
    assert widths == {
        "reduce.0.weight": (64, 8),
        "reduce.1.weight": (128, 12),
        "mix.weight": (192, 195),
    }


def test_the_mixing_layer_starts_from_xaviers_rule_with_gain_4() -> None:
    bound = 4 * (6 / (195 + 192)) ** 0.5
    assert 0.98 * bound < module().mix.weight.abs().max() <= bound


def test_result_has_the_size_of_the_cam_and_is_in_range() -> None:
    maps = [torch.rand(2, 8, 12, 10), torch.rand(2, 12, 6, 5)]
    score = module()(torch.rand(2, 3, 48, 40), maps, torch.randn(2, 3, 6, 5))
    assert score.shape == (2, 4, 6, 5)
    assert score.min() >= 0
    assert score.max() <= 1
    assert score.sum(dim=1).max() <= 1 + 1e-5  # background and one class per pixel


def test_maps_and_cam_are_detached_and_all_layers_have_gradients() -> None:
    inputs = [
        torch.rand(1, 8, 4, 4, requires_grad=True),
        torch.rand(1, 12, 4, 4, requires_grad=True),
    ]
    cam = torch.randn(1, 2, 4, 4, requires_grad=True)
    pcm = module()
    pcm(torch.rand(1, 3, 32, 32), inputs, cam).square().sum().backward()
    assert all(one.grad is None for one in (*inputs, cam))
    assert all(p.grad is not None and p.grad.any() for p in pcm.parameters())


def test_similar_pixels_share_their_cam() -> None:
    """The image has two different halves. The CAM of one pixel spreads over its half only."""
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1.0
    maps = [torch.zeros(1, depth, 4, 4) for depth in (8, 12)]
    for one in maps:
        one[:, ::2, :, 2:] = 1.0
        one[:, 1::2, :, :2] = 1.0
    cam = torch.zeros(1, 1, 4, 4)
    cam[..., 0, 0] = 1.0
    score = module()(image, maps, cam)[0, 1]
    assert score[:, 0].min() > 2 * score[:, 3].max()
