"""Linear classifiers on cached features, one per learning rate, all trained in one pass over the features.

Features are standardised by the mean and std of the training images, which is what the batch norm of MAE's probe
comes to. Every classifier sees the same batches: SGD with momentum 0.9, no weight decay, a cosine to zero. The learning
rate is chosen on training images held out from the sweep; the validation images choose nothing. All is computed where
the features are. Axis letters: L learning rates, B batch, D width, C classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.config import ScheduleConfig
from engine.training.schedule import lr_factor

LRS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # at a batch of 256
MOMENTUM = 0.9
EPS = 1e-6
HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The outcome of every learning rate."""

    lrs: tuple[float, ...]
    held_out_top1: tuple[float, ...]
    """Percent, by learning rate, on the training images that the learning rate is chosen on."""
    top1: tuple[float, ...]
    """Percent, by learning rate, on the validation images; to be looked at, not chosen by."""
    chosen: int
    predictions_VK: Tensor
    """Likeliest classes of the validation images by the chosen learning rate, (V, min(5, C))."""


def sweep(
    train_ND: Tensor,
    label_N: Tensor,
    val_VD: Tensor,
    val_label_V: Tensor,
    *,
    classes: int,
    epochs: int = 100,
    batch_size: int = 256,
    lrs: tuple[float, ...] = LRS,
    seed: int = 0,
) -> Sweep:
    """Return the outcome of the sweep. Raises ValueError for too few images to hold any out."""
    if len(train_ND) < 2:
        raise ValueError(f"{len(train_ND)} training images: a learning rate cannot be chosen on held-out ones.")
    generator = torch.Generator().manual_seed(seed)
    mean, std = train_ND.mean(dim=0), train_ND.var(dim=0, unbiased=False).add(EPS).sqrt()
    train_ND, val_VD = (train_ND - mean) / std, (val_VD - mean) / std
    order_N = torch.randperm(len(train_ND), generator=generator).to(train_ND.device)
    held = max(1, round(HELD_OUT * len(train_ND)))
    held_H, kept_M = order_N[:held], order_N[held:]
    batch = min(batch_size, len(kept_M))
    weight_LDC, bias_L1C = _train(
        train_ND[kept_M],
        label_N[kept_M],
        peak_L=torch.tensor(lrs, device=train_ND.device) * (batch / 256),
        classes=classes,
        epochs=epochs,
        batch=batch,
        generator=generator,
    )
    held_top1 = _top1(_logits(train_ND[held_H], weight_LDC, bias_L1C), label_N[held_H])
    logits_LVC = _logits(val_VD, weight_LDC, bias_L1C)
    chosen = held_top1.index(max(held_top1))
    return Sweep(
        lrs=lrs,
        held_out_top1=tuple(held_top1),
        top1=tuple(_top1(logits_LVC, val_label_V)),
        chosen=chosen,
        predictions_VK=logits_LVC[chosen].topk(min(5, classes), dim=1).indices,
    )


def _train(
    x_MD: Tensor,
    label_M: Tensor,
    *,
    peak_L: Tensor,
    classes: int,
    epochs: int,
    batch: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return weights (L, D, C) and biases (L, 1, C), by hand: the gradient of cross-entropy is known."""
    lrs, schedule = len(peak_L), ScheduleConfig(kind="cosine")
    weight_LDC = x_MD.new_zeros(lrs, x_MD.shape[1], classes)
    bias_L1C = x_MD.new_zeros(lrs, 1, classes)
    momenta = torch.zeros_like(weight_LDC), torch.zeros_like(bias_L1C)
    steps_per_epoch = len(x_MD) // batch
    total = epochs * steps_per_epoch
    for epoch in range(epochs):
        order_M = torch.randperm(len(x_MD), generator=generator).to(x_MD.device)
        for number in range(steps_per_epoch):
            chosen_B = order_M[number * batch : (number + 1) * batch]
            x_BD, target_BC = x_MD[chosen_B], F.one_hot(label_M[chosen_B], classes)
            error_LBC = (_logits(x_BD, weight_LDC, bias_L1C).softmax(dim=2) - target_BC) / batch
            step = epoch * steps_per_epoch + number
            lr_L11 = peak_L[:, None, None] * lr_factor(schedule, step, total_steps=total, warmup_steps=0)
            gradients = x_BD.T @ error_LBC, error_LBC.sum(dim=1, keepdim=True)
            for values, momentum, gradient in zip((weight_LDC, bias_L1C), momenta, gradients, strict=True):
                momentum.mul_(MOMENTUM).add_(gradient)
                values.sub_(lr_L11 * momentum)
    return weight_LDC, bias_L1C


def _logits(x_BD: Tensor, weight_LDC: Tensor, bias_L1C: Tensor) -> Tensor:
    return x_BD @ weight_LDC + bias_L1C


def _top1(logits_LVC: Tensor, label_V: Tensor) -> list[float]:
    return (100 * (logits_LVC.argmax(dim=2) == label_V).double().mean(dim=1)).tolist()
