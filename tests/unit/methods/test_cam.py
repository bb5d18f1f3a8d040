import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method


@pytest.mark.parametrize("pooling", ["gap", "gmp", "gpp", "ngwp"])
def test_classification_loss_is_the_mean_over_classes_of_binary_cross_entropy(pooling: str) -> None:
    method, batch = small_method("cam", pooling=pooling).eval(), small_batch()
    logits = method.compute_cam(method.backbone.normalize(batch.image)).logits
    probs = logits.sigmoid()
    by_hand = -(batch.tags * probs.log() + (1 - batch.tags) * (1 - probs).log()).mean()
    torch.testing.assert_close(method.losses(batch, 0)["classification"], by_hand)
