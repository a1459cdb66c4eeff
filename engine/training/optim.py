"""The optimiser from a task's parameter groups, and its table for people."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.optim import Lars
from torch.optim import AdamW, Optimizer

from backbones.param_groups import ParamGroup
from engine.config import OptimConfig


def build_optimizer(
    groups: Sequence[ParamGroup], optim: OptimConfig, *, peak_lr: float, scaled_loss: bool = False
) -> Optimizer:
    """Return the optimiser over the groups; each torch group carries `lr_scale`, its share of the schedule's learning
    rate.

    Groups of equal settings are one, so that a step launches as few kernels as can be.

    `scaled_loss` says that a gradient scaler (float16) must be able to unscale the gradients before the step.
    """
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for g in groups:
        group = {"lr": peak_lr * g.lr_scale, "lr_scale": g.lr_scale, "weight_decay": g.weight_decay}
        if optim.kind == "lars":
            # matrices alone are scaled, also without weight decay: MAE's util/lars.py
            group["always_adapt"] = all(parameter.ndim > 1 for parameter in g.params)
        merged.setdefault(tuple(group.values()), {"params": [], **group})["params"] += g.params
    settings = list(merged.values())
    if optim.kind == "lars":
        return Lars(settings, lr=peak_lr, momentum=optim.betas[0], trust_coeff=0.001)
    # fused: one kernel instead of a dozen elementwise passes, but it unscales gradients only within the step
    return AdamW(settings, lr=peak_lr, betas=optim.betas, fused=not scaled_loss)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate to `lr` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def group_table(groups: Sequence[ParamGroup], peak_lr: float) -> list[str]:
    """Return lines `layer, peak lr, weight decay, tensors, parameters`, one per group."""
    lines = [f"{'layer':>5}  {'peak lr':>9}  {'weight decay':>12}  {'tensors':>7}  {'parameters':>12}"]
    for g in groups:
        count = sum(p.numel() for p in g.params)
        lines.append(
            f"{g.layer:>5}  {peak_lr * g.lr_scale:>9.3g}  {g.weight_decay:>12g}  {len(g.params):>7}  {count:>12,}"
        )
    return lines
