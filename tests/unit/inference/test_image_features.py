import numpy as np
import torch

from tag2mask.data.base import Source
from tag2mask.inference.image_features import image_features
from tag2mask.inference.segmenter import Segmenter


def test_features_describe_the_image_and_leave_the_mode_alone(
    segmenter: Segmenter, source: Source
) -> None:
    segmenter.method.train()
    first, again, other = (image_features(segmenter, source[index].image) for index in (0, 0, 1))
    assert segmenter.method.backbone.training
    assert first.shape == (segmenter.method.backbone.channels[-1],)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_features_are_the_mean_of_the_last_map(segmenter: Segmenter) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 320, 3), dtype=np.uint8)
    segmenter.method.eval()
    backbone = segmenter.method.backbone
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        expected = backbone(backbone.normalize(tensor)).maps[-1][0].flatten(1).mean(dim=1)
    torch.testing.assert_close(image_features(segmenter, image), expected)
