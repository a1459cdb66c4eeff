"""Draws that do not depend on the device."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.pretend_cuda import pretended
from tests.same_draws import SameDraws

DRAWS: dict[str, Callable[[torch.device], Tensor]] = {
    "rand": lambda device: torch.rand(5, device=device),
    "randperm": lambda device: torch.randperm(5, device=device),
    "rand_like": lambda device: torch.rand_like(torch.zeros(5, device=device)),
    "bernoulli_": lambda device: torch.empty(50, device=device).bernoulli_(0.5),
    "dropout": lambda device: F.dropout(torch.ones(50, device=device), 0.5),
    "dropout2d": lambda device: F.dropout2d(torch.ones(5, 8, 2, 2, device=device), 0.5),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_device_draws_what_the_cpu_draws(name: str) -> None:
    made = []
    with SameDraws(), pretended():
        for device in (torch.device("cpu"), torch.device("cuda", 0)):
            torch.manual_seed(3)
            drawn = DRAWS[name](device)
            assert drawn.device == device
            made.append(drawn.cpu())
    assert torch.equal(*made) and made[0].unique().numel() > 1


def test_whole_maps_are_dropped() -> None:
    with SameDraws():
        maps = F.dropout2d(torch.ones(5, 8, 2, 2), 0.5).flatten(2)
    assert torch.equal(maps, maps[..., :1].expand_as(maps)) and set(maps.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(F.dropout(maps, 0.5, training=False), maps)
