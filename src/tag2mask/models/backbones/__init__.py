"""Backbones, one file per family: `from tag2mask.models.backbones import MiT`.

The imports below are for editors and type checkers. A backbone that is missing there can be
imported just the same; its type is `type[Backbone]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tag2mask import plugins

if TYPE_CHECKING:
    from tag2mask.models.backbones.efficientnet_lite import EfficientNetLite as EfficientNetLite
    from tag2mask.models.backbones.hub import Hub as Hub
    from tag2mask.models.backbones.hybrid import Hybrid as Hybrid
    from tag2mask.models.backbones.mit import MiT as MiT
    from tag2mask.models.backbones.resnet38d import ResNet38d as ResNet38d
    from tag2mask.models.backbones.tiny import Tiny as Tiny
    from tag2mask.models.backbones.vit import ViT as ViT
    from tag2mask.models.base import Backbone


def __getattr__(name: str) -> type[Backbone]:
    """Import the class of a backbone when it is first used."""
    return plugins.load_class("models.backbones", name)


def __dir__() -> list[str]:
    return plugins.class_names("models.backbones")
