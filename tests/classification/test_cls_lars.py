"""LARS as the loop builds it, against the update that MAE's linear probing makes, and the recipe that uses it."""

import pytest
import torch

from backbones.param_groups import ParamGroup, head_groups
from classification.recipes import RECIPES
from engine.config import OptimConfig
from engine.training.optim import build_optimizer, set_lr


def mae_update(weight: torch.Tensor, gradient: torch.Tensor, momentum: torch.Tensor, lr: float) -> torch.Tensor:
    """One step by the rule of MAE's appendix A.1: matrices are scaled by 0.001 |w| / |g|, vectors are not."""
    if weight.ndim > 1:
        gradient = gradient * (0.001 * weight.norm() / gradient.norm())
    momentum.mul_(0.9).add_(gradient)
    return weight - lr * momentum


def test_lars_is_maes() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 3)
    optim = OptimConfig(kind="lars", base_lr=0.1, weight_decay=0.0)
    groups: list[ParamGroup] = head_groups(layer, weight_decay=0.0, depth=2)
    optimizer = build_optimizer(groups, optim, peak_lr=2.0)
    expected = {name: p.detach().clone() for name, p in layer.named_parameters()}
    momenta = {name: torch.zeros_like(p) for name, p in expected.items()}
    for step in range(5):
        set_lr(optimizer, lr := 2.0 - 0.3 * step)
        optimizer.zero_grad()
        layer(torch.randn(8, 6)).square().sum().backward()
        for name, p in layer.named_parameters():
            assert p.grad is not None
            expected[name] = mae_update(expected[name], p.grad.clone(), momenta[name], lr)
        optimizer.step()
        for name, p in layer.named_parameters():
            # float32; timm adds 1e-8 to a denominator of about 10
            torch.testing.assert_close(p.detach(), expected[name], rtol=1e-5, atol=1e-6)


def test_recipe_of_linear_probing_is_the_released_code() -> None:
    """`main_linprobe.py`: batch 512 on 32 GPUs, --blr 0.1 --weight_decay 0.0 --epochs 90, 10 of warm-up."""
    config = RECIPES["mae_base_linear"]()
    run = config.run
    assert (run.batch_size, run.length.value, run.schedule.warmup.value) == (16384, 90, 10)
    assert run.optim.lr(16384) == pytest.approx(6.4)
    assert (run.optim.kind, run.optim.weight_decay, config.head_std) == ("lars", 0.0, 0.01)
    assert (config.protocol, config.pooling, config.augment.label_smoothing) == ("linear", "class", 0.0)
