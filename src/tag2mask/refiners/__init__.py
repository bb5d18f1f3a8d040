"""Refiners: `from tag2mask.refiners import PAR, DenseCRF`.

A refiner maps an image and class probabilities to class probabilities that follow the edges of the
image. The imports below are for editors and type checkers. A refiner that is missing there can be
imported just the same; its type is `type[Refiner]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tag2mask import plugins

if TYPE_CHECKING:
    from tag2mask.refiners.base import Refiner
    from tag2mask.refiners.dense_crf import DenseCRF as DenseCRF
    from tag2mask.refiners.pamr import PAMR as PAMR
    from tag2mask.refiners.par import PAR as PAR
    from tag2mask.refiners.random_walk import RandomWalk as RandomWalk


def __getattr__(name: str) -> type[Refiner]:
    """Import the class of a refiner when it is first used."""
    return plugins.load_class("refiners", name)


def __dir__() -> list[str]:
    return plugins.class_names("refiners")
