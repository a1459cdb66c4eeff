"""Optimizer groups: those of equal settings are one, and take the steps that they took apart."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.param_groups import ParamGroup
from engine.config import OptimConfig
from engine.training.optim import build_optimizer, set_lr
from engine.training.resume import Trained


def layers() -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(3, 3) for _ in range(3)]


def groups(parts: list[nn.Linear], scales: tuple[float, ...]) -> list[ParamGroup]:
    """Weights and biases of each layer, as a ViT has them."""
    found = []
    for number, (part, scale) in enumerate(zip(parts, scales, strict=True)):
        for name, decay in (("weight", 0.1), ("bias", 0.0)):
            found.append(
                ParamGroup(
                    layer=number,
                    lr_scale=scale,
                    weight_decay=decay,
                    names=(f"{number}.{name}",),
                    params=(getattr(part, name),),
                )
            )
    return found


@pytest.mark.parametrize(
    ("scales", "kind", "sizes"),
    [
        ((1.0, 1.0, 1.0), "adamw", [3, 3]),
        ((0.5, 0.5, 1.0), "adamw", [2, 2, 1, 1]),
        ((0.25, 0.5, 1.0), "adamw", [1] * 6),
        ((1.0, 1.0, 1.0), "lars", [3, 3]),  # matrices are scaled, vectors not
    ],
)
def test_groups_of_equal_settings_are_one(scales: tuple[float, ...], kind: str, sizes: list[int]) -> None:
    optim = OptimConfig(kind=kind, base_lr=1e-3, base_batch_size=1)  # type: ignore[arg-type]
    made = build_optimizer(groups(layers(), scales), optim, peak_lr=1e-3)
    assert [len(group["params"]) for group in made.param_groups] == sizes
    set_lr(made, 0.2)
    assert {group["lr"] for group in made.param_groups} == {0.2 * scale for scale in scales}


def test_they_step_as_they_did_apart() -> None:
    optim = OptimConfig(base_lr=1e-2, base_batch_size=1)
    together, apart = layers(), layers()
    merged = build_optimizer(groups(together, (1.0, 1.0, 1.0)), optim, peak_lr=1e-2)
    single = [build_optimizer([one], optim, peak_lr=1e-2) for one in groups(apart, (1.0, 1.0, 1.0))]
    for _ in range(3):
        for parts in (together, apart):
            x = torch.ones(2, 3)
            for part in parts:
                x = part(x).tanh()
            x.sum().backward()
        for optimizer in (merged, *single):
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_a_checkpoint_of_other_groups_is_refused_with_the_way_out(tmp_path: Path) -> None:
    optim = OptimConfig(base_lr=1e-2, base_batch_size=1)
    model = nn.ModuleList(layers())
    parts = [*model]
    before = build_optimizer(groups(parts, (0.25, 0.5, 1.0)), optim, peak_lr=1e-2)  # type: ignore[arg-type]
    now = build_optimizer(groups(parts, (1.0, 1.0, 1.0)), optim, peak_lr=1e-2)  # type: ignore[arg-type]
    state = {"model": model.state_dict(), "optimizer": before.state_dict()}
    message = (
        "step-1.pt: its optimizer is of another model, or of a version that grouped parameters otherwise (CHANGELOG"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Trained(model=model, optimizer=now).restore(state, tmp_path / "step-1.pt")
