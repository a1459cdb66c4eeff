"""MoCo v3 (arXiv 2104.02057, section 3): two views of an image find each other among all images of the batch.

A query is the prediction of the projection of a view by the trained encoder, a key the projection of the other view by
the momentum encoder, whose weights follow the trained ones. The loss is the cross-entropy of finding the own key among
those of the global batch (of all processes), in both directions. The patch projection stays at its random start
(section 4.2) and so does the sin-cos position table. Axis letters: B images of this process, G images of all
processes, D width of the class token, E width of keys.
"""

import copy
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from backbones.normalise import Normalise
from backbones.vit import ViT
from engine.collapse import effective_rank, feature_spread
from engine.training.sync_norm import SyncBatchNorm

Batch = tuple[Tensor, Tensor, list[str]]  # first view, second view, ids


def momentum_at(step: int, *, total: int, first: float) -> float:
    """Return the share of its weights that the momentum encoder keeps at a step, counted from 0.

    It rises by half a cosine from `first` to 1, which it reaches when all `total` steps are done (section 4.1).
    """
    return 1 - 0.5 * (1 + math.cos(math.pi * step / total)) * (1 - first)


@dataclass(frozen=True)
class Contrasted:
    """What became of a batch of pairs of views."""

    loss_B: Tensor
    """Both directions added."""
    class_BD: Tensor
    """Class tokens of the first views by the trained encoder."""


def contrast(query_BE: Tensor, key_GE: Tensor, temperature: float, *, first: int = 0) -> Tensor:
    """Return the loss of each query (B,): 2 * temperature * cross-entropy over the keys of its cosines / temperature.

    Query i belongs to key first + i.
    """
    with torch.autocast(query_BE.device.type, enabled=False):  # bfloat16 cosines have steps of 0.004
        cosine_BG = F.normalize(query_BE.float(), dim=1) @ F.normalize(key_GE.float(), dim=1).T
        own_B = torch.arange(first, first + query_BE.shape[0], device=query_BE.device)
        return 2 * temperature * F.cross_entropy(cosine_BG / temperature, own_B, reduction="none")


def of_all_processes(key_BE: Tensor) -> Tensor:
    """Return the rows of every process, by rank; no gradient flows through them."""
    if not dist.is_initialized():
        return key_BE
    parts = [torch.empty_like(key_BE) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, key_BE.contiguous())
    return torch.cat(parts)


def rank() -> int:
    """Return the number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


class Branch(nn.Module):
    """A ViT and the projector of its class token: three linear layers with batch norm, the last without parameters."""

    def __init__(self, encoder: ViT, *, hidden: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = mlp(encoder.architecture.embed_dim, hidden, hidden, width)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token after the final norm (B, D) and its projection (B, E)."""
        class_BD = self.encoder(image_BCHW)[:, 0]
        return class_BD, self.head(class_BD)


class MoCoV3(nn.Module):
    """Trained branch, momentum branch, predictor and loss."""

    def __init__(
        self,
        encoder: ViT,
        *,
        hidden: int,
        width: int,
        temperature: float,
        freeze_patches: bool,
        normalise: Normalise | None = None,
    ) -> None:
        """`encoder` has a class token. `hidden` is the width inside the two MLPs, `width` that of keys.

        Without `normalise` views are given normalised.
        """
        super().__init__()
        self.normalise = normalise or nn.Identity()
        for parameter in encoder.patch_embed.parameters():
            parameter.requires_grad = not freeze_patches
        self.base = Branch(encoder, hidden=hidden, width=width)
        self.momentum = _copied(self.base).requires_grad_(False)
        self.predictor = mlp(width, hidden, width)
        self.temperature = temperature
        self.watched = True
        """Whether the rank of the features is computed in training, for which a device is waited for."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return {"contrast": scalar} of (first views, second views, ids).

        In training feature_spread and, where it is watched, feature_rank of the class tokens of this process's first
        views stand beside the loss, without a gradient: numbers that fall when features collapse.
        """
        first, second, _ = batch
        if not self.training:
            return {"contrast": self.compare(first, second, everywhere=True).loss_B.mean()}
        made = self.compare(first, second, everywhere=True)
        signs = {"feature_spread": feature_spread(made.class_BD)}
        if self.watched:
            signs["feature_rank"] = effective_rank(made.class_BD)
        return {"contrast": made.loss_B.mean(), **signs}

    def compare(self, first_BCHW: Tensor, second_BCHW: Tensor, *, everywhere: bool) -> Contrasted:
        """Return each image's loss among the images of all processes, or of this one alone."""
        first_BCHW, second_BCHW = self.normalise(first_BCHW), self.normalise(second_BCHW)
        (class_BD, one), (_, other) = self.base(first_BCHW), self.base(second_BCHW)
        with torch.no_grad():
            keys = [self.momentum(view)[1] for view in (first_BCHW, second_BCHW)]
        start = 0
        if everywhere:
            keys, start = [of_all_processes(key) for key in keys], rank() * len(one)
        forth = contrast(self.predictor(one), keys[1], self.temperature, first=start)
        back = contrast(self.predictor(other), keys[0], self.temperature, first=start)
        return Contrasted(forth + back, class_BD)

    @torch.no_grad()
    def follow(self, kept: float) -> None:
        """Move the momentum branch towards the trained one: it keeps a share `kept` of its own weights.

        MoCo v3's code does so in a forward pass, before the keys are made; done after the step before, the keys are
        the same, as both branches start at the same weights.
        """
        blend = get_ema_multi_avg_fn(kept)
        blend(list(self.momentum.parameters()), list(self.base.parameters()), 0)


def initialise_encoder(encoder: ViT) -> None:
    """Set the weights as MoCo v3's code does: Xavier uniform, for queries, keys and values each by itself.

    The class token starts near zero, biases at zero.
    """
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear) and name.endswith("qkv"):
            bound = math.sqrt(6 / (module.weight.shape[0] // 3 + module.weight.shape[1]))
            nn.init.uniform_(module.weight, -bound, bound)
    nn.init.zeros_(encoder.get_parameter("patch_embed.proj.bias"))
    nn.init.normal_(encoder.get_parameter("cls_token"), std=1e-6)


def mlp(*widths: int) -> nn.Sequential:
    """Return linear layers without bias, each with a batch norm over all processes, ReLU between them.

    The batch norm of the last has no parameters.
    """
    parts: list[nn.Module] = []
    for number, (inner, outer) in enumerate(pairwise(widths)):
        last = number == len(widths) - 2
        parts += [nn.Linear(inner, outer, bias=False), SyncBatchNorm(outer, affine=not last)]
        parts += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


def _copied(branch: Branch) -> Branch:
    """Return a branch of the same weights; they are cloned, as fake tensors (engine.memory.plan) have no deep copy."""
    tensors: dict[int, Tensor] = {id(p): nn.Parameter(p.detach().clone()) for p in branch.parameters()}
    tensors |= {id(buffer): buffer.clone() for buffer in branch.buffers()}
    return copy.deepcopy(branch, tensors)
