"""Plain vision transformers of `transformers`: ViT, DeiT, DINOv2 and the image half of CLIP.

Weights come from a hub id or a local path and do not change. f4 are the patch tokens of the last
block after the network's LayerNorm; f1, f2 and f3 are those after a quarter, half and three
quarters of the blocks, all at the stride of the patches. Position embeddings are interpolated to
the size of the image.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedConfig

from tag2mask.errors import WeightsError
from tag2mask.models.architecture import network_config, one_line, resolve_architecture
from tag2mask.models.backbones.mit import to_map
from tag2mask.models.base import Backbone, Features, QueryKey
from tag2mask.models.published import (
    PublishedConfig,
    build_network,
    freeze_unused,
)
from tag2mask.models.weights import UNKNOWN_LICENSE, card_license, license

KINDS = ("vit", "deit", "dinov2", "dinov2_with_registers", "clip_vision_model")
"""Values of `model_type` that this file can run."""
UNUSED = ("pooler.", "embeddings.mask_token")
"""Parameters that weights may lack, because no map depends on them."""


class ViTConfig(PublishedConfig):
    """A plain vision transformer of `transformers`."""

    name: str = "vit"
    """Backbone: a file of the folder `models/backbones`."""
    captured_blocks: Annotated[int, Field(ge=1, le=1024)] = 2
    """Blocks, counted from the last, whose queries and keys methods read; all if there are
    fewer."""

    def resolved(self) -> Self:
        """Keep only the image half of CLIP; see `PublishedConfig.resolved`."""
        config = super().resolved()
        arch = cast(dict[str, Any], config.arch)
        if arch["model_type"] != "clip":
            return config
        half = resolve_architecture(
            {**arch["vision_config"], "model_type": "clip_vision_model"}, None
        )
        return config.model_copy(update={"arch": half})


class ViT(Backbone):
    """A plain vision transformer at the stride of its patches, without its classifier.

    Class, distillation and register tokens take part in the network, but neither maps nor captured
    queries and keys contain them.
    """

    Config = ViTConfig

    def __init__(self, config: ViTConfig) -> None:
        resolved = config.resolved()
        super().__init__(*resolved.statistics())
        settings: Any = network_config(cast(dict[str, Any], resolved.arch))
        kind = settings.model_type
        if kind not in KINDS:
            raise WeightsError(f"{kind}: backbone 'vit' takes {', '.join(KINDS)}")
        self.network: Any = build_network(settings)
        if config.pretrained is not None:
            self._load(config.pretrained, settings)
        width, depth = settings.hidden_size, settings.num_hidden_layers
        self.patch = int(settings.patch_size)
        self.strides = (self.patch, self.patch, self.patch, self.patch)
        self.channels = (width, width, width, width)
        self.head_dim = width // settings.num_attention_heads
        self._captured = min(config.captured_blocks, depth)
        self.attention_channels = settings.num_attention_heads * self._captured
        self._ends = [max(1, depth * quarter // 4) for quarter in (1, 2, 3)]
        # DINOv2 always interpolates position embeddings, the others on request.
        self._options = {} if "dinov2" in kind else {"interpolate_pos_encoding": True}
        self._norm_missing = kind == "clip_vision_model"
        for layer in self._projections():
            layer.register_forward_hook(_record)
        freeze_unused(self.network, self._probe)

    def forward(self, image: Tensor, *, attention: bool = False) -> Features:
        """See `Backbone.forward`."""
        height, width = image.shape[-2:]
        missing = (-height % self.patch, -width % self.patch)
        if any(missing):
            image = F.pad(image, (0, missing[1], 0, missing[0]))
        grid = (image.shape[2] // self.patch, image.shape[3] // self.patch)
        with recorded() as outputs:
            result = self.network(pixel_values=image, output_hidden_states=True, **self._options)
        last = result.last_hidden_state
        if self._norm_missing:
            last = cast(nn.Module, self.network.post_layernorm)(last)
        tokens = [*(result.hidden_states[end] for end in self._ends), last]
        maps = tuple(to_map(_patches(one, grid), grid) for one in tokens)
        layers = self._projections() if attention else []
        heads = [self._split(_patches(outputs[layer], grid)) for layer in layers]
        return Features(maps, tuple(map(QueryKey, heads[::2], heads[1::2])))

    def _probe(self) -> tuple[Tensor, ...]:
        """Compute all maps of a small black image."""
        return self.forward(torch.zeros(1, 3, self.patch, self.patch)).maps

    def _load(self, weights: str, settings: PreTrainedConfig) -> None:
        """Load a checkpoint in a layout that `transformers` knows, without its heads.

        Raises:
            WeightsError: If it cannot be read or lacks weights.
        """
        path = Path(weights).expanduser()
        try:
            self.network, report = cast(Any, AutoModel).from_pretrained(
                str(path.parent) if path.is_file() else weights,
                config=settings,
                dtype=torch.float32,
                output_loading_info=True,
                weights_only=True,
            )
        except Exception as error:  # a damaged or malicious file can raise nearly every error
            raise WeightsError(f"{weights}: cannot be loaded ({one_line(error)})") from error
        missing = sorted(name for name in report["missing_keys"] if not name.startswith(UNUSED))
        if missing:
            raise WeightsError(
                f"{weights}: weights of another architecture: {missing[0]} is missing"
            )
        self.loaded = frozenset(f"network.{name}" for name, _ in self.network.named_parameters())
        known = license(weights)
        self.weights_license = card_license(weights) if known == UNKNOWN_LICENSE else known

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the hooks of transformers, which cannot be sent to another process.

        transformers installs them again at the next pass. The network itself keeps its hooks, as
        another thread may be using them.
        """
        tensors = (*self.network.parameters(), *self.network.buffers())
        network = copy.deepcopy(self.network, {id(tensor): tensor for tensor in tensors})
        for module in network.modules():
            hooks = cast(dict[int, object], module._forward_hooks)
            for key in [key for key, hook in hooks.items() if hook is not _record]:
                del hooks[key]
        network._output_capturing_hooks_installed = False
        return {**self.__dict__, "_modules": {**self._modules, "network": network}}

    def _projections(self) -> list[nn.Module]:
        """Return the layers that compute queries and keys of the captured blocks, in turn."""
        blocks = [module for module in self.network.modules() if hasattr(module, "q_proj")]
        return [
            cast(nn.Module, layer)
            for block in blocks[-self._captured :]
            for layer in (block.q_proj, block.k_proj)
        ]

    def _split(self, tokens: Tensor) -> Tensor:
        """Split (N, L, D) queries or keys into (N, heads, L, d)."""
        count, length = tokens.shape[:2]
        return tokens.view(count, length, -1, self.head_dim).transpose(1, 2)


_recording = threading.local()
"""Holds the outputs that the present pass of each thread records."""


@contextmanager
def recorded() -> Iterator[dict[nn.Module, Tensor]]:
    """Record the output of all layers with the hook `_record` in this thread."""
    outputs: dict[nn.Module, Tensor] = {}
    _recording.outputs = outputs
    try:
        yield outputs
    finally:
        _recording.outputs = None


def _record(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
    """Record the output of a layer if this thread asked for it."""
    outputs = getattr(_recording, "outputs", None)
    if outputs is not None:
        outputs[layer] = output


def _patches(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Drop the tokens before the patches of a grid."""
    return tokens[:, tokens.shape[1] - grid[0] * grid[1] :]
