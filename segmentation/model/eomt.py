"""EoMT (arXiv 2503.19108): learned queries go through the ViT's own last blocks and say a class and a mask each.

No pyramid and no decoder: the mask of a query is the product of what an MLP makes of it with the patches, enlarged by
transposed convolutions. Before each of these blocks a first prediction is made; in training every one has its losses
(mask_losses), and in training's first part a query sees, of the patches, its own mask's alone (masked attention). The
share of queries that do falls to none block by block (mask annealing, section 3.3), so that a trained model runs the
plain ViT.

Follows the authors' code (tue-mps/eomt) for semantic segmentation. It departs in an evaluation amid training: where
the share of a block is neither 1 nor 0, it is rounded to one of them, half up, in place of a draw. Axis letters: B
batch, Q queries, C classes and `no object`, D width, T all tokens, N patches, H x W pixels, h x w a grid of masks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.config import Grid
from backbones.vit import Queries, check_queries
from backbones.weights.normalisation import Normalisation
from segmentation.config import SegmentationConfig
from segmentation.data.labels import IGNORED
from segmentation.host import MODELS, ConfigDict
from segmentation.model.backbone import MAETransferViT
from segmentation.model.mask_losses import Match, Prediction, Target, Weights, mask_losses, targets_of
from segmentation.model.upernet import around_heads

POWER = 0.9  # of the annealing; tue-mps/eomt, training/lightning_module.py


def masked_share(block: int, blocks: int, done: float) -> float:
    """Return the share of queries with masked attention in one of the last `blocks`, `done` being the run's, 0 to 1.

    It falls from 1 to 0 over a sixth of the run as (1 - progress) ** 0.9. The first block begins after a sixth and the
    last ends at five sixths: the steps in all of tue-mps/eomt's configs for DINOv2, of 3 to 5 blocks.
    """
    begin = (1 + (3 * block / (blocks - 1) if blocks > 1 else 0)) / 6
    return (1 - min(1.0, max(0.0, 6 * (done - begin)))) ** POWER


@MODELS.register_module()
class EoMTViT(MAETransferViT):
    """The ViT, its queries, and what reads masks and classes from both."""

    final_norm = True

    def __init__(
        self,
        architecture: Mapping[str, Any],
        *,
        num_classes: int,
        num_queries: int,
        query_blocks: int,
        **settings: Any,
    ) -> None:
        """Build with random weights; `settings` are those of MAETransferViT."""
        super().__init__(architecture, **settings)
        width, patch = self.vit.architecture.embed_dim, self.vit.architecture.patch_size
        check_queries(self.vit.architecture, query_blocks)
        self.query = nn.Parameter(torch.randn(num_queries, width))
        self.class_head = nn.Linear(width, num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        # to a quarter of the image, as near as doubling comes
        self.upscale = nn.Sequential(*[Doubled(width) for _ in range(max(1, int(math.log2(patch)) - 2))])
        self.masked: Tensor
        self.register_buffer("masked", torch.ones(query_blocks))
        self._masked = (1.0,) * query_blocks  # the same as numbers, so that no step waits for a device
        self.register_load_state_dict_post_hook(_read_masked)

    def anneal(self, done: float) -> None:
        """Set the shares of masked attention for a run of which `done`, 0 to 1, is behind; a checkpoint keeps them."""
        blocks = len(self.masked)
        shares = torch.tensor([masked_share(block, blocks, done) for block in range(blocks)])
        self.masked.copy_(shares)
        self._masked = tuple(shares.tolist())  # rounded as a checkpoint has them

    def forward(self, image_BCHW: Tensor) -> tuple[Prediction, ...]:  # type: ignore[override]  # its head reads these
        """Return the predictions before each of the last blocks and after them; those that mask nothing are left out in
        eval mode."""
        found: list[Prediction] = []

        def mask(block: int, x_BTD: Tensor, grid: Grid) -> Tensor | None:
            if not self.training and self._masked[block] < 0.5:
                return None
            found.append(self._predict(x_BTD, grid))
            return self._mask(found[-1].mask_BQhw, grid, x_BTD.shape[1], self._masked[block])

        queries = Queries(query_QD=self.query, blocks=len(self._masked), mask=mask)
        x_BTD, grid = self.vit.with_queries(image_BCHW, queries)
        return (*found, self._predict(x_BTD, grid))

    def _predict(self, x_BTD: Tensor, grid: Grid) -> Prediction:
        """Return what the queries say, given all tokens."""
        x_BTD = self.vit.norm(x_BTD)
        query_BQD = x_BTD[:, : self.query.shape[0]]
        patch_BDhw = x_BTD[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
        mask_BQhw = torch.einsum("bqd,bdhw->bqhw", self.mask_head(query_BQD), self.upscale(patch_BDhw))
        patch = self.vit.architecture.patch_size
        # float32: a bfloat16 logit has three digits
        return Prediction(_wide(self.class_head(query_BQD)), _wide(mask_BQhw), (grid[0] * patch, grid[1] * patch))

    @torch.no_grad()
    def _mask(self, logits_BQhw: Tensor, grid: Grid, tokens: int, share: float) -> Tensor:
        """Return which token may look at which, (B, T, T): a query of the `share` not at patches outside its mask."""
        images, queries = logits_BQhw.shape[:2]
        inside_BQN = F.interpolate(logits_BQhw, size=grid, mode="bilinear").flatten(2) > 0
        if self.training and share < 1:
            free_BQ = torch.rand(images, queries, device=logits_BQhw.device) > share
            inside_BQN |= free_BQ[:, :, None]
        mask_BTT = inside_BQN.new_ones(images, tokens, tokens)
        mask_BTT[:, :queries, -inside_BQN.shape[2] :] = inside_BQN
        return mask_BTT


class Doubled(nn.Module):
    """A map of twice the height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        self.norm = LayerNorm2d(width)

    def forward(self, map_BDhw: Tensor) -> Tensor:
        """Return (B, D, 2 h, 2 w)."""
        return self.norm(self.conv2(F.gelu(self.conv1(map_BDhw))))


@MODELS.register_module()
class EoMTHead(nn.Module):
    """From predictions of queries to scores of pixels, and to losses, with the interface of mmseg's heads."""

    align_corners = False
    ignore_index = IGNORED

    def __init__(self, num_classes: int, **weights: Any) -> None:
        """`weights` are those of `mask_losses.Weights`."""
        super().__init__()
        self.num_classes = self.out_channels = num_classes
        self.weights = Weights(**weights)

    def forward(self, inputs: Sequence[Prediction]) -> Tensor:
        """Return the scores (B, classes, H, W) of all pixels: over the queries, the sum of a class's share times the
        mask's (MaskFormer, arXiv 2107.06278, section 3.4). They are no logits."""
        class_BQC, mask_BQhw, size = inputs[-1]
        with torch.autocast(class_BQC.device.type, enabled=False):
            share_BQC = class_BQC.softmax(dim=-1)[..., :-1]
            mask_BQHW = F.interpolate(mask_BQhw, size=size, mode="bilinear").sigmoid_()
            return torch.einsum("bqc,bqhw->bchw", share_BQC, mask_BQHW)

    def losses(
        self, inputs: Sequence[Prediction], targets: Sequence[Target], match: Match | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of every prediction, those of the blocks before the last with `d0.`, `d1.` in front, as
        mmdetection names them."""
        found: dict[str, Tensor] = {}
        for number, prediction in enumerate(inputs):
            name = "" if number == len(inputs) - 1 else f"d{number}."
            losses = mask_losses(prediction, targets, self.weights, match)
            found |= {f"{name}{loss}": value for loss, value in losses.items()}
        return found

    def loss(
        self, inputs: Sequence[Prediction], batch_data_samples: Sequence[Any], train_cfg: Any
    ) -> dict[str, Tensor]:
        """Return the losses for mmseg's samples."""
        label_BHW = torch.cat([sample.gt_sem_seg.data for sample in batch_data_samples])
        return self.losses(inputs, targets_of(label_BHW, self.ignore_index, dtype=inputs[-1].mask_BQhw.dtype))

    def predict(self, inputs: Sequence[Prediction], batch_img_metas: Sequence[Any], test_cfg: Any) -> Tensor:
        """Return the scores at the size of mmseg's images, padding and all."""
        meta = batch_img_metas[0]
        whole = not isinstance(meta["img_shape"], torch.Size)  # else a window, as mmseg tells them apart
        size = meta["pad_shape" if whole and "pad_shape" in meta else "img_shape"][:2]
        return F.interpolate(self(inputs), size=size, mode="bilinear")


def eomt(config: SegmentationConfig, *, num_classes: int, normalisation: Normalisation) -> ConfigDict:
    """Return the config of an EncoderDecoder whose backbone makes the predictions and whose head reads them."""
    head = config.head
    nodes = around_heads(config, normalisation)
    queries = {"num_classes": num_classes, "num_queries": head.queries, "query_blocks": head.query_blocks}
    return ConfigDict(
        **{**nodes, "backbone": {**nodes["backbone"], "type": EoMTViT.__name__, **queries}},
        decode_head={
            "type": EoMTHead.__name__,
            "num_classes": num_classes,
            "classes": head.class_weight,
            "mask": head.mask_weight,
            "dice": head.dice_weight,
            "no_object": head.no_object_weight,
            "points": head.points,
        },
    )


def _read_masked(vit: EoMTViT, _: Any = None) -> None:
    vit._masked = tuple(vit.masked.tolist())


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
