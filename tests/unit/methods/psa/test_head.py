import torch

from tag2mask.methods.psa.head import PairFeatures

CHANNELS = (8, 12, 16, 20)


def maps(num=2):
    generator = torch.Generator().manual_seed(0)
    sides = (16, 8, 4, 4)
    return tuple(
        torch.randn(num, width, side, side + 1, generator=generator)
        for width, side in zip(CHANNELS, sides, strict=True)
    )


def test_features_have_448_channels_and_the_size_of_the_first_map():
    features = PairFeatures(CHANNELS[-3:])(maps()[-3:])
    assert features.shape == (2, 448, 8, 9)
    assert -1 <= features.min() < -0.5  # an ELU, which rounds to -1 for large inputs
