"""Feature pyramids at 4, 2, 1 and 1/2 times the resolution of a plain ViT's maps.

Axis letters: B batch, D width of the ViT, C channels of the pyramid, h x w patches.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn


class NormedConv2d(nn.Conv2d):
    """Convolution without bias, then layer norm over channels; parameters `weight` and `norm.*` as in detectron2."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = LayerNorm2d(out_channels, eps=1e-6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, out_channels, H, W)."""
        return self.norm(super().forward(x_BCHW))


class SimpleFeaturePyramid(nn.Module):
    """ViTDet's pyramid from the last map alone, no top-down path (arXiv 2203.16527, section 3).

    Parameter names are detectron2's (`simfp_2.0.weight`, ...), so its checkpoints fit. A fifth, coarsest level is the
    finest max-pooling of the fourth, for the region proposals.
    """

    scales = (4.0, 2.0, 1.0, 0.5)

    def __init__(self, embed_dim: int, *, out_channels: int = 256) -> None:
        super().__init__()
        half, quarter = embed_dim // 2, embed_dim // 4
        resamplers: list[tuple[list[nn.Module], int]] = [
            (
                [
                    nn.ConvTranspose2d(embed_dim, half, kernel_size=2, stride=2),
                    LayerNorm2d(half, eps=1e-6),
                    nn.GELU(),
                    nn.ConvTranspose2d(half, quarter, kernel_size=2, stride=2),
                ],
                quarter,
            ),
            ([nn.ConvTranspose2d(embed_dim, half, kernel_size=2, stride=2)], half),
            ([], embed_dim),
            ([nn.MaxPool2d(kernel_size=2, stride=2)], embed_dim),
        ]
        for level, (resampler, width) in enumerate(resamplers, start=2):
            lateral = NormedConv2d(width, out_channels, kernel_size=1)
            output = NormedConv2d(out_channels, out_channels, kernel_size=3)
            self.add_module(f"simfp_{level}", nn.Sequential(*resampler, lateral, output))

    def forward(self, map_BDhw: Tensor) -> list[Tensor]:
        """Return five maps (B, C, ., .) at 4, 2, 1, 1/2 and 1/4 times the resolution of the input."""
        maps = [self.get_submodule(f"simfp_{level}")(map_BDhw) for level in (2, 3, 4, 5)]
        return [*maps, F.max_pool2d(maps[-1], kernel_size=1, stride=2)]


class RescalingNeck(nn.Module):
    """The maps of four blocks of a ViT made a pyramid, channels kept: BEiT's for UPerNet, and Li et al.'s for FPN.

    Both (arXiv 2106.08254, appendix; arXiv 2111.11429, section 2.1, after XCiT) rescale the maps by 4, 2, 1 and 1/2
    and differ in the one norm: batch norm, or group norm. Parameter names are those of mmsegmentation's
    Feature2Pyramid (`upsample_4x.0.weight`, ...).
    """

    scales = (4.0, 2.0, 1.0, 0.5)

    def __init__(self, embed_dim: int, *, norm: Callable[[int], nn.Module]) -> None:
        """`norm` makes the norm between the two steps of the finest level from a number of channels."""
        super().__init__()
        self.upsample_4x = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2),
            norm(embed_dim),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2),
        )
        self.upsample_2x = nn.Sequential(nn.ConvTranspose2d(embed_dim, embed_dim, kernel_size=2, stride=2))
        self.identity = nn.Identity()
        self.downsample_2x = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, maps_BDhw: Sequence[Tensor]) -> list[Tensor]:
        """Return four maps (B, D, ., .) from four, finest first. Raises ValueError for another number of them."""
        if len(maps_BDhw) != len(self.scales):
            raise ValueError(f"{len(maps_BDhw)} maps for a pyramid of {len(self.scales)} levels.")
        levels = (self.upsample_4x, self.upsample_2x, self.identity, self.downsample_2x)
        return [level(map_BDhw) for level, map_BDhw in zip(levels, maps_BDhw, strict=True)]


def fpn_neck(embed_dim: int) -> RescalingNeck:
    """Return the neck before the FPN of Li et al. 2021, with PyTorch's usual 32 groups: the paper names no number."""
    return RescalingNeck(embed_dim, norm=partial(nn.GroupNorm, 32))


def even_out_indices(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter, 0-based: out_indices of Li et al. (2, 5, 8, 11 of 12).

    BEiT's and MAE's segmentation take others, 3, 5, 7, 11 of 12. Raises ValueError for fewer than four blocks.
    """
    if depth < 4:
        raise ValueError(f"{depth} blocks have no four quarters; name out_indices.")
    return tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
