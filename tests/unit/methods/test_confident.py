"""Which methods make confident pseudo-labels, and with which published thresholds."""

import pytest
import torch

from tag2mask import plugins
from tag2mask.config.schema import ConfidentConfig, PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.inference.multi_scale import confident_labels_of


@pytest.mark.parametrize(("name", "thresholds"), [("irn", (0.30, 0.05)), ("psa", (4.0, 32.0))])
def test_the_defaults_are_the_papers(name: str, thresholds: tuple[float, float]) -> None:
    labels = confident_labels_of(PredictConfig(confident=ConfidentConfig(name=name)))
    assert labels is not None
    assert (labels.foreground_threshold, labels.background_threshold) == thresholds


def test_a_recipe_can_change_one_threshold_alone() -> None:
    config = PredictConfig(confident=ConfidentConfig(name="irn", background_threshold=0.1))
    labels = confident_labels_of(config)
    assert labels is not None
    assert (labels.foreground_threshold, labels.background_threshold) == (0.30, 0.1)


def test_other_methods_are_rejected_by_name() -> None:
    with pytest.raises(RecipeError, match=r"predict\.confident\.name: rml does not make"):
        confident_labels_of(PredictConfig(confident=ConfidentConfig(name="rml")))


def test_every_way_gives_probabilities_that_sum_to_one() -> None:
    cam = torch.rand(2, 3, 5, 7)
    for name in plugins.available("methods"):
        labels = plugins.load("methods", name).confident_labels
        if labels is not None:
            probs = labels.with_background(cam, (0.5, 2.0))
            assert probs.shape == (2, 2, 4, 5, 7)
            torch.testing.assert_close(probs.sum(dim=2), torch.ones(2, 2, 5, 7))
