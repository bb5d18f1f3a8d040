"""Class activation maps (CAMs): normalization, resizing, fusion over scales and flips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.sizes import is_exporting, scaled_side


def upsample(maps: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Resize (N, C, h, w) maps bilinearly to `size` (H, W), without aligning corners."""
    if not is_exporting() and maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def normalize_cam(cam: Tensor, eps: float = 1e-5) -> Tensor:
    """Scale each class map of each image to [0, 1] by its own minimum and maximum.

    Gradients also flow through the minimum and maximum. Without them, a loss on the result could
    shrink the raw map forever while the normalized map stays the same.

    Args:
        cam: (N, F, H, W), any range. Apply a ReLU first to ignore negative activations.
        eps: Keeps a constant map at 0.

    Returns:
        (N, F, H, W) in [0, 1).

    Raises:
        ValueError: If cam is not four-dimensional.

    Source:
        RML, Eq. 1; Specification 2.2 (subtract the minimum, divide by the maximum + 1e-5) and R1.

    Example:
        >>> import torch
        >>> normalize_cam(torch.tensor([[[[1.0, 3.0, 5.0]]]])).round(decimals=2)
        tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    if cam.ndim != 4:
        raise ValueError(f"cam must be (N, F, H, W), got {tuple(cam.shape)}")
    cam = cam - cam.amin(dim=(2, 3), keepdim=True)
    return cam / (cam.amax(dim=(2, 3), keepdim=True) + eps)


def gather_classes(maps: Tensor, class_indices: Tensor) -> Tensor:
    """Select the maps of each image's classes.

    Args:
        maps: (N, F, h, w).
        class_indices: (N, K) int64 in 0..F-1.

    Returns:
        (N, K, h, w).
    """
    return maps.gather(1, class_indices[:, :, None, None].expand(-1, -1, *maps.shape[-2:]))


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Multiply (H, W) by `scale`; round down, to 1 at least."""
    return scaled_side(size[0], scale), scaled_side(size[1], scale)


def multi_scale_cam(
    compute_cam: Callable[[Tensor], Tensor],
    image: Tensor,
    scales: Sequence[float] = (1.0, 0.5, 1.5),
    *,
    flip: bool = True,
    known_cam: Tensor | None = None,
    class_indices: Tensor | None = None,
) -> Tensor:
    """Compute CAMs at several scales with horizontal flips, sum them and normalize the sum.

    At each scale, the pixelwise maximum over the image and its flipped image is taken. Negative
    activations are set to 0.

    Args:
        compute_cam: Maps (N, 3, h, w) normalized images to (N, F, h', w') raw CAMs. Called once
            per scale; images and flipped images are concatenated along the batch axis.
        image: (N, 3, H, W) normalized images.
        scales: Factors of the image size.
        flip: Also use the flipped image.
        known_cam: (N, F, h', w') raw CAM of the unflipped image at scale 1, if already computed.
        class_indices: (N, K) classes of each image. Only their maps are resized and normalized.

    Returns:
        (N, F, H, W) in [0, 1] for all classes, including absent ones: multiply by the tags
        afterwards. With `class_indices`, the same values for these classes only, (N, K, H, W).

    Source:
        AFA, section 3.2; Specification 2.2.

    Example:
        >>> import torch
        >>> network = torch.nn.Conv2d(3, 5, kernel_size=16, stride=16)
        >>> with torch.no_grad():
        ...     cam = multi_scale_cam(network, torch.rand(2, 3, 64, 96), scales=(1.0, 0.5))
        >>> cam.shape
        torch.Size([2, 5, 64, 96])
    """
    size = image.shape[-2:]

    def cams_at(scale: float) -> tuple[Tensor, Tensor | None]:
        scaled = scaled_view(image, scale)
        cam = known_cam if scale == 1.0 else None
        if not flip:
            return select(compute_cam(scaled) if cam is None else cam), None
        if cam is not None:
            return select(cam), select(compute_cam(scaled.flip(-1)))
        both = compute_cam(torch.cat([scaled, scaled.flip(-1)])).chunk(2)
        return select(both[0]), select(both[1])

    def select(cam: Tensor) -> Tensor:
        return cam if class_indices is None else gather_classes(cam, class_indices)

    return fused_cam((cams_at(scale) for scale in scales), size)


def scaled_view(image: Tensor, scale: float) -> Tensor:
    """Resize (N, 3, H, W) images by a factor; return them unchanged at scale 1."""
    return image if scale == 1.0 else upsample(image, scaled_size(image.shape[-2:], scale))


def fused_cam(
    cams: Iterable[tuple[Tensor, Tensor | None]], size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Sum the CAMs of all scales at one size and normalize the sum; see `multi_scale_cam`.

    Args:
        cams: For each scale, the (N, F, h, w) raw CAM of the image, and that of the flipped image
            or None.
        size: (H, W) of the result.

    Returns:
        (N, F, H, W) in [0, 1].
    """
    return normalize_cam(summed_cam(cams, size))


def summed_cam(
    cams: Iterable[tuple[Tensor, Tensor | None]], size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Sum the CAMs of all scales at one size, without normalizing the sum; see `fused_cam`.

    Returns:
        (N, F, H, W), not negative.
    """
    total: Tensor | None = None
    for unflipped, flipped in cams:
        cam = upsample(unflipped, size)
        if flipped is not None:
            cam = torch.maximum(cam, upsample(flipped.flip(-1), size))
        cam = cam.relu()
        total = cam if total is None else total.add_(cam)
    if total is None:
        raise ValueError("multi_scale_cam needs at least one scale")
    return total


def cam_range(cam: Tensor, eps: float = 1e-5) -> Tensor:
    """Return what `normalize_cam` subtracts from each class map and divides it by.

    Args:
        cam: (N, F, H, W), any range.
        eps: As in `normalize_cam`.

    Returns:
        (N, F, 2): the minimum, and the distance from it to the maximum plus `eps`.

    Example:
        >>> import torch
        >>> cam_range(torch.tensor([[[[1.0, 3.0, 5.0]]]])).round(decimals=2)
        tensor([[[1., 4.]]])
    """
    low = cam.amin(dim=(2, 3))
    return torch.stack([low, cam.amax(dim=(2, 3)) - low + eps], dim=-1)
