"""Class activation maps: normalized, upsampled, added over scales and flips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample(maps: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Resize (N, C, h, w) maps bilinearly to `size` (H, W); pixel centers aligned, not corners."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def normalize_cam(cam: Tensor, eps: float = 1e-5) -> Tensor:
    """Scale each class map of each image to [0, 1] by its own minimum and maximum.

    Differentiable throughout: a stop-gradient on the extremes lets a loss on the result shrink the
    raw map for ever while the normalized one does not change.

    Args:
        cam: (N, F, H, W), any range; ReLU it first where negative evidence is to count as none.
        eps: Keeps an all-constant map at 0.

    Returns:
        (N, F, H, W) in [0, 1).

    Raises:
        ValueError: If cam is not four-dimensional.

    Source:
        RML, Eq. 1; Specification 2.2 (subtract min, divide by max + 1e-5) and R1.
    """
    if cam.ndim != 4:
        raise ValueError(f"cam must be (N, F, H, W), got {tuple(cam.shape)}")
    cam = cam - cam.amin(dim=(2, 3), keepdim=True)
    return cam / (cam.amax(dim=(2, 3), keepdim=True) + eps)


def gather_classes(maps: Tensor, selected: Tensor) -> Tensor:
    """Take the (N, K, h, w) maps of each image's (N, K) class indices out of (N, F, h, w) maps."""
    return maps.gather(1, selected[:, :, None, None].expand(-1, -1, *maps.shape[-2:]))


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """(H, W) times `scale`, rounded down, at least 1."""
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def multi_scale_cam(
    cam_of: Callable[[Tensor], Tensor],
    image: Tensor,
    scales: Sequence[float] = (1.0, 0.5, 1.5),
    *,
    flip: bool = True,
    known: Tensor | None = None,
    selected: Tensor | None = None,
) -> Tensor:
    """Add up class evidence over scales and mirror images, then normalize.

    Per scale the larger of the view and its un-mirrored mirror counts; negative evidence counts as
    none.

    Args:
        cam_of: Maps (N, 3, h, w) normalized images to (N, F, h', w') raw evidence; called once per
            scale with both views stacked.
        image: (N, 3, H, W) normalized images.
        scales: Factors of the image's size.
        flip: Also look at the mirrored image.
        known: (N, F, h', w') raw evidence of the un-mirrored image at scale 1 if a forward pass has
            been done already; that view is then not computed again.
        selected: (N, K) class indices of each image: no map of another class is enlarged or normalized.

    Returns:
        (N, F, H, W) in [0, 1], all classes, also absent ones: mask by tags afterwards. With `selected`
        (N, K, H, W), the same values for these classes alone.

    Source:
        AFA, section 3.2 with Specification 2.2.
    """
    size = image.shape[-2:]

    def seen(scale: float) -> tuple[Tensor, Tensor | None]:
        view = scaled_view(image, scale)
        upright = known if scale == 1.0 else None
        if not flip:
            return selected_cam(cam_of(view) if upright is None else upright), None
        if upright is not None:
            return selected_cam(upright), selected_cam(cam_of(view.flip(-1)))
        both = cam_of(torch.cat([view, view.flip(-1)])).chunk(2)
        return selected_cam(both[0]), selected_cam(both[1])

    def selected_cam(cam: Tensor) -> Tensor:
        return cam if selected is None else gather_classes(cam, selected)

    return fused_cam((seen(scale) for scale in scales), size)


def scaled_view(image: Tensor, scale: float) -> Tensor:
    """(N, 3, H, W) images at another scale; the images themselves at scale 1."""
    return image if scale == 1.0 else upsample(image, scaled_size(image.shape[-2:], scale))


def fused_cam(
    views: Iterable[tuple[Tensor, Tensor | None]], size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Add up the evidence of all scales at one size, then normalize; see `multi_scale_cam`.

    Args:
        views: Per scale (N, F, h, w) raw evidence of the image, and of its mirror image or None.
        size: (H, W) of the result.

    Returns:
        (N, F, H, W) in [0, 1].
    """
    total: Tensor | None = None
    for upright, mirrored in views:
        cam = upsample(upright, size)
        if mirrored is not None:
            cam = torch.maximum(cam, upsample(mirrored.flip(-1), size))
        cam = cam.relu()
        total = cam if total is None else total.add_(cam)
    if total is None:
        raise ValueError("multi_scale_cam needs at least one scale")
    return normalize_cam(total)
