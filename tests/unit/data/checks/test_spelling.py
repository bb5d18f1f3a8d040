import random
from string import ascii_lowercase

from tag2mask.data.checks.spelling import _typos, probable_typos, spelling_variants


def _oracle(first: str, second: str) -> int:
    """Optimal string alignment by its recursion, without a table."""
    if not first or not second:
        return len(first) + len(second)
    costs = [
        _oracle(first[1:], second) + 1,
        _oracle(first, second[1:]) + 1,
        _oracle(first[1:], second[1:]) + (first[0] != second[0]),
    ]
    if first[:2] == second[1::-1] and len(first) > 1 and len(second) > 1:
        costs.append(_oracle(first[2:], second[2:]) + 1)
    return min(costs)


def test_typos_are_counted_as_by_the_recursion():
    rng = random.Random(1)
    for _ in range(150):
        first, second = ("".join(rng.choices("abc", k=rng.randint(0, 5))) for _ in range(2))
        assert _typos(first, second) == _oracle(first, second), (first, second)


def test_rare_tags_near_frequent_ones_are_typos():
    counts = {
        "dog": 40, "dgo": 1, "cat": 30, "cats": 2, "rat": 2, "diningtable": 9, "dinningtabel": 1,
        "person": 50, "persn": 3, "horse": 2, "house": 2, "variety 12": 30, "variety 13": 1,
    }  # fmt: skip
    assert probable_typos(counts) == {"dgo": "dog", "cats": "cat", "dinningtabel": "diningtable"}


def test_typos_are_those_of_comparing_all_pairs():
    rng = random.Random(2)
    words = {"".join(rng.choices(ascii_lowercase[:4], k=rng.randint(5, 11))) for _ in range(150)}
    counts = {word: rng.choice((1, 2, 5, 40)) for word in words}
    found = probable_typos(counts)
    for rare, number in counts.items():
        near = [
            other
            for other, many in counts.items()
            if many >= max(3, 3 * number)
            and _typos(rare, other) <= (2 if min(len(rare), len(other)) >= 8 else 1)
        ]
        assert (rare in found) == (number <= 2 and bool(near)), rare


def test_tags_that_differ_in_case_or_spaces_are_one_group():
    counts = dict.fromkeys(("Traffic Light", "traffic_light", "cow", "Cow", "dog"), 1)
    groups = spelling_variants(counts)
    assert sorted(groups) == [("Cow", "cow"), ("Traffic Light", "traffic_light")]
