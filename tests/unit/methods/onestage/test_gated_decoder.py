"""Global cues in shallow features, and a gate that is random only while training."""

import pytest
import torch

from tag2mask.methods.onestage.gated_decoder import GatedDecoder, GlobalCueInjection, StochasticGate


def test_the_gate_takes_each_value_from_one_path_in_the_right_share() -> None:
    torch.manual_seed(0)
    shallow, deep = torch.ones(4, 16, 20, 20), torch.zeros(4, 16, 20, 20)
    mixed = StochasticGate(0.3).train()(shallow, deep)
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    assert mixed.mean().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    "gate", [StochasticGate(0.3).eval(), StochasticGate(0.3, stochastic=False)]
)
def test_the_gate_mixes_at_inference_and_where_it_is_off(gate: StochasticGate) -> None:
    shallow, deep = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    torch.testing.assert_close(gate(shallow, deep), 0.3 * shallow + 0.7 * deep)


def test_the_share_of_the_gate_holds_on_average_over_many_draws() -> None:
    torch.manual_seed(0)
    shallow, deep = torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2)
    gate = StochasticGate(0.4).train()
    mean = gate(shallow.expand(20_000, -1, -1, -1), deep.expand(20_000, -1, -1, -1)).mean(dim=0)
    torch.testing.assert_close(mean, (0.4 * shallow + 0.6 * deep)[0], atol=0.02, rtol=0)


def test_injected_features_forget_their_own_level_and_take_the_strongest_deep_ones() -> None:
    torch.manual_seed(0)
    inject = GlobalCueInjection(4, 6).train()
    shallow, deep = torch.rand(2, 4, 8, 8), torch.rand(2, 6, 3, 3)
    found = inject(shallow, deep)
    assert found.shape == (2, 6, 8, 8)
    assert found.min() >= 0
    torch.testing.assert_close(inject(5 * shallow + 2, deep), found, atol=1e-2, rtol=0)
    turned = deep.flip(2, 3)  # where the cue stands does not matter
    torch.testing.assert_close(inject(shallow, turned), found, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(inject(shallow, deep.square()), found, atol=1e-3)


def test_the_injection_by_hand() -> None:
    """Scale 2 and shift 3 from the strongest of two deep cells, on features already standard."""
    inject = GlobalCueInjection(1, 1).eval()  # untouched statistics: normalizing changes nothing
    with torch.no_grad():
        inject.cue[0].weight.copy_(torch.tensor([[[[2.0]]], [[[3.0]]]]))
        inject.reduce[0].weight.fill_(1.0)
        inject.mix[0].weight.fill_(1.0)
    deep = torch.tensor([[[[0.5, 1.0]]]])
    shallow = torch.tensor([[[[-2.0, 0.0, 1.0]]]])
    expected = torch.tensor([[[[0.0, 3.0, 6.0]]]])  # ReLU of x (1 + 2) + 3
    torch.testing.assert_close(inject(shallow, deep), expected, atol=1e-3, rtol=0)


def test_the_decoder_scores_on_the_shallow_grid_and_learns_everywhere() -> None:
    torch.manual_seed(0)
    decoder = GatedDecoder(4, 6, 3, width=8, dilations=(1, 2))
    score = decoder(torch.rand(2, 4, 8, 10), torch.rand(2, 6, 2, 3))
    assert score.shape == (2, 3, 8, 10)
    score.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


@torch.no_grad()
def test_at_inference_nothing_is_drawn() -> None:
    decoder = GatedDecoder(4, 6, 3, width=8).eval()
    given = torch.rand(1, 4, 8, 8), torch.rand(1, 6, 2, 2)
    torch.testing.assert_close(decoder(*given), decoder(*given), rtol=0, atol=0)
