"""The losses of masks that are predicted as a set: Hungarian matching, then cross-entropy, BCE and dice.

Mask2Former's (arXiv 2112.01527, section 3.2), which EoMT takes as they are: masks are compared at random points, those
of the losses mostly where the prediction is in doubt (PointRend, arXiv 1912.08193, section 3.1). Everything is float32
or wider, autocast or not. Axis letters: B batch, Q queries, C classes and `no object`, M true masks of an image, N
matched masks of all images, P points, H x W pixels, h x w the grid of predicted masks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

OVERSAMPLED = 3  # random points per point that is kept where a mask is in doubt; Mask2Former, appendix A
IMPORTANT = 0.75  # share of the points that is kept so


class Prediction(NamedTuple):
    """What the queries say of a batch, in float32 or wider."""

    class_BQC: Tensor
    """Logits; the last class is `no object`."""
    mask_BQhw: Tensor
    """Logits."""
    size: tuple[int, int]
    """Height and width in pixels of what the masks lie over."""


class Target(NamedTuple):
    """The classes in one image, a mask each."""

    class_M: Tensor
    mask_MHW: Tensor
    """1 inside and 0 outside."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How the losses are weighed, in matching too."""

    classes: float
    mask: float
    dice: float
    no_object: float
    """Weight of `no object` among the classes of the cross-entropy."""
    points: int
    """Where masks are compared."""


Matches = tuple[Tensor, Tensor]  # numbers of queries, and of the true masks that they are to be
Match = Callable[[Tensor, Tensor, Target, Weights], Matches]  # from class_QC and mask_Qhw of an image


def targets_of(label_BHW: Tensor, ignored: int, *, dtype: torch.dtype) -> list[Target]:
    """Return a mask for every class that an image has."""
    found = []
    for label_HW in label_BHW:
        classes_M = label_HW.unique()
        classes_M = classes_M[classes_M != ignored]
        found.append(Target(classes_M, (label_HW == classes_M[:, None, None]).to(dtype)))
    return found


def mask_losses(
    prediction: Prediction, targets: Sequence[Target], weights: Weights, match: Match | None = None
) -> dict[str, Tensor]:
    """Return the weighted losses of one prediction by mmdetection's names, `loss_cls`, `loss_mask` and `loss_dice`.

    Those of masks are summed and divided by the number of matched masks per process. `match` is `hungarian` unless
    given.
    """
    class_BQC, mask_BQhw, _ = prediction
    with torch.autocast(class_BQC.device.type, enabled=False):
        matches = [
            (match or hungarian)(class_BQC[i].detach(), mask_BQhw[i].detach(), target, weights)
            for i, target in enumerate(targets)
        ]
        true_BQ = class_BQC.new_full(class_BQC.shape[:2], class_BQC.shape[2] - 1, dtype=torch.long)
        for i, ((queries, numbers), target) in enumerate(zip(matches, targets, strict=True)):
            true_BQ[i, queries] = target.class_M[numbers]
        importance_C = class_BQC.new_ones(class_BQC.shape[2])
        importance_C[-1] = weights.no_object
        of_classes = F.cross_entropy(class_BQC.transpose(1, 2), true_BQ, importance_C)
        logits_Nhw = torch.cat([mask_BQhw[i, queries] for i, (queries, _) in enumerate(matches)])
        true_NHW = torch.cat([target.mask_MHW[numbers] for (_, numbers), target in zip(matches, targets, strict=True)])
        places_NP2 = doubtful_points(logits_Nhw.detach(), weights.points)
        logits_NP, true_NP = at_points(logits_Nhw, places_NP2), at_points(true_NHW, places_NP2)
        bce_N = F.binary_cross_entropy_with_logits(logits_NP, true_NP, reduction="none").mean(dim=1)
        found_NP = logits_NP.sigmoid()
        overlap_N = (found_NP * true_NP).sum(dim=1)
        dice_N = 1 - (2 * overlap_N + 1) / (found_NP.sum(dim=1) + true_NP.sum(dim=1) + 1)
        masks = per_process(logits_Nhw.shape[0], like=logits_Nhw)
        return {
            "loss_cls": weights.classes * of_classes,
            "loss_mask": weights.mask * bce_N.sum() / masks,
            "loss_dice": weights.dice * dice_N.sum() / masks,
        }


def hungarian(class_QC: Tensor, mask_Qhw: Tensor, target: Target, weights: Weights) -> Matches:
    """Return the assignment of least cost, each true mask to a query of its own; where there are more masks than
    queries, the best of them."""
    places_1P2 = torch.rand(1, weights.points, 2, dtype=mask_Qhw.dtype, device=mask_Qhw.device)
    logits_QP, true_MP = at_points(mask_Qhw, places_1P2), at_points(target.mask_MHW, places_1P2)
    # the mean of -t log s(x) - (1 - t) log(1 - s(x)) over the points, of every pair
    bce_QM = (F.softplus(logits_QP).sum(dim=1)[:, None] - logits_QP @ true_MP.T) / weights.points
    found_QP = logits_QP.sigmoid()
    overlap_QM = found_QP @ true_MP.T
    dice_QM = 1 - (2 * overlap_QM + 1) / (found_QP.sum(dim=1)[:, None] + true_MP.sum(dim=1) + 1)
    class_QM = -class_QC.softmax(dim=-1)[:, target.class_M]
    cost_QM = weights.mask * bce_QM + weights.classes * class_QM + weights.dice * dice_QM
    worst = torch.finfo(cost_QM.dtype).max  # what is no number is matched last; the loss says that it is none
    queries, numbers = linear_sum_assignment(cost_QM.nan_to_num(worst, worst, worst).cpu().numpy())
    device = class_QC.device
    return torch.as_tensor(queries, device=device), torch.as_tensor(numbers, device=device)


def in_order(class_QC: Tensor, mask_Qhw: Tensor, target: Target, weights: Weights) -> Matches:
    """Return the first query for the first mask, and so on: for tensors without values."""
    number = torch.arange(min(class_QC.shape[0], target.class_M.shape[0]), device=class_QC.device)
    return number, number


def doubtful_points(logits_Nhw: Tensor, points: int) -> Tensor:
    """Return where each mask is compared, (N, P, 2) from 0 to 1: the nearest to 0 of three times as many random points
    for three quarters, and random ones."""
    masks, drawn, kept = logits_Nhw.shape[0], OVERSAMPLED * points, int(IMPORTANT * points)
    like: dict[str, Any] = {"dtype": logits_Nhw.dtype, "device": logits_Nhw.device}
    places = torch.rand(masks, drawn, 2, **like)
    nearest = (-at_points(logits_Nhw, places).abs()).topk(kept, dim=1).indices
    chosen = places.gather(1, nearest[:, :, None].expand(-1, -1, 2))
    return torch.cat([chosen, torch.rand(masks, points - kept, 2, **like)], dim=1)


def at_points(map_NHW: Tensor, places_NP2: Tensor) -> Tensor:
    """Return the values at places (x, y) from 0 to 1, (N, P), bilinear; `places_NP2` may be of one map for all."""
    places = places_NP2.expand(map_NHW.shape[0], -1, -1)
    return F.grid_sample(map_NHW[:, None], 2 * places[:, :, None] - 1, align_corners=False)[:, 0, :, 0]


def per_process(count: int, *, like: Tensor) -> Tensor | int:
    """Return the mean of a count over the processes that train together, at least 1."""
    if not (dist.is_available() and dist.is_initialized()):
        return max(1, count)
    total = like.new_tensor(float(count))
    dist.all_reduce(total)
    return (total / dist.get_world_size()).clamp(min=1)
