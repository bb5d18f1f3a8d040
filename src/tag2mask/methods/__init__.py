"""Methods, one home per paper: `from tag2mask.methods import RML`.

The imports below are for editors and type checkers. A method that is missing there can be imported
just the same; its type is `type[Method]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tag2mask import plugins

if TYPE_CHECKING:
    from tag2mask.methods.advcam import AdvCAM as AdvCAM
    from tag2mask.methods.aeft.method import AEFT as AEFT
    from tag2mask.methods.afa import AFA as AFA
    from tag2mask.methods.base import Method
    from tag2mask.methods.cam import CAM as CAM
    from tag2mask.methods.irn.method import IRN as IRN
    from tag2mask.methods.oc_cse.method import OCCSE as OCCSE
    from tag2mask.methods.onestage.method import OneStage as OneStage
    from tag2mask.methods.psa.method import PSA as PSA
    from tag2mask.methods.recam.method import ReCAM as ReCAM
    from tag2mask.methods.rib import RIB as RIB
    from tag2mask.methods.rml.method import RML as RML
    from tag2mask.methods.rrm.method import RRM as RRM
    from tag2mask.methods.seam.method import SEAM as SEAM
    from tag2mask.methods.supervised.method import Supervised as Supervised


def __getattr__(name: str) -> type[Method]:
    """Import the class of a method when it is first used."""
    return plugins.load_class("methods", name)


def __dir__() -> list[str]:
    return plugins.class_names("methods")
