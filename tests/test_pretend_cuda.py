"""The device that is not there refuses what a GPU refuses."""

import pytest
import torch
from torch import nn

from tests.pretend_cuda import DEVICE, pretended


def test_tensors_are_made_and_moved_there() -> None:
    with pretended() as device:
        made = (
            torch.zeros(2, device=device),
            torch.tensor([1, 2], device=device),
            torch.ones(2).to(device),
            torch.ones(2).to(torch.zeros(1, device=device)),
            torch.zeros(2, device=device).new_zeros(3),
            torch.ones_like(torch.zeros(2, device=device)),
        )
        assert {x.device for x in made} == {DEVICE} and all(x.is_cuda for x in made)
        back = made[2].half().to("cpu", torch.float64)
        assert back.device.type == "cpu" and back.tolist() == [1, 1] and back.dtype == torch.float64


def test_two_devices_do_not_meet() -> None:
    with pretended() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        for operation in (
            lambda: there + here,
            lambda: here[torch.zeros(1, dtype=torch.long, device=device)],
            lambda: nn.Linear(3, 3)(there),
        ):
            with pytest.raises(RuntimeError, match="to be on the same device"):
                operation()
        with pytest.raises(RuntimeError, match="a generator of cpu for a tensor of cuda"):
            torch.randperm(3, generator=torch.Generator(), device=device)
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            there.numpy()
        # as on a GPU: numbers without axes, copies, and indices of a tensor that is there
        assert (there + torch.tensor(1.0)).device == DEVICE
        assert there.copy_(here).device == there[torch.zeros(1, dtype=torch.long)].device == DEVICE


def test_a_step_there_is_a_step_here() -> None:
    models = [nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(5, 4)
    with pretended() as device:
        models[1].to(device)
        for model, given in zip(models, (x, x.to(device)), strict=True):
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
            model(given).square().sum().backward()
            optimizer.step()
        for here, there in zip(models[0].parameters(), models[1].parameters(), strict=True):
            assert there.grad is not None and there.grad.device == DEVICE
            assert torch.equal(here, there.cpu())
