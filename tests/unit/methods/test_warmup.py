"""When the other losses start: by a fixed point, or by the state of the classifier."""

import math

import pytest
import torch
from tests.conformance.no_waiting import NoWaiting
from tests.conformance.stand_ins import small_batch, small_method

from tag2mask.errors import RecipeError
from tag2mask.methods.warmup import GUESS_FRACTION, LAG, RATIO, ClassifierWarmup

TAGS = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
GUESSING = (math.log(2) + 0) / 2
"""Loss of guessing one class by its frequency of 1/2; the other is never there."""


def automatic(steps: int = 400) -> ClassifierWarmup:
    return ClassifierWarmup("auto", 0.1, steps, num_foreground=2)


def run(warmup: ClassifierWarmup, losses: list[float], start: int = 0) -> int:
    """Train until the warm-up is over; return the step."""
    for step in range(start, start + len(losses)):
        if warmup.is_over(step):
            return step
        warmup.observe(torch.tensor(losses[step - start]), TAGS, step)
    return start + len(losses)


def falling_at(step: int, steps: int = 400) -> list[float]:
    """Losses of guessing, and from one step on losses near 0."""
    return [GUESSING] * step + [0.01] * (steps - step)


@pytest.mark.parametrize(("length", "end"), [(0.1, 40), (25, 25), (0, 0)])
def test_a_fixed_warmup_ends_at_its_point_whatever_the_loss(length: float, end: int) -> None:
    warmup = ClassifierWarmup("fixed", length, 400, 2)
    assert run(warmup, falling_at(400)) == end
    assert warmup.delay == 0
    assert not warmup.state_dict()


def test_a_warmup_as_long_as_the_run_is_rejected() -> None:
    with pytest.raises(RecipeError, match=r"method\.warmup: 2,000 steps .* give a fraction"):
        ClassifierWarmup("fixed", 2_000, 600, 2)


def test_it_ends_when_the_average_loss_is_far_below_that_of_guessing() -> None:
    """The average of the last 50 steps falls below 0.45 of guessing after about 0.8 x 50 steps."""
    warmup = automatic()
    end = run(warmup, falling_at(80))
    steps = 1 + math.ceil(math.log(GUESS_FRACTION) / math.log(0.98))
    assert end == pytest.approx(80 + steps + LAG, abs=4)
    assert warmup.delay == end - 40


def test_it_never_ends_before_its_length_nor_after_half_of_the_run() -> None:
    assert run(automatic(), falling_at(0)) == 40
    assert run(automatic(), falling_at(400)) == 200


def test_the_logged_ratio_is_that_to_guessing_by_frequency() -> None:
    warmup = automatic()
    logged = warmup.observe(torch.tensor(0.3 * GUESSING), TAGS, 0)
    assert logged[RATIO].item() == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize("cut", [100, 119, 125, 130, 160])
def test_a_resumed_run_ends_its_warmup_at_the_same_step(cut: int) -> None:
    losses = falling_at(80)
    expected = run(automatic(), losses)
    first, second = automatic(), automatic()
    if run(first, losses[:cut]) < cut:
        assert cut > expected
    second.load_state_dict(first.state_dict())
    assert max(run(second, losses[cut:], start=cut), expected) == max(expected, cut)


@pytest.mark.parametrize("name", ["rml", "afa"])
def test_methods_start_their_losses_without_waiting_for_a_value(name: str) -> None:
    method = small_method(name, warmup=0.2, warmup_rule="auto").train()
    assert method.warmup.latest == 5
    with NoWaiting():
        early = [set(method.losses(small_batch(), step)) for step in range(5)]
        assert RATIO in method.monitor
        late = set(method.losses(small_batch(), 5))
    assert all(losses == {"classification"} for losses in early)
    assert len(late) > 1
    assert RATIO not in method.monitor


def test_propagated_labels_start_later_if_the_warmup_ends_later() -> None:
    afa = small_method("afa", warmup=0.2, warmup_rule="auto", propagate_from=0.4).train()
    passes: list[bool] = []
    forward = afa.backbone.forward

    def spy(image: torch.Tensor, *, attention: bool = False) -> object:
        passes.append(attention and not torch.is_grad_enabled())
        return forward(image, attention=attention)

    afa.backbone.forward = spy
    for step, propagates in [(5, False), (6, False), (7, True)]:  # 3 steps later than 2 and 4
        passes.clear()
        afa.losses(small_batch(), step)
        assert any(passes) == propagates
