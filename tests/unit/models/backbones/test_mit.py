from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import SegformerConfig, SegformerForImageClassification

from tag2mask.errors import WeightsError
from tag2mask.methods.base import freeze_loaded_norms
from tag2mask.models.backbones.mit import STRIDES, VARIANTS, Attention, Block, MiT, MiTConfig

HF_BLOCK_EPS = 1e-6


def transformers_model(variant: str) -> SegformerForImageClassification:
    """Build the same architecture of `transformers` with random weights and our norm epsilon."""
    widths, depths = VARIANTS[variant]
    config = SegformerConfig(
        strides=list(STRIDES), hidden_sizes=list(widths), depths=list(depths), num_labels=3
    )
    torch.manual_seed(1)
    reference_model = SegformerForImageClassification(config).eval()
    for name, module in reference_model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            embedding = "patch_embeddings" in name or "sequence_reduction" in name
            module.eps = 1e-5 if embedding else HF_BLOCK_EPS
            torch.nn.init.normal_(module.weight, 1.0, 0.2)
        for parameter in module.parameters(recurse=False):
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, parameter.detach().mean().item(), 0.1)
    return reference_model


@pytest.fixture(scope="module")
def reference_model() -> SegformerForImageClassification:
    return transformers_model("b0")


@pytest.fixture(scope="module")
def hub_layout(
    reference_model: SegformerForImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    reference_model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("b0", 3_319_392),
        ("b1", 13_151_424),
        ("b2", 24_196_288),
        ("b3", 44_072_128),
        ("b4", 60_842_688),
        ("b5", 81_443_008),
    ],
)
def test_parameter_counts_are_the_published_ones(variant: str, count: int) -> None:
    with torch.device("meta"):
        network = MiT(MiTConfig(variant=variant))  # type: ignore[arg-type]
    assert sum(p.numel() for p in network.parameters()) == count


def test_features_equal_transformers_with_weights_of_either_layout(
    reference_model: SegformerForImageClassification, hub_layout: Path, tmp_path: Path
) -> None:
    from_hub = MiT(MiTConfig(variant="b0", weights=str(hub_layout))).eval()
    torch.save(
        {**from_hub.state_dict(), "head.weight": torch.zeros(1000, 256)}, tmp_path / "mit_b0.pth"
    )
    official = MiT(MiTConfig(variant="b0", weights=str(tmp_path / "mit_b0.pth"))).eval()
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = reference_model.segformer(image, output_hidden_states=True).hidden_states
        ours, again = from_hub(image), official(image)
    for reference, first, second in zip(expected, ours.maps, again.maps, strict=True):
        torch.testing.assert_close(first, reference, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(second, reference, atol=1e-5, rtol=1e-5)
    assert from_hub.weights_license == "unknown: see the source of the weights"
    assert official.weights_license == "NVIDIA Source Code License, non-commercial"


def test_gradients_equal_transformers(
    reference_model: SegformerForImageClassification, hub_layout: Path
) -> None:
    network = MiT(MiTConfig(variant="b0", weights=str(hub_layout))).eval()
    image, weight = torch.randn(1, 3, 64, 64), torch.randn(1, 256, 4, 4)
    reference_model.zero_grad()
    (reference_model.segformer(image).last_hidden_state * weight).sum().backward()
    (network(image, attention=True).maps[3] * weight).sum().backward()
    theirs = reference_model.segformer.stages[0].patch_embeddings.proj.weight.grad
    ours = network.get_parameter("patch_embed1.proj.weight").grad
    assert theirs is not None
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_all_parameters_are_loaded_and_norms_are_frozen(hub_layout: Path) -> None:
    network = MiT(MiTConfig(variant="b0", weights=str(hub_layout)))
    assert network.loaded == {name for name, _ in network.named_parameters()}
    freeze_loaded_norms(network)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    # 4 embeddings, 8 blocks of 2, 6 reductions, 4 stages; weight and bias each
    assert len(frozen) == 2 * (4 + 16 + 6 + 4)


def test_no_parameter_is_loaded_from_scratch() -> None:
    network = MiT(MiTConfig(variant="b0", weights="none"))
    assert network.loaded == frozenset()
    assert "scratch" in network.weights_license


def test_weights_of_another_variant_are_rejected(hub_layout: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights of another architecture: .* in the network"):
        MiT(MiTConfig(variant="b1", weights=str(hub_layout)))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 96)])
def test_map_sizes_are_rounded_up(height: int, width: int) -> None:
    network = MiT(MiTConfig(variant="b0")).eval()
    with torch.no_grad():
        features = network(torch.randn(1, 3, height, width), attention=True)
    for maps, stride, channels in zip(
        features.maps, network.strides, network.channels, strict=True
    ):
        assert maps.shape == (1, channels, -(-height // stride), -(-width // stride))
    tokens = -(-height // 16) * -(-width // 16)
    assert [tuple(logits.shape) for logits in features.logits()] == [(1, 8, tokens, tokens)] * 2
    assert sum(block.heads for block in features.attention) == network.attention_channels


def test_capturing_attention_does_not_change_the_maps() -> None:
    network = MiT(MiTConfig(variant="b0")).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain, captured = network(image), network(image, attention=True)
    assert plain.attention == ()
    torch.testing.assert_close(captured.maps[3], plain.maps[3], atol=1e-5, rtol=1e-5)


def test_only_the_last_two_blocks_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    network = MiT(MiTConfig(variant="b2")).eval()
    captured: list[str] = []
    names = {module: name for name, module in network.named_modules()}
    forward = Attention.forward

    def spy(self: Attention, tokens, grid, capture):  # type: ignore[no-untyped-def]
        if capture is not None:
            captured.append(names[self])
        return forward(self, tokens, grid, capture)

    monkeypatch.setattr(Attention, "forward", spy)
    with torch.no_grad():
        network(torch.randn(1, 3, 32, 32), attention=True)
    assert captured == ["block4.1.attn", "block4.2.attn"]


def test_captured_logits_are_raw_products_of_query_and_key() -> None:
    block = Attention(16, heads=2, reduction=1)
    tokens, capture = torch.randn(1, 6, 16), []
    block(tokens, (2, 3), capture)
    query, key = block.q(tokens)[0], block.kv(tokens)[0, :, :16]
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        expected = query[:, part] @ key[:, part].T
        torch.testing.assert_close(capture[0].logits()[0, head], expected, atol=1e-5, rtol=1e-5)


def test_gradient_flows_through_captured_logits() -> None:
    network = MiT(MiTConfig(variant="b0")).eval()
    features = network(torch.randn(1, 3, 32, 32), attention=True)
    sum(logits.square().sum() for logits in features.logits()).backward()
    grad = network.get_parameter("patch_embed1.proj.weight").grad
    assert grad is not None
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("capture", [None, []])
def test_skipped_branches_add_nothing_and_others_are_scaled(
    capture: list[torch.Tensor] | None,
) -> None:
    """A quarter of 4,000 images keeps its tokens; the others add 4/3 of the branch."""
    torch.manual_seed(0)
    block, tokens = Block(8, heads=1, drop_path=0.25), torch.randn(4000, 4, 8)
    with torch.no_grad():
        branch = block.attn(block.norm1(tokens), (2, 2), None)
        out = block._add_branch(
            tokens,
            lambda part: block.attn(block.norm1(part), (2, 2), capture),
            all_images=capture is not None,
        )
        dropped = (out == tokens).all(dim=(1, 2))
        expected = torch.where(dropped[:, None, None], tokens, tokens + branch * 4 / 3)
        evaluated = block.eval()._add_branch(tokens, lambda part: branch)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(evaluated, tokens + branch)
    assert capture is None or len(capture[0].query) == 4000


def test_branches_are_scaled_if_no_image_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block, tokens = Block(8, heads=1, drop_path=0.25), torch.randn(2, 4, 8)
    monkeypatch.setattr(torch, "rand", lambda count: torch.ones(count))
    out = block._add_branch(tokens, lambda part: torch.ones_like(part))
    torch.testing.assert_close(out, tokens + 4 / 3)


def test_every_parameter_has_a_gradient_if_all_images_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = Block(8, heads=1, drop_path=0.25)
    monkeypatch.setattr(torch, "rand", lambda count: torch.zeros(count))
    tokens = torch.randn(2, 4, 8)
    out = block(tokens, (2, 2))
    assert torch.equal(out, tokens)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    network = MiT(MiTConfig(variant="b0", drop_path=0.7))
    rates = [module.drop_path for module in network.modules() if isinstance(module, Block)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


def test_images_of_a_batch_are_independent() -> None:
    network = MiT(MiTConfig(variant="b0")).eval()
    image = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        both, alone = network(image).maps[3], network(image[1:]).maps[3]
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-5)
