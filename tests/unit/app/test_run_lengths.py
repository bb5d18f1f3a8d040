import numpy as np
import pytest

from tag2mask.app.refusals import RefusedError
from tag2mask.app.run_lengths import decode_runs, encode_runs


def test_runs_cross_the_ends_of_rows():
    mask = np.array([[1, 1, 0], [0, 0, 255]], dtype=np.uint8)
    assert encode_runs(mask) == [1, 2, 0, 3, 255, 1]


@pytest.mark.parametrize("seed", range(20))
def test_decoding_returns_the_mask(seed):
    random = np.random.default_rng(seed)
    mask = random.choice([0, 1, 2, 255], random.integers(1, 9, 2)).astype(np.uint8)
    np.testing.assert_array_equal(decode_runs(encode_runs(mask), mask.shape, 2), mask)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([0, 5], "5 pixels"),
        ([0, 7], "empty or too long"),
        ([0, 6, 1], "not pairs"),
        ([0, 6, 1, 0], "empty"),
        ([0, 7, 1, -1], "empty"),
        ([3, 6], "value 3"),
        ([-1, 6], "value -1"),
        ([0, 2**62, 0, 2**62], "too long"),
        ([0, 1] * 7, "not pairs"),
        ([], "0 pixels"),
    ],
)
def test_runs_that_do_not_fill_the_image_are_refused(runs, reason):
    with pytest.raises(RefusedError, match=reason):
        decode_runs(runs, (2, 3), 2)
