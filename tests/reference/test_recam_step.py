"""A complete step of ReCAM equals the formulas of Specification 4.9, in value and in gradient."""

import pytest
import torch
from tests.reference.step_network import StepBackbone, close, doubled, multi_label, step_batch
from torch import Tensor

from tag2mask.methods.recam.method import ReCAM, ReCAMConfig

TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0]])


def reactivation(
    cam: list[Tensor], features: Tensor, weight: Tensor, tags: list[float], *, mean: bool
) -> Tensor:
    """Softmax cross-entropy of each present class's feature, for one image."""
    terms = []
    for c, plane in enumerate(cam):
        if tags[c]:
            share = torch.relu(plane) / (torch.relu(plane).max() + 1e-5)
            feature = torch.stack([(share * channel).mean() for channel in features])
            scores = torch.stack([(row * feature).sum() for row in weight])
            terms.append(torch.log(torch.exp(scores).sum()) - scores[c])
    return sum(terms) / (len(terms) if mean else 1)


@pytest.mark.parametrize("mean", [False, True])
def test_a_step_equals_its_formulas(mean: bool) -> None:
    torch.manual_seed(2)
    backbone = StepBackbone()
    config = ReCAMConfig(class_weight=0.7, class_loss="mean" if mean else "sum")
    method = ReCAM(config, backbone, 3, None, 10).train()
    parameters = [method.head.classifier.weight, method.reactivation.weight]
    losses = method.losses(step_batch(TAGS), 0)
    (leaf,) = backbone.leaves

    features = leaf.detach().double().requires_grad_()
    classifier, second = (doubled(weight) for weight in parameters)
    cams = torch.einsum("fd,ndhw->nfhw", classifier[..., 0, 0], features)
    softmax = [
        reactivation(list(cam), one, second[..., 0, 0], row, mean=mean)
        for cam, one, row in zip(cams, features, TAGS.tolist(), strict=True)
    ]
    expected = {
        "classification": multi_label(cams.mean(dim=(2, 3)), TAGS),
        "reactivation": 0.7 * sum(softmax) / len(softmax),
    }
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5), name
        gradients = torch.autograd.grad(
            loss, [leaf, *parameters], retain_graph=True, materialize_grads=True
        )
        references = torch.autograd.grad(
            expected[name],
            [features, classifier, second],
            retain_graph=True,
            materialize_grads=True,
        )
        close(gradients[0], references[0])
        close(gradients[1], references[1])
        if name == "reactivation":
            close(gradients[2], references[2])
        else:
            assert gradients[2].abs().max() == 0
