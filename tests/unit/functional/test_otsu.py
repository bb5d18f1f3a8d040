import numpy as np
import pytest
import torch

from tag2mask.functional.otsu import BINS, otsu_threshold, score_histogram


def slow_otsu(histogram: np.ndarray) -> float:
    """Try every threshold and compute the variance inside both parts."""
    centers = (np.arange(BINS) + 0.5) / BINS
    inside = []
    for step in range(1, BINS):
        parts = [(histogram[:step], centers[:step]), (histogram[step:], centers[step:])]
        inside.append(
            sum(
                (count * (values - (count * values).sum() / max(count.sum(), 1e-12)) ** 2).sum()
                for count, values in parts
            )
        )
    return (1 + int(np.argmin(inside))) / BINS


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_has_the_smallest_variance_inside_both_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.beta(2, 8, 3000), rng.beta(6, 3, 1000)])
    histogram = np.histogram(scores, BINS, (0, 1))[0].astype(np.float32)
    got = otsu_threshold(torch.from_numpy(histogram)).item()
    assert got == pytest.approx(slow_otsu(histogram), abs=1e-6)


def test_the_threshold_ignores_the_number_of_pixels() -> None:
    histogram = torch.rand(BINS)
    torch.testing.assert_close(otsu_threshold(1e6 * histogram), otsu_threshold(histogram))


def test_an_empty_histogram_gives_the_middle() -> None:
    assert otsu_threshold(torch.zeros(BINS)).item() == pytest.approx(0.5)


def test_only_valid_scores_are_counted() -> None:
    scores = torch.tensor([0.0, 0.005, 0.5, 1.0, 0.7])
    counts = score_histogram(scores, torch.tensor([True, True, True, True, False]))
    assert counts.sum() == 4
    assert (counts[0], counts[50], counts[-1]) == (2, 1, 1)
