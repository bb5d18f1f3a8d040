"""Estimators of mutual information in nats: of two maps, and of an affinity and its label."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks
from tag2mask.functional.segmentation import masked_mean


def _moments(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Center x and y (S, D) by their weighted means over ranks; also return the sum of weights."""
    total = sum_over_ranks(weight.sum()).clamp_min(1)
    mean_x = sum_over_ranks((x * weight).sum(dim=0)) / total
    mean_y = sum_over_ranks((y * weight).sum(dim=0)) / total
    return x - mean_x, y - mean_y, total


def as_samples(maps: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Turn (N, D, h, w) maps and (N, h, w) weights into (S, D) samples and (S, 1) weights."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2).float(), weight.flatten()[:, None].float()


def gaussian_information(x: Tensor, y: Tensor, weight: Tensor, cap: float = 0.05) -> Tensor:
    """Estimate the mutual information of two maps with one Gaussian per pair of channels.

    Args:
        x: (N, D, h, w).
        y: (N, D, h, w).
        weight: (N, h, w), 0 on padding.
        cap: e in -0.5 log(1 - (1 - e) rho^2). 0.05 limits a channel to 1.50 nats; 0 is exact and
            unbounded.

    Returns:
        Scalar >= 0, mean over channels; invariant to a gain and an offset per channel.

    Source:
        RML, Eq. 7; Specification R8 (`gauss`): the paper does not specify the estimator.

    Example:
        >>> import torch
        >>> x, weight = torch.randn(2, 3, 8, 8), torch.ones(2, 8, 8)
        >>> round(gaussian_information(x, 2 * x + 1, weight).item(), 2)
        1.5
    """
    x, share = as_samples(x, weight)
    y, _ = as_samples(y, weight)
    x, y, _ = _moments(x, y, share)
    covariance = sum_over_ranks((share * x * y).sum(dim=0))
    variance_x = sum_over_ranks((share * x * x).sum(dim=0))
    variance_y = sum_over_ranks((share * y * y).sum(dim=0))
    rho2 = covariance.square() / (variance_x * variance_y).clamp_min(1e-12)
    return (-0.5 * torch.log1p(-(1 - cap) * rho2.clamp(max=1.0))).mean()


def joint_gaussian_information(
    x: Tensor, y: Tensor, weight: Tensor, shrinkage: float = 1e-3
) -> Tensor:
    """Estimate the mutual information per channel of two maps with jointly Gaussian channels.

    Computed in float32, even under autocast.

    Args:
        x: (N, D, h, w).
        y: (N, D, h, w).
        weight: (N, h, w), 0 on padding.
        shrinkage: Added to the diagonal of the correlation matrix to make it positive definite.

    Returns:
        Scalar.

    Source:
        RML, Eq. 7; Specification R8 (`gauss_full`).
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        x, share = as_samples(x, weight)
        y, _ = as_samples(y, weight)
        x, y, total = _moments(x, y, share)
        joint = torch.cat([x, y], dim=1)
        covariance = sum_over_ranks((share * joint).T @ joint) / total
        deviation = covariance.diagonal().clamp_min(1e-8).sqrt()
        correlation = covariance / deviation[:, None] / deviation[None, :]
        channels = x.shape[1]
        correlation = correlation + shrinkage * torch.eye(2 * channels, device=x.device)

        def log_determinant(matrix: Tensor) -> Tensor:
            factor: Tensor = torch.linalg.cholesky(matrix)
            return 2 * factor.diagonal().log().sum()

        separate = log_determinant(correlation[:channels, :channels])
        separate = separate + log_determinant(correlation[channels:, channels:])
        return 0.5 * (separate - log_determinant(correlation)) / channels


def spatial_divergence(x: Tensor, y: Tensor, temperature: float = 0.05) -> Tensor:
    """Compute the symmetric divergence of the spatial softmaxes of two maps.

    It measures agreement, not information.

    Args:
        x: (N, D, h, w).
        y: (N, D, h, w).
        temperature: Temperature of the softmax over space.

    Returns:
        Scalar >= 0, mean over batch and channels; 0 for equal maps.

    Source:
        Specification R8 (`kl`): the intention of RML's released code, with log-probabilities where
        `kl_div` expects them. Its sign is opposite to that of Eq. 8.
    """
    log_x = (x.flatten(2) / temperature).log_softmax(dim=2)
    log_y = (y.flatten(2) / temperature).log_softmax(dim=2)
    y_to_x = F.kl_div(log_x, log_y, reduction="sum", log_target=True)
    x_to_y = F.kl_div(log_y, log_x, reduction="sum", log_target=True)
    return 0.5 * (y_to_x + x_to_y) / (x.shape[0] * x.shape[1])


def released_divergence(x: Tensor, y: Tensor, temperature: float = 0.05) -> Tensor:
    """Compute what RML's released code computes in place of mutual information.

    Only y gets a gradient; to minimize it flattens y. It can be negative.

    Args:
        x: (N, D, h, w).
        y: (N, D, h, w).
        temperature: Temperature of the softmax over space.

    Returns:
        Scalar, mean over all elements: q log q - q p for the spatial softmaxes p of x and q of y.

    Source:
        Specification R8 (`released`): `kl_div` receives probabilities as its first argument, which
        is detached.
    """
    p = (x.detach().flatten(2) / temperature).softmax(dim=2)
    log_q = (y.flatten(2) / temperature).log_softmax(dim=2)
    return (log_q.exp() * (log_q - p)).mean()


def club_bound(log_density_own: Tensor, log_density_other: Tensor, weight: Tensor) -> Tensor:
    """Compute a variational upper bound on mutual information from a model q(y | x).

    Args:
        log_density_own: (S,) log q(y_i | x_i).
        log_density_other: (S,) log q(y_j | x_i) for another sample j.
        weight: (S,), 0 on padding.

    Returns:
        Scalar; an upper bound if q is the true conditional.

    Source:
        Specification R8 (`club`): contrastive log-ratio upper bound.
    """
    return masked_mean(log_density_own - log_density_other, weight)


def bernoulli_information(probs: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Estimate the mutual information of two Bernoulli variables from a soft 2 x 2 table.

    Args:
        probs: Any shape, in [0, 1].
        target: Same shape, in [0, 1].
        weight: Same shape, 0 for pairs to leave out.

    Returns:
        Scalar in [0, ln 2]. It ignores the sign: an inverted affinity has full information.

    Source:
        Specification R9 (`soft2x2`).
    """
    total = sum_over_ranks(weight.sum()).clamp_min(1)

    def share(value: Tensor) -> Tensor:
        return sum_over_ranks((value * weight).sum()) / total

    both = share(probs * target)
    first, second = share(probs), share(target)
    joint = torch.stack([both, first - both, second - both, 1 - first - second + both])
    product = torch.stack(
        [first * second, first * (1 - second), (1 - first) * second, (1 - first) * (1 - second)]
    )
    joint = joint.clamp_min(1e-12)
    return (joint * (joint / product.clamp_min(1e-12)).log()).sum()


def bernoulli_divergence(p_logit: Tensor, q_logit: Tensor) -> Tensor:
    """Compute KL(p || q) of Bernoulli variables elementwise from their logits, at least 0.

    The gradient with respect to the logit of q is q - p, at saturated logits too.

    Source:
        Specification R9.
    """
    same = p_logit.sigmoid() * (F.logsigmoid(p_logit) - F.logsigmoid(q_logit))
    return same + (-p_logit).sigmoid() * (F.logsigmoid(-p_logit) - F.logsigmoid(-q_logit))
