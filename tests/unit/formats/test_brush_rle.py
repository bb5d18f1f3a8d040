import numpy as np
import pytest

from tag2mask.formats.brush_rle import decode, encode


def bits(code):
    return "".join(f"{byte:08b}" for byte in code)


def test_a_hand_coded_mask():
    # 8 values of 8 bits, counts of 3, 4, 8 or 16 bits; one run of 8 values 255 in 3 bits
    expected = f"{8:032b}" + f"{7:05b}" + "0010" + "0011" + "0111" + "1111"
    expected += "1" + "00" + "111" + "11111111"
    assert bits(encode(np.ones((1, 2), dtype=bool))).startswith(expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (40, 50), (300, 400)])
def test_what_is_encoded_comes_back(size):
    generator = np.random.default_rng(0)
    for mask in (generator.random(size) < 0.3, np.zeros(size, bool), np.ones(size, bool)):
        assert np.array_equal(decode(encode(mask), size), mask)


def test_values_one_by_one_are_read():
    header = f"{8:032b}" + f"{7:05b}" + "0010" + "0011" + "0111" + "1111"
    values = [10, 20, 30, 255, 1, 2, 3, 127]  # opaque, then a soft edge
    text = header + "0" + "00" + "111" + "".join(f"{value:08b}" for value in values)
    text += "0" * (-len(text) % 8)
    code = [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]
    assert decode(code, (1, 2)).tolist() == [[True, False]]


@pytest.mark.parametrize("length", [0, 3, 9])
def test_damaged_code_is_rejected(length):
    code = encode(np.eye(20, dtype=bool))
    with pytest.raises(ValueError, match="it"):
        decode(code[:length], (20, 20))


def test_another_size_is_rejected():
    with pytest.raises(ValueError, match="5x4 px"):
        decode(encode(np.eye(3, dtype=bool)), (4, 5))
