"""The two mutual-information losses of RML, each in several readings of the paper."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.affinity import balanced_mean
from tag2mask.functional.reduction import first_row, rows_of_ranks, sum_over_ranks
from tag2mask.functional.segmentation import masked_mean
from tag2mask.methods.rml.mutual_information import (
    as_samples,
    bernoulli_divergence,
    bernoulli_information,
    club_bound,
    gaussian_information,
    joint_gaussian_information,
    released_divergence,
    spatial_divergence,
)

FeatureInformation = Literal["gauss", "gauss_full", "club", "kl", "released", "off"]
"""gauss: Gaussian per channel; gauss_full: jointly Gaussian; club: variational bound; kl: spatial
divergence; released: that of the released code."""
AffinityInformation = Literal["vd", "gap", "cond", "off"]
"""vd: variational distillation; gap: difference of information; cond: the paper's middle form."""


class ConditionalModel(Protocol):
    """A model q(y | x), such as `ConditionalGaussian`."""

    def log_density(self, x: Tensor, y: Tensor, *, frozen: bool = False) -> Tensor:
        """Compute log q(y | x) of (S, D) samples: (S,)."""
        ...


class InformationEstimate(NamedTuple):
    """An estimate of mutual information."""

    value: Tensor
    """Scalar to minimize."""
    fit: Tensor | None
    """Scalar loss of the model q(y | x), or None without a model."""


def feature_information(
    kind: FeatureInformation, x: Tensor, y: Tensor, weight: Tensor, model: ConditionalModel | None
) -> InformationEstimate:
    """Estimate the mutual information of two context maps of the same size.

    Args:
        kind: The estimator; not `off`.
        x: (N, D, h, w).
        y: (N, D, h, w).
        weight: (N, h, w), 0 on padding.
        model: q(y | x) for `club`. The `fit` of the result trains it on detached inputs.

    Returns:
        The estimate in nats per channel (for `kl`, a divergence; for `released`, a mean over
        pixels).

    Source:
        RML, Eq. 7 and 8; Specification R8.
    """
    if kind == "gauss":
        return InformationEstimate(gaussian_information(x, y, weight), None)
    if kind == "gauss_full":
        return InformationEstimate(joint_gaussian_information(x, y, weight), None)
    if kind == "kl":
        return InformationEstimate(spatial_divergence(x, y), None)
    if kind == "released":
        return InformationEstimate(released_divergence(x, y), None)
    if model is None:
        raise ValueError("the estimator 'club' needs a model of y given x")
    samples_x, share = as_samples(x, weight)
    samples_y, _ = as_samples(y, weight)
    share = share[:, 0]
    everyone = rows_of_ranks(samples_y)
    first = first_row(len(samples_y))
    other = everyone.roll(len(everyone) // 2, dims=0)  # usually another image
    other = other[first : first + len(samples_y)]
    bound = club_bound(
        model.log_density(samples_x, samples_y, frozen=True),
        model.log_density(samples_x, other, frozen=True),
        share,
    )
    density = model.log_density(samples_x.detach(), samples_y.detach())
    fit = -masked_mean(density, share)
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
    """Make the affinities of both views equally informative about the label.

    Args:
        kind: The reading of the paper; not `off`.
        large: (N, L, L) affinity logits of the crop and their label (1, 0, 255).
        small: The same for the small view, (N, L', L').
        pooled: (N, L', L') logits of the affinity of the crop, pooled to the size of the small
            view.
        pooled_valid: (N, L', L') bool, True where all pooled pairs are labeled.
        label_term: Include the label term of `vd`.

    Returns:
        Scalar.

    Source:
        RML, Eq. 9 to 12; Specification R9. Eq. 12 cancels to zero as printed. `vd` replaces
        information by the cross-entropy with the label and the divergence between the views; its
        optimum is agreement with the label. It is computed from logits: the affinity of attention
        that is not scaled starts saturated. `cond` rewards a view that becomes uninformative and is
        kept for ablations.
    """
    if kind == "vd":
        divergence = _agreement(pooled, small[0], pooled_valid)
        if not label_term:
            return divergence
        return 0.5 * (_label_entropy(*large) + _label_entropy(*small)) + divergence
    own = _label_information(large[0].sigmoid(), large[1])
    other = _label_information(small[0].sigmoid(), small[1])
    if kind == "gap":
        return (own - other).abs()
    weight = pooled_valid.to(pooled.dtype)
    shared = bernoulli_information(pooled.sigmoid(), small[0].sigmoid(), weight)
    return -(own - shared) - (other - shared)


def _agreement(pooled: Tensor, small: Tensor, valid: Tensor) -> Tensor:
    """Average both divergences between logits, each with its target detached, over pairs."""
    weight = valid.to(pooled.dtype)
    total = sum_over_ranks(weight.sum()).clamp_min(1)
    to_small = bernoulli_divergence(pooled.detach(), small)
    to_pooled = bernoulli_divergence(small.detach(), pooled)
    return 0.5 * sum_over_ranks(((to_small + to_pooled) * weight).sum()) / total


def _label_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Compute the cross-entropy with the label; positives and negatives weigh one half each."""
    positive, negative = (label == 1).to(logits.dtype), (label == 0).to(logits.dtype)
    own = balanced_mean(-F.logsigmoid(logits), positive)
    return 0.5 * (own + balanced_mean(-F.logsigmoid(-logits), negative))


def _label_information(probs: Tensor, label: Tensor) -> Tensor:
    """Compute the mutual information of an affinity and its label over labeled pairs."""
    labeled = (label <= 1).to(probs.dtype)
    return bernoulli_information(probs, (label == 1).to(probs.dtype), labeled)
