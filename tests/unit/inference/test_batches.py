"""Images of like size come together, in bounded windows; results get their order back."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.errors import DataError
from tag2mask.inference import batches
from tag2mask.inference.batches import (
    ImageInput,
    Input,
    Numbered,
    group_by_size,
    in_order,
    read_groups,
    run_ahead,
)
from tag2mask.types import Image

Size = tuple[int, int]


def blank(size: Size) -> ImageInput:
    """A black image whose name says its size."""
    return ImageInput(np.zeros((*size, 3), dtype=np.uint8), None, f"{size}")


def numbered(sizes: list[Size | None]) -> list[Numbered]:
    """Images of these sizes; None is one that cannot be read."""
    return [
        Numbered(at, str(at), DataError("broken") if size is None else blank(size))
        for at, size in enumerate(sizes)
    ]


def own_size(image: Image) -> Size | None:
    """The working size of images that are not resized; those 9 pixels high share no pass."""
    return None if image.shape[0] == 9 else (image.shape[0], image.shape[1])


def positions(groups: Iterator[list[Numbered]]) -> list[list[int]]:
    return [[one.position for one in group] for group in groups]


def test_images_of_one_size_come_together_and_others_alone() -> None:
    window = numbered([(4, 6), (6, 4), None, (4, 6), (9, 9), (9, 9), (4, 6), (6, 4), None])
    found = positions(group_by_size(window, 2, own_size))
    assert found == [[0, 3], [6], [1, 7], [2], [4], [5], [8]]


def test_a_batch_size_of_1_keeps_the_order() -> None:
    window = numbered([(4, 6), (6, 4), None, (4, 6)])
    assert positions(group_by_size(window, 1, own_size)) == [[0], [1], [2], [3]]


def test_large_images_share_a_pass_in_smaller_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PASS_PIXELS", 48)
    window = numbered([(4, 6)] * 3 + [(8, 8)] * 2)  # 24 and 64 pixels
    assert positions(group_by_size(window, 8, own_size)) == [[0, 1], [2], [3], [4]]


@given(
    st.lists(st.sampled_from([(4, 6), (6, 4), (5, 5), (9, 9), None]), max_size=40),
    st.integers(1, 8),
)
def test_every_image_comes_once_and_gets_its_place_back(
    sizes: list[Size | None], batch_size: int
) -> None:
    inputs: list[Input] = [(one.name, one.one) for one in numbered(sizes)]
    groups = list(read_groups(inputs, batch_size, own_size))
    for group in groups:
        assert len(group) <= batch_size
        assert len({sizes[one.position] for one in group}) == 1
    found = in_order((one.position, one.name) for group in groups for one in group)
    assert list(found) == [str(at) for at in range(len(sizes))]


def test_values_that_come_in_order_do_not_wait() -> None:
    passed = []

    def values() -> Iterator[tuple[int, str]]:
        for position, value in ((0, "a"), (2, "c"), (1, "b")):
            passed.append(value)
            yield position, value

    found = in_order(values())
    assert next(found) == "a"
    assert passed == ["a"]
    assert list(found) == ["b", "c"]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(4, 6)] * 10, [8, 2]),
        ([(20, 20)] * 4, [3, 1]),  # 400 pixels each, 1000 end a window
        ([(4, 6), (40, 40), (4, 6)], [2, 1]),  # a large image ends its window
    ],
)
def test_a_window_ends_with_its_length_its_pixels_or_a_large_image(
    monkeypatch: pytest.MonkeyPatch, sizes: list[Size], expected: list[int]
) -> None:
    monkeypatch.setattr(batches, "WINDOW_PIXELS", 1000)
    monkeypatch.setattr(batches, "is_large", lambda size: size[0] == 40)
    read = 0
    read_by_then = []

    def inputs() -> Iterator[Input]:
        nonlocal read
        for at, size in enumerate(sizes):
            read += 1
            yield str(at), blank(size)

    def size_of(image: Image) -> Size:
        read_by_then.append(read)
        return (4, 6)

    total = sum(len(group) for group in read_groups(inputs(), 2, size_of))
    assert total == len(sizes)
    # The first size is asked for when the first window is read, and at most the second besides.
    assert expected[0] <= read_by_then[0] <= expected[0] + expected[1]
    if sizes[1] == (40, 40):
        assert read_by_then[0] == expected[0]


def test_the_next_value_is_computed_meanwhile_unless_it_must_wait() -> None:
    for waits in (False, True):
        began = [threading.Event() for _ in range(2)]

        def values(began: list[threading.Event] = began) -> Iterator[int]:
            for at, event in enumerate(began):
                event.set()
                yield at

        found = run_ahead(values(), lambda _, waits=waits: waits)  # type: ignore[misc]
        assert next(found) == 0
        assert began[1].wait(0.2 if waits else 20) is not waits
        assert list(found) == [1]
