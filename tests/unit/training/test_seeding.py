import json
import random

import numpy as np
import torch

from tag2mask.training.seeding import preserve_rng, rng_state, seed_all, set_rng_state


def draws():
    return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002


def test_same_seed_gives_the_same_numbers():
    seed_all(3)
    first = draws()
    seed_all(3)
    assert draws() == first


def test_every_seed_and_rank_gives_different_numbers():
    numbers = set()
    for seed in range(3):
        for rank in range(3):
            seed_all(seed, rank)
            numbers.update(draws())
    assert len(numbers) == 27


def test_state_survives_json():
    seed_all(1)
    draws()
    np.random.standard_normal()  # noqa: NPY002 leaves a second number waiting
    random.gauss(0, 1)
    state = json.loads(json.dumps(rng_state()))
    expected = (*draws(), np.random.standard_normal(), random.gauss(0, 1))  # noqa: NPY002
    seed_all(2)
    set_rng_state(state)
    assert (*draws(), np.random.standard_normal(), random.gauss(0, 1)) == expected  # noqa: NPY002


def test_preserved_generators_ignore_draws_in_the_body():
    seed_all(1)
    expected = draws()
    seed_all(1)
    with preserve_rng():
        draws()
    assert draws() == expected
