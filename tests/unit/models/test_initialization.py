import threading

import pytest
import torch
from torch import nn

from tag2mask.models.initialization import WithoutDraws

LAYERS = (
    lambda: nn.Conv2d(3, 4, 3),
    lambda: nn.Linear(3, 4),
    lambda: nn.Embedding(3, 4),
    lambda: nn.init.trunc_normal_(torch.empty(3, 4)),
    lambda: nn.init.kaiming_normal_(torch.empty(3, 4)),
    lambda: nn.init.xavier_uniform_(tensor=torch.empty(3, 4)),
)


@pytest.mark.parametrize("build", LAYERS)
def test_nothing_is_drawn_inside(build) -> None:
    before = torch.get_rng_state()
    with WithoutDraws():
        build()
    assert torch.equal(torch.get_rng_state(), before)
    build()
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("found", [1e9, -1e9, float("inf")])
def test_what_memory_holds_never_makes_a_truncated_draw_endless(found) -> None:
    weight = nn.Parameter(torch.full((3, 4), found))
    with WithoutDraws():
        nn.init.trunc_normal_(weight)
    assert (weight == 0).all()


def test_constants_are_still_set() -> None:
    with WithoutDraws():
        norm = nn.BatchNorm2d(3)
        layer = nn.init.constant_(nn.Linear(2, 2).weight, 3.0)
    assert norm.weight.tolist() == norm.running_var.tolist() == [1, 1, 1]
    assert layer.unique().tolist() == [3.0]


def test_other_threads_draw_as_before() -> None:
    drawn = []
    with WithoutDraws():
        thread = threading.Thread(target=lambda: drawn.append(torch.zeros(3).normal_()))
        thread.start()
        thread.join()
    assert drawn[0].abs().min() > 0
