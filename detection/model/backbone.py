"""The ViT as a detectron2 backbone: with ViTDet's simple feature pyramid, or with an FPN over the maps of four blocks.

Both give maps p{log2 stride} at strides of 1/4, 1/2, 1, 2 and 4 patches: p2 to p6 for patches of 16 pixels.

Axis letters: B batch, C channels, H x W pixels.
"""

import math

from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor

from backbones.pyramid import SimpleFeaturePyramid, even_out_indices, fpn_neck
from backbones.vit import ViT
from detection.config import Norm, Pyramid, check_patch
from detection.model.norm import NORMS


class ViTPyramid(Backbone):
    """ViTDet's simple feature pyramid on the last block (arXiv 2203.16527, section 3)."""

    vit_name = "vit"

    def __init__(self, vit: ViT, *, out_channels: int = 256, square_pad: int = 0) -> None:
        """Take a ViT without class token and final norm; images are padded to `square_pad` pixels, 0 for not.

        Raises ValueError for a patch size that is no power of two, or parameters that no gradient reaches.
        """
        super().__init__()
        strides = _strides(vit)
        self.vit = vit
        self.pyramid = SimpleFeaturePyramid(vit.architecture.embed_dim, out_channels=out_channels)
        # the names that detectron2's output_shape() reads
        self._out_features = [f"p{level}" for level in strides]
        self._out_feature_strides = dict(zip(self._out_features, strides.values(), strict=True))
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._square_pad = square_pad

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the five maps by name, (B, out_channels, H / stride, W / stride)."""
        last_block = len(self.vit.blocks) - 1
        (map_BDhw,) = self.vit.feature_maps(image_BCHW, [last_block])
        return dict(zip(self._out_features, self.pyramid(map_BDhw), strict=True))

    @property
    def size_divisibility(self) -> int:
        """Two patches: the coarsest of the four convolved maps has a whole number of cells."""
        return 2 * self.vit.architecture.patch_size

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What `ImageList.from_tensors` reads, under its own spelling of the keys."""
        return {"size_divisibility": self.size_divisibility, "square_size": self._square_pad}


class ViTFPN(FPN):
    """detectron2's FPN over the maps of four evenly spaced blocks, rescaled (Li et al. 2021, arXiv 2111.11429, 2.1)."""

    vit_name = "bottom_up.vit"

    def __init__(self, vit: ViT, *, out_channels: int = 256, square_pad: int = 0, norm: Norm = "batch") -> None:
        """Take what ViTPyramid takes, and raise what it raises; `norm` follows every convolution of the FPN."""
        four = _FourMaps(vit)
        coarsest = LastLevelMaxPool()
        coarsest.in_feature = f"p{list(_strides(vit))[3]}"
        super().__init__(
            bottom_up=four,
            in_features=list(four.output_shape()),
            out_channels=out_channels,
            norm=NORMS[norm],
            top_block=coarsest,
            square_pad=square_pad,
        )

    @property
    def vit(self) -> ViT:
        """The ViT under the FPN."""
        four: _FourMaps = self.bottom_up
        return four.vit


class _FourMaps(Backbone):
    """The last map of each quarter of the blocks at strides of 1/4, 1/2, 1 and 2 patches, channels kept."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        strides = dict(list(_strides(vit).items())[:4])
        width = vit.architecture.embed_dim
        self.vit, self.neck = vit, fpn_neck(width)
        self._out_indices = even_out_indices(vit.architecture.depth)
        self._out_features = [f"map{level}" for level in strides]
        self._out_feature_strides = dict(zip(self._out_features, strides.values(), strict=True))
        self._out_feature_channels = dict.fromkeys(self._out_features, width)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        maps = self.neck(self.vit.feature_maps(image_BCHW, self._out_indices))
        return dict(zip(self._out_features, maps, strict=True))


def pyramid_on(
    vit: ViT, kind: Pyramid, *, out_channels: int, square_pad: int, norm: Norm = "layer"
) -> ViTPyramid | ViTFPN:
    """Return the backbone with the pyramid of that kind; `norm` is that of an FPN."""
    if kind == "sfp":
        return ViTPyramid(vit, out_channels=out_channels, square_pad=square_pad)
    return ViTFPN(vit, out_channels=out_channels, square_pad=square_pad, norm=norm)


def _strides(vit: ViT) -> dict[int, int]:
    """Return the stride of each level. Raises ValueError for a ViT that no pyramid can stand on."""
    patch = vit.architecture.patch_size
    check_patch(patch)
    if vit.cls_token is not None or any(True for _ in vit.norm.parameters()):
        raise ValueError("a dense task has no use for a class token or final norm; build ViT without them.")
    return {int(math.log2(stride)): stride for stride in (patch // 4, patch // 2, patch, patch * 2, patch * 4)}
