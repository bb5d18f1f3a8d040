import pytest
import torch

from tag2mask.methods.onestage.gated_decoder import GatedDecoder, GlobalCueInjection, StochasticGate


def test_gate_takes_each_value_from_one_path_with_probability_psi() -> None:
    torch.manual_seed(0)
    shallow, deep = torch.ones(4, 16, 20, 20), torch.zeros(4, 16, 20, 20)
    mixed = StochasticGate(0.3).train()(shallow, deep)
    assert set(mixed.unique().tolist()) == {0.0, 1.0}
    assert mixed.mean().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    "gate", [StochasticGate(0.3).eval(), StochasticGate(0.3, stochastic=False)]
)
def test_gate_averages_at_inference_and_if_not_stochastic(gate: StochasticGate) -> None:
    shallow, deep = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    torch.testing.assert_close(gate(shallow, deep), 0.3 * shallow + 0.7 * deep)


def test_gate_equals_the_average_over_many_draws() -> None:
    torch.manual_seed(0)
    shallow, deep = torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2)
    gate = StochasticGate(0.4).train()
    mean = gate(shallow.expand(20_000, -1, -1, -1), deep.expand(20_000, -1, -1, -1)).mean(dim=0)
    torch.testing.assert_close(mean, (0.4 * shallow + 0.6 * deep)[0], atol=0.02, rtol=0)


def test_injection_normalizes_shallow_features_and_uses_deep_maxima() -> None:
    torch.manual_seed(0)
    inject = GlobalCueInjection(4, 6).train()
    shallow, deep = torch.rand(2, 4, 8, 8), torch.rand(2, 6, 3, 3)
    injected = inject(shallow, deep)
    assert injected.shape == (2, 6, 8, 8)
    assert injected.min() >= 0
    torch.testing.assert_close(inject(5 * shallow + 2, deep), injected, atol=1e-2, rtol=0)
    rotated = deep.flip(2, 3)  # the position of the maximum does not matter
    torch.testing.assert_close(inject(shallow, rotated), injected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(inject(shallow, deep.square()), injected, atol=1e-3)


def test_injection_by_hand() -> None:
    """Scale 2 and shift 3 come from the larger of two deep values."""
    inject = GlobalCueInjection(1, 1).eval()  # initial statistics: normalization changes nothing
    with torch.no_grad():
        inject.cue[0].weight.copy_(torch.tensor([[[[2.0]]], [[[3.0]]]]))
        inject.reduce[0].weight.fill_(1.0)
        inject.mix[0].weight.fill_(1.0)
    deep = torch.tensor([[[[0.5, 1.0]]]])
    shallow = torch.tensor([[[[-2.0, 0.0, 1.0]]]])
    expected = torch.tensor([[[[0.0, 3.0, 6.0]]]])  # ReLU of x (1 + 2) + 3
    torch.testing.assert_close(inject(shallow, deep), expected, atol=1e-3, rtol=0)


def test_decoder_returns_the_shallow_size_and_all_parameters_have_gradients() -> None:
    torch.manual_seed(0)
    decoder = GatedDecoder(4, 6, 3, width=8, dilations=(1, 2))
    score = decoder(torch.rand(2, 4, 8, 10), torch.rand(2, 6, 2, 3))
    assert score.shape == (2, 3, 8, 10)
    score.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


@torch.no_grad()
def test_decoder_is_deterministic_at_inference() -> None:
    decoder = GatedDecoder(4, 6, 3, width=8).eval()
    inputs = torch.rand(1, 4, 8, 8), torch.rand(1, 6, 2, 2)
    torch.testing.assert_close(decoder(*inputs), decoder(*inputs), rtol=0, atol=0)
