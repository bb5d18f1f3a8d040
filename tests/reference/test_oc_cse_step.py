"""A complete step of OC-CSE equals the formulas of Specification 4.8, in value and in gradient."""

import pytest
import torch
from tests.reference.step_network import (
    SIDE,
    StepBackbone,
    close,
    doubled,
    multi_label,
    normalized,
    resize,
    step_batch,
)

from tag2mask.methods.base import StageOutputs
from tag2mask.methods.cam import CAM, CAMConfig
from tag2mask.methods.oc_cse.method import OCCSE, OCCSEConfig

TAGS = torch.tensor([[1.0, 0, 0], [0, 0, 1]])
"""One class each, so that the drawn class is certain."""
STEP, STEPS = 7, 10


def test_a_step_equals_its_formulas() -> None:
    torch.manual_seed(2)
    ordinary_backbone = StepBackbone(num_leaves=0, seed=9)
    ordinary = CAM(CAMConfig(), ordinary_backbone, 3, None, STEPS)
    backbone = StepBackbone()
    method = OCCSE(OCCSEConfig(), backbone, 3, None, STEPS)
    method.setup(StageOutputs({"cam": ordinary}))
    batch = step_batch(TAGS)
    losses = method.train().losses(batch, STEP)
    (leaf,) = backbone.leaves
    weight = method.head.classifier.weight

    features, classifier = leaf.detach().double().requires_grad_(), doubled(weight)
    cams = torch.einsum("fd,ndhw->nfhw", classifier[..., 0, 0], features)
    target = TAGS.argmax(dim=1).tolist()
    masks = [torch.relu(resize(cam[t], (SIDE, SIDE))) for cam, t in zip(cams, target, strict=True)]
    largest = torch.stack(masks).max()  # of the batch
    erased = torch.stack(
        [
            pixels * (1 - mask / (largest + 1e-5))
            for pixels, mask in zip(normalized(batch.image), masks, strict=True)
        ]
    )
    frozen = ordinary.head.classifier.weight.detach().double()[..., 0, 0]
    second = torch.einsum("fd,ndhw->nfhw", frozen, ordinary_backbone.map(3, erased))
    rest = TAGS.clone()
    for row, t in enumerate(target):
        rest[row, t] = 0
    epoch = 15 * STEP // STEPS
    expected = {
        "classification": multi_label(cams.mean(dim=(2, 3)), TAGS),
        "class_erasing": (0.3 + 0.05 * epoch) * multi_label(second.mean(dim=(2, 3)), rest),
    }
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5), name
        gradients = torch.autograd.grad(loss, [leaf, weight], retain_graph=True)
        references = torch.autograd.grad(expected[name], [features, classifier], retain_graph=True)
        for one, reference in zip(gradients, references, strict=True):
            close(one, reference)
