"""A source, a backbone and a method of a few hundred weights, to train in milliseconds.

As a script it trains them: `toy_training.py OUT [--resume] [section__key=value ...]`; `stages=2`
trains them twice. Failures come from the environment, because a resumed run must keep its recipe;
they happen in all processes, or in that of rank TOY_RANK, and not again after a restart.
"""

import os
import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import nn

from tag2mask import plugins
from tag2mask.config.recipe import parse_recipe
from tag2mask.config.schema import BackboneConfig, DataConfig, MethodConfig
from tag2mask.data.base import Source
from tag2mask.errors import DataError, NothingHeldOutError, Tag2MaskError
from tag2mask.methods.base import CamOutput, Method
from tag2mask.models.base import Backbone, Features
from tag2mask.training.trainer import train
from tag2mask.types import Sample


class ToyDataConfig(DataConfig):
    held_out: int = 0
    masks: bool = True
    masked: int = 0
    """Number of images with a mask, beside images without one; 0: all images or none."""
    count: int = 12
    strict: bool = False
    broken: int = -1


class ToySource(Source):
    """Noise with one bright square per tag; its color channel is the class."""

    Config = ToyDataConfig

    def __init__(self, config, split):
        count = {"train": config.count, "val": config.held_out}[split]
        if count == 0:
            raise NothingHeldOutError("no images are held out")
        self.config = config
        self.class_names = config.classes or ("blue", "green", "red")
        self.names = tuple(f"{split}{index}" for index in range(count))
        self.has_masks = config.masks and not config.masked
        self.masked = tuple(range(config.masked))
        rng = np.random.default_rng(len(split))
        self.tags = rng.integers(0, 2, (count, 3)).astype(np.uint8)
        self.tags[0] = 1

    def __getitem__(self, index):
        if index == self.config.broken:
            raise DataError(f"{self.names[index]}: is no image")
        image = np.random.default_rng(index).integers(0, 60, (48, 64, 3)).astype(np.uint8)
        mask = np.zeros((48, 64), dtype=np.uint8)
        for channel in np.flatnonzero(self.tags[index]):
            corner = slice(0, 20), slice(20 * channel, 20 * channel + 18)
            image[..., channel][corner] = 220
            mask[corner] = channel + 1
        has_mask = index in self.mask_indices and self.reads_masks
        return Sample(self.names[index], image, self.tags[index], mask if has_mask else None)


class ToyBackbone(Backbone):
    Config = BackboneConfig
    channels = (8, 8, 8, 8)
    loaded = frozenset({"stem.weight"})
    weights_license = "toy license"

    def __init__(self, config):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 16, stride=16)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(0.2)

    def forward(self, image, *, attention=False):
        last = self.drop(self.norm(self.stem(image)).relu())
        return Features((last,) * 4, ())


class ToyMethodConfig(MethodConfig):
    calm: bool = False
    norm: bool = False
    """Whether a calm method keeps its BatchNorm."""


class ToyMethod(Method):
    """A classifier, and a second head from step 4 on; draws from all random number generators."""

    Config = ToyMethodConfig

    def __init__(self, config, backbone, num_foreground, refiner, steps):
        super().__init__(config, backbone, num_foreground, refiner, steps)
        self.config = config
        if config.calm:
            backbone.drop = nn.Identity()
            backbone.norm = backbone.norm if config.norm else nn.Identity()
        self.classifier = nn.Conv2d(8, num_foreground, 1)
        self.late = nn.Linear(8, 1)

    def losses(self, batch, step):
        disturb(step)
        feature = self.backbone(self.backbone.normalize(batch.image)).maps[-1]
        logits = self.classifier(feature).mean(dim=(2, 3))
        noise = 0 if self.config.calm else random.random() + np.random.random()  # noqa: NPY002
        losses = {"classification": F.multilabel_soft_margin_loss(logits, batch.tags) * (1 + noise)}
        if step >= 4:
            losses["late"] = 0.1 * self.late(feature.mean(dim=(2, 3))).square().mean()
        if step == int(os.environ.get("TOY_POISON_AT", -1)):
            losses["classification"] = losses["classification"] * float("nan")
        self.monitor["peak"] = feature.detach().amax()
        return losses

    def compute_cam(self, image, tags=None):
        cam = self.classifier(self.backbone(image).maps[-1])
        return CamOutput(cam.mean(dim=(2, 3)), cam)


def disturb(step):
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return
    if os.environ.get("TOY_RANK") not in (None, os.environ.get("RANK")):
        return
    for name in ("SIGINT", "SIGTERM", "SIGKILL"):
        if step == int(os.environ.get(f"TOY_{name}_AT", -1)):
            del os.environ[f"TOY_{name}_AT"]  # a second signal would kill
            os.kill(os.getpid(), getattr(signal, name))


TOYS = {"data": ToySource, "models.backbones": ToyBackbone, "methods": ToyMethod}
real_load = plugins.load


def load(package, name):
    """Load a plug-in, or a toy."""
    return TOYS[package] if name == "toy" else real_load(package, name)


def recipe(**changed):
    """Return a recipe of the toys; `optim__lr=1` sets optim.lr."""
    raw = {
        "data": {"name": "toy", "crop_px": 32, "classes": ["blue", "green", "red"]},
        "backbone": {"name": "toy"},
        "method": {"name": "toy"},
        "optim": {"steps": 12, "batch_size": 4, "lr": 0.01, "head_lr": 0.01, "warmup": 2},
        "predict": {"scales": [1.0], "flip": False},
        "run": {"workers": 0, "log_every": 5, "save_every": 3, "samples": 0},
    }
    for key, value in changed.items():
        section, _, name = key.partition("__")
        raw[section][name] = value
    return parse_recipe(raw, "toy")


def main():
    plugins.load = load
    if "TOY_FILE_BYTES" in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["TOY_FILE_BYTES"]),) * 2)
    words = [word for word in sys.argv[2:] if "=" in word]
    changed = dict(word.split("=") for word in words)
    stages = int(changed.pop("stages", 1))
    for stage in range(stages):
        out = Path(sys.argv[1]) / f"stage{stage}" if stages > 1 else Path(sys.argv[1])
        train(recipe(**changed), out, resume="--resume" in sys.argv, command="toy")


if __name__ == "__main__":
    try:
        main()
    except Tag2MaskError as error:
        print(error)  # noqa: T201
        sys.exit(2)
