"""The ViT with ViTDet's simple feature pyramid (arXiv 2203.16527, section 3) as a detectron2 backbone.

Axis letters: B batch, C channels, H x W pixels.
"""

import math

from detectron2.modeling.backbone import Backbone
from torch import Tensor

from backbones.pyramid import SimpleFeaturePyramid
from backbones.vit import ViT


class ViTPyramid(Backbone):
    """Maps p{log2 stride} at strides of 1/4, 1/2, 1, 2 and 4 patches: p2 to p6 for patches of 16 pixels."""

    def __init__(self, vit: ViT, *, out_channels: int = 256, square_pad: int = 0) -> None:
        """Take a ViT without class token and final norm; images are padded to `square_pad` pixels, 0 for not.

        Raises ValueError for a patch size that is no power of two, or parameters that no gradient reaches.
        """
        super().__init__()
        patch = vit.architecture.patch_size
        if patch < 4 or patch & (patch - 1):
            raise ValueError(f"patch_size {patch} makes no pyramid of strides 2 ** level; take 8 or 16.")
        if vit.cls_token is not None or any(True for _ in vit.norm.parameters()):
            raise ValueError("a dense task has no use for a class token or final norm; build ViT without them.")
        self.vit = vit
        self.pyramid = SimpleFeaturePyramid(vit.architecture.embed_dim, out_channels=out_channels)
        strides = [patch // 4, patch // 2, patch, patch * 2, patch * 4]
        # the names that detectron2's output_shape() reads
        self._out_features = [f"p{int(math.log2(stride))}" for stride in strides]
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))
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
