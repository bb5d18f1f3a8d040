"""Time the backbones against plain references.

mit: forward and backward of MiT-B1 (batch 2, 320 px, fp32) against SegformerModel of transformers
with the same strides, without and with captured attention. hybrid: forward and backward of the
MobileNetV1 part (batch 8, 256 px) against its modules run one by one. efficientnet_lite: the same
in bf16, with `hybrid` beside it. precision: forward without gradients in bf16 against fp32.

Wall time is the time a user waits; processor time hardly changes if other work shares the machine.
Ratios are medians over rounds; each round runs every job once.

Run: python benchmarks/backbone.py [--threads 2] [--repeats 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerModel

from row import Row, save
from tag2mask.methods.base import freeze_loaded_norms
from tag2mask.models.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from tag2mask.models.backbones.hybrid import Hybrid, HybridConfig
from tag2mask.models.backbones.mit import STRIDES, VARIANTS, MiT, MiTConfig
from tag2mask.models.conv_norm import same_padding

Job = Callable[[], None]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def compare(jobs: Mapping[str, Job], repeats: int) -> dict[str, dict[str, float]]:
    """Run all jobs in turn; return milliseconds and the ratio to the first job, per clock.

    Args:
        jobs: The first is the reference.
        repeats: Rounds that count; one more warms up.
    """
    times: dict[str, dict[str, list[float]]] = {
        name: {clock: [] for clock in CLOCKS} for name in jobs
    }
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            start = {clock: read() for clock, read in CLOCKS.items()}
            job()
            for clock, read in CLOCKS.items():
                times[name][clock].append(read() - start[clock])
    reference = times[next(iter(jobs))]
    table = {}
    for name, clocks in times.items():
        row = {}
        for clock, values in clocks.items():
            pairs = zip(values[1:], reference[clock][1:], strict=True)
            row[f"{clock}_ms"] = round(1e3 * statistics.median(values[1:]), 1)
            row[f"{clock}_ratio"] = round(statistics.median(own / ref for own, ref in pairs), 3)
        table[name] = row
    return table


def backward_of(network: nn.Module, output: Callable[[], Tensor]) -> Job:
    """Return a job with forward, weighted sum and backward."""
    weight = torch.randn_like(output())

    def job() -> None:
        network.zero_grad()
        (output() * weight).sum().backward()

    return job


def mit_jobs() -> dict[str, Job]:
    """Return jobs for MiT-B1 and the same network of `transformers`, in training mode."""
    widths, depths = VARIANTS["b1"]
    reference = SegformerModel(
        SegformerConfig(strides=list(STRIDES), hidden_sizes=list(widths), depths=list(depths))
    ).train()
    network = MiT(MiTConfig(variant="b1")).train()
    image = torch.randn(2, 3, 320, 320)

    def with_attention() -> Tensor:
        features = network(image, attention=True)
        return features.maps[3] + sum(logits.mean() for logits in features.logits())

    return {
        "transformers": backward_of(reference, lambda: reference(image).last_hidden_state),
        "mit": backward_of(network, lambda: network(image).maps[3]),
        "mit with attention": backward_of(network, with_attention),
    }


def module_by_module(network: Hybrid, image: Tensor) -> Tensor:
    """Run MobileNetV1 without fused layers: pad, convolve, normalize, activate."""
    out = image
    for layer in (network.cnn.conv_stem, *network.cnn.layer):
        out, (vertical, horizontal) = same_padding(out, layer.convolution)
        out = F.pad(out, (horizontal, horizontal, vertical, vertical))
        out = layer.activation(layer.normalization(layer.convolution(out)))
    return out


Network = TypeVar("Network", Hybrid, EfficientNetLite)


def frozen(network: Network) -> Network:
    """Freeze the normalization of an untrained network as with loaded weights.

    Weights are scaled so that activations do not vanish: arithmetic on vanishing numbers is slow.
    """
    for module in network.cnn.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    network.loaded = frozenset(f"cnn.{name}" for name, _ in network.cnn.named_parameters())
    freeze_loaded_norms(network)
    return network.train()


def build_frozen(blocks: int) -> Hybrid:
    """Build `hybrid` as it trains with loaded weights."""
    return frozen(Hybrid(HybridConfig(blocks=blocks)))


def hybrid_jobs() -> dict[str, Job]:
    """Return jobs with folded norms and channels-last maps, with one of these, and with neither."""
    plain, branched = build_frozen(0), build_frozen(2)
    image = torch.randn(8, 3, 256, 256)
    channels_last = image.contiguous(memory_format=torch.channels_last)
    return {
        "module by module": backward_of(plain, lambda: module_by_module(plain, image)),
        "module by module, channels last": backward_of(
            plain, lambda: module_by_module(plain, channels_last)
        ),
        "hybrid without branch": backward_of(plain, lambda: plain(image).maps[3]),
        "hybrid": backward_of(branched, lambda: branched(image).maps[3]),
    }


def lite_plainly(network: EfficientNetLite, image: Tensor) -> Tensor:
    """Run EfficientNet-Lite without fused layers: pad, convolve, normalize, activate."""

    def layer(maps: Tensor, convolution: nn.Conv2d, norm: nn.Module) -> Tensor:
        maps, (vertical, horizontal) = same_padding(maps, convolution)
        maps = F.pad(maps, (horizontal, horizontal, vertical, vertical))
        return norm(convolution(maps))

    cnn = network.cnn
    out = F.relu6(layer(image, cnn._conv_stem, cnn._bn0))
    for block in cnn._blocks:
        inner = F.relu6(layer(out, block._expand_conv, block._bn0)) if block.expands else out
        inner = F.relu6(layer(inner, block._depthwise_conv, block._bn1))
        inner = layer(inner, block._project_conv, block._bn2)
        out = out + inner if block.shortcut else inner
    return F.relu6(layer(out, cnn._conv_head, cnn._bn1))


def lite_jobs() -> dict[str, Job]:
    """Return jobs for EfficientNet-Lite0 in bf16, and `hybrid` in bf16 to compare with."""
    plain = frozen(EfficientNetLite(EfficientNetLiteConfig(blocks=0)))
    branched = frozen(EfficientNetLite(EfficientNetLiteConfig()))
    narrow = frozen(EfficientNetLite(EfficientNetLiteConfig(head=False)))
    hybrid = build_frozen(2)
    image = torch.randn(8, 3, 256, 256).contiguous(memory_format=torch.channels_last)

    def low(network: nn.Module, output: Callable[[], Tensor]) -> Job:
        def run() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return output()

        return backward_of(network, run)

    return {
        "lite0 module by module": low(plain, lambda: lite_plainly(plain, image)),
        "lite0 without branch": low(plain, lambda: plain(image).maps[3]),
        "lite0": low(branched, lambda: branched(image).maps[3]),
        "lite0 without head": low(narrow, lambda: narrow(image).maps[3]),
        "hybrid bf16": low(hybrid, lambda: hybrid(image).maps[3]),
    }


def precision_jobs() -> dict[str, Job]:
    """Return jobs with forward without gradients in both precisions, as for pseudo-labels."""
    networks = {"hybrid": build_frozen(2).eval(), "mit b1": MiT(MiTConfig(variant="b1")).eval()}
    images = {"hybrid": torch.randn(8, 3, 256, 256), "mit b1": torch.randn(2, 3, 320, 320)}

    def forward(name: str, bf16: bool) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            networks[name](images[name])

    return {
        f"{name} {'bf16' if bf16 else 'fp32'}": lambda name=name, bf16=bf16: forward(name, bf16)
        for name in networks
        for bf16 in (False, True)
    }


def comparisons(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """Compare wall-clock times with the plain jobs for `make bench`."""
    pairs = [
        ("mit", "mit", "transformers"),
        ("hybrid", "hybrid without branch", "module by module"),
        ("efficientnet_lite", "lite0 without branch", "lite0 module by module"),
        ("precision", "hybrid bf16", "hybrid fp32"),
        ("precision", "mit b1 bf16", "mit b1 fp32"),
    ]
    return [
        Row(
            f"{part}: {ours}",
            results[part][ours]["wall_ms"],
            reference,
            results[part][reference]["wall_ms"],
        )
        for part, ours, reference in pairs
    ]


def main() -> None:
    """Print one table per part and write all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    results = {}
    parts = {
        "mit": mit_jobs,
        "hybrid": hybrid_jobs,
        "efficientnet_lite": lite_jobs,
        "precision": precision_jobs,
    }
    for part, jobs in parts.items():
        results[part] = compare(jobs(), args.repeats)
        print(f"{part:34}{'wall ms':>10}{'ratio':>8}{'cpu ms':>10}{'ratio':>8}")
        for name, row in results[part].items():
            print(
                f"  {name:32}{row['wall_ms']:10.1f}{row['wall_ratio']:8.3f}"
                f"{row['cpu_ms']:10.1f}{row['cpu_ratio']:8.3f}"
            )
    save(args.json, comparisons(results), **results)


if __name__ == "__main__":
    main()
