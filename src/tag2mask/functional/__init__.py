"""Pure functions that several papers share: `from tag2mask.functional import multi_scale_cam`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tag2mask.functional.affinity import affinity_label as affinity_label
    from tag2mask.functional.affinity import affinity_loss as affinity_loss
    from tag2mask.functional.affinity import attention_affinity as attention_affinity
    from tag2mask.functional.affinity import mean_attention as mean_attention
    from tag2mask.functional.affinity import propagate as propagate
    from tag2mask.functional.affinity import radius_mask as radius_mask
    from tag2mask.functional.cam import fused_cam as fused_cam
    from tag2mask.functional.cam import multi_scale_cam as multi_scale_cam
    from tag2mask.functional.cam import normalize_cam as normalize_cam
    from tag2mask.functional.cam import upsample as upsample
    from tag2mask.functional.energy import dense_energy_loss as dense_energy_loss
    from tag2mask.functional.lattice import bilateral_filter as bilateral_filter
    from tag2mask.functional.pair_affinity import pair_labels as pair_labels
    from tag2mask.functional.pair_affinity import pair_losses as pair_losses
    from tag2mask.functional.pooling import attended_score as attended_score
    from tag2mask.functional.pooling import gated_pyramid as gated_pyramid
    from tag2mask.functional.pooling import size_penalty as size_penalty
    from tag2mask.functional.pooling import softmax_masks as softmax_masks
    from tag2mask.functional.pooling import weighted_score as weighted_score
    from tag2mask.functional.pseudo_label import confident_label as confident_label
    from tag2mask.functional.pseudo_label import probs_with_background as probs_with_background
    from tag2mask.functional.pseudo_label import propagated_label as propagated_label
    from tag2mask.functional.pseudo_label import refined_labels as refined_labels
    from tag2mask.functional.pseudo_label import (
        with_constant_background as with_constant_background,
    )
    from tag2mask.functional.pseudo_label import with_power_background as with_power_background
    from tag2mask.functional.segmentation import segmentation_loss as segmentation_loss
    from tag2mask.functional.stencil import color_affinity as color_affinity
    from tag2mask.functional.stencil import disc_offsets as disc_offsets
    from tag2mask.functional.stencil import random_walk as random_walk
else:
    from tag2mask.lazy import attach

    __getattr__, __dir__, __all__ = attach(__name__)
