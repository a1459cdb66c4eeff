"""Feature pyramids at 4, 2, 1 and 1/2 times the resolution of a plain ViT's one map.

Axis letters: B batch, D width of the ViT, C channels of the pyramid, h x w patches.
"""

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
