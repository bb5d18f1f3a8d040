"""The two mutual-information losses of RML, each a menu of readings of the paper."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from tag2mask.functional.affinity import balanced_mean
from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.methods.rml.mutual_information import (
    as_samples,
    bernoulli_divergence,
    bernoulli_information,
    club_bound,
    gaussian_information,
    joint_gaussian_information,
    spatial_divergence,
)

FeatureInformation = Literal["gauss", "gauss_full", "club", "kl", "off"]
"""gauss: per channel; gauss_full: joint; club: variational bound; kl: spatial agreement."""
AffinityInformation = Literal["vd", "gap", "cond", "off"]
"""vd: variational distillation; gap: difference of information; cond: the paper's middle form."""


class ConditionalModel(Protocol):
    """A model q(y | x), such as `models.club.ConditionalGaussian`."""

    def log_density(self, x: Tensor, y: Tensor, *, frozen: bool = False) -> Tensor:
        """Log q(y | x) of (S, D) samples, (S,)."""
        ...


class InformationEstimate(NamedTuple):
    """An estimate to minimise, and what its inner model needs to fit, if it has one."""

    value: Tensor
    fit: Tensor | None


def feature_information(
    kind: FeatureInformation, x: Tensor, y: Tensor, weight: Tensor, model: ConditionalModel | None
) -> InformationEstimate:
    """Estimate the mutual information of two contexts on one grid.

    Args:
        kind: The estimator; not `off`.
        x: (N, D, h, w).
        y: (N, D, h, w).
        weight: (N, h, w), 0 on padding.
        model: q(y | x) for `club`; trained on detached inputs by the estimate's `fit`.

    Returns:
        The estimate in nats per channel (`kl`: a divergence).

    Source:
        RML, Eq. 7 and 8; Specification R8.
    """
    if kind == "gauss":
        return InformationEstimate(gaussian_information(x, y, weight), None)
    if kind == "gauss_full":
        return InformationEstimate(joint_gaussian_information(x, y, weight), None)
    if kind == "kl":
        return InformationEstimate(spatial_divergence(x, y), None)
    if model is None:
        raise ValueError("the estimator 'club' needs a model of y given x")
    samples_x, share = as_samples(x, weight)
    samples_y, _ = as_samples(y, weight)
    share = share[:, 0]
    other = samples_y.roll(len(samples_y) // 2, dims=0)  # far from its own cell and, mostly, image
    bound = club_bound(
        model.log_density(samples_x, samples_y, frozen=True),
        model.log_density(samples_x, other, frozen=True),
        share,
    )
    density = model.log_density(samples_x.detach(), samples_y.detach())
    fit = -(density * share).sum() / share.sum().clamp_min(1)
    return InformationEstimate(bound.clamp_min(0) / x.shape[1], fit / x.shape[1])


def affinity_information_loss(
    kind: AffinityInformation,
    large: tuple[Tensor, Tensor],
    small: tuple[Tensor, Tensor],
    pooled: Tensor,
    pooled_valid: Tensor,
    *,
    label_term: bool = True,
) -> Tensor:
    """Make both views' affinities tell of the label what the other tells.

    Args:
        kind: The reading; not `off`.
        large: Affinity (N, L, L) in [0, 1] of the crop and its pair label (1, 0, 255).
        small: The same of the small view, (N, L', L').
        pooled: (N, L', L') affinity of the crop, pooled to the small grid.
        pooled_valid: (N, L', L') bool, True where every pooled pair had a label.
        label_term: `vd` only: keep its label part.

    Returns:
        Scalar.

    Source:
        RML, Eq. 9 to 12 with Specification R9. Eq. 12 cancels to zero as printed. `vd`
        replaces information by cross-entropy to the label and divergence between the views, whose
        optimum is agreement with the label; `cond` rewards one view that becomes useless and is
        kept for ablation.
    """
    if kind == "vd":
        divergence = _agreement(pooled, small[0], pooled_valid)
        if not label_term:
            return divergence
        return 0.5 * (_label_entropy(*large) + _label_entropy(*small)) + divergence
    own = _label_information(*large)
    other = _label_information(*small)
    if kind == "gap":
        return (own - other).abs()
    shared = bernoulli_information(pooled, small[0], pooled_valid.to(pooled.dtype))
    return -(own - shared) - (other - shared)


def _agreement(pooled: Tensor, small: Tensor, valid: Tensor) -> Tensor:
    """Half the sum of both divergences, each with the other side held still; mean over pairs."""
    weight = valid.to(pooled.dtype)
    total = sum_over_ranks(weight.sum()).clamp_min(1)
    forth = bernoulli_divergence(pooled.detach(), small)
    back = bernoulli_divergence(small.detach(), pooled)
    return 0.5 * sum_over_ranks(((forth + back) * weight).sum()) / total


def _label_entropy(probs: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of pair labels, positives and negatives half each."""
    probs = probs.clamp(1e-6, 1 - 1e-6)
    positive, negative = (label == 1).to(probs.dtype), (label == 0).to(probs.dtype)
    own = balanced_mean(-probs.log(), positive)
    return 0.5 * (own + balanced_mean(-(1 - probs).log(), negative))


def _label_information(probs: Tensor, label: Tensor) -> Tensor:
    """Information that an affinity holds of its pair label, over labeled pairs."""
    labeled = (label <= 1).to(probs.dtype)
    return bernoulli_information(probs, (label == 1).to(probs.dtype), labeled)
