"""One step of AEFT with GPP, plane by plane, from Specification 4.1; slow."""

import torch
from tests.reference.step_network import multi_label, resize
from torch import Tensor

EPS = 1e-5


def shifted(plane: Tensor, dy: int, dx: int) -> Tensor:
    """The neighbor at (dy, dx) of every pixel, 0 outside."""
    height, width = plane.shape
    padded = torch.nn.functional.pad(plane, (1, 1, 1, 1))
    return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def convolved(planes: list[Tensor], kernel: Tensor) -> Tensor:
    """3 x 3 convolution of D planes with a (D, 3, 3) kernel."""
    out = torch.zeros_like(planes[0])
    for plane, taps in zip(planes, kernel, strict=True):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                out = out + taps[dy + 1, dx + 1] * shifted(plane, dy, dx)
    return out


def region_means(plane: Tensor, side: int) -> Tensor:
    height, width = plane.shape
    rows = []
    for i in range(side):
        top, bottom = i * height // side, -(-(i + 1) * height // side)
        row = []
        for j in range(side):
            left, right = j * width // side, -(-(j + 1) * width // side)
            row.append(plane[top:bottom, left:right].mean())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def gate(coarse: list[Tensor], fine: list[Tensor], kernel: Tensor) -> list[Tensor]:
    """Eq. 4: sigmoids of convolutions of both levels, for each sign."""
    blend = [torch.zeros_like(plane) for plane in fine]
    for sign, kernels in ((1, kernel[:2]), (-1, kernel[2:])):
        x = [torch.relu(sign * plane) for plane in coarse]
        y = [torch.relu(sign * plane) for plane in fine]
        for_x, for_y = (torch.sigmoid(convolved([*x, *y], one)) for one in kernels)
        for k in range(len(blend)):
            blend[k] = blend[k] + sign * 0.5 * (for_x * x[k] + for_y * y[k])
    return blend


def attention(cam: list[Tensor], kernels: list[Tensor], levels: tuple[int, ...]) -> list[Tensor]:
    size = cam[0].shape
    pyramid = [[resize(region_means(plane, k), size) for plane in cam] for k in levels]
    blend = pyramid[0]
    for fine, kernel in zip(pyramid[1:], kernels, strict=True):
        blend = gate(blend, fine, kernel)
    return blend


def score(f: Tensor, p: Tensor) -> Tensor:
    """Eq. 5."""
    agree = (torch.relu(f) * torch.relu(p)).mean()
    return agree - (torch.relu(-f) * torch.relu(-p)).mean()


def stretched(plane: Tensor) -> Tensor:
    positive = torch.relu(plane)
    positive = positive - positive.min()
    return positive / (positive.max() + EPS)


def erasing_map(cam: list[Tensor], tags: list[float], size: tuple[int, int], high: float) -> Tensor:
    """m = c_fg where c_fg < t_H, else 0; c_fg over present classes, at image size."""
    strongest = torch.zeros(size, dtype=torch.float64)
    for plane, tag in zip(cam, tags, strict=True):
        if tag:
            strongest = torch.maximum(strongest, stretched(resize(torch.relu(plane), size)))
    return torch.where(strongest < high, strongest, torch.zeros_like(strongest))


def mean_embedding(attended: list[Tensor], tags: list[float]) -> Tensor:
    return torch.stack(
        [torch.relu(plane).mean() * tag for plane, tag in zip(attended, tags, strict=True)]
    )


def region_embedding(
    attended: list[Tensor], cam: list[Tensor], tags: list[float], below: float
) -> Tensor:
    """Mean of P / max|P| where the normalized CAM is below a threshold, times the tags."""
    values = []
    for plane, f, tag in zip(attended, cam, tags, strict=True):
        scaled = plane / (plane.abs().max() + EPS)
        inside = stretched(f) < below
        values.append(tag * scaled[inside].mean() if inside.any() else 0 * scaled.sum())
    return torch.stack(values)


def distances(anchors: list[Tensor], others: list[Tensor], tags: Tensor) -> list[Tensor]:
    """Squared distance of each anchor to the only image that shares no class with it."""
    found = []
    for i, anchor in enumerate(anchors):
        disjoint = [j for j in range(len(tags)) if not (tags[i] * tags[j]).any()]
        assert len(disjoint) <= 1, "the draw is not random"
        found += [((anchor - others[j]) ** 2).sum() for j in disjoint]
    return found


def losses(
    cams: list[list[Tensor]],
    second_cams: list[list[Tensor]],
    tags: Tensor,
    kernels: list[Tensor],
    settings: dict,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The weighted losses of a late step, and the distances of the pairs.

    Args:
        cams: Signed maps of each image.
        second_cams: Those of each erased image.
        tags: (N, F).
        kernels: Of each gate.
        settings: levels, num_classified, low_threshold, margin.
    """
    attended = [attention(cam, kernels, settings["levels"]) for cam in cams]
    logits = torch.stack(
        [
            torch.stack([score(f, p) for f, p in zip(cam, one, strict=True)])
            for cam, one in zip(cams, attended, strict=True)
        ]
    )
    used = settings["num_classified"]
    rows = tags.tolist()
    anchor = [mean_embedding(one, row) for one, row in zip(attended, rows, strict=True)]
    second = [attention(cam, kernels, settings["levels"]) for cam in second_cams]
    positive = [mean_embedding(one, row) for one, row in zip(second, rows, strict=True)]
    attraction = torch.stack([(p - a).abs() for p, a in zip(positive, anchor, strict=True)]).mean()
    low = [
        region_embedding(one, cam, row, settings["low_threshold"])
        for one, cam, row in zip(attended, cams, rows, strict=True)
    ]
    whole = [
        region_embedding(one, cam, row, 1.0)
        for one, cam, row in zip(attended, cams, rows, strict=True)
    ]
    pairs = distances(low, whole, tags)
    hard = [settings["margin"] - pair for pair in pairs if pair < settings["margin"]]
    weighted = {
        "classification": multi_label(logits[:used], tags[:used]),
        "attraction": 0.2 * attraction,
        "repulsion": 0.15 * sum(hard) / len(hard),
    }
    return weighted, pairs
