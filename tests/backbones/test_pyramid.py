"""The simple feature pyramid against detectron2's, on the same weights."""

import torch
from torch import Tensor

from backbones.pyramid import SimpleFeaturePyramid


def test_shapes() -> None:
    maps = SimpleFeaturePyramid(16, out_channels=8)(torch.randn(2, 16, 4, 6))
    assert [tuple(m.shape[:2]) for m in maps] == [(2, 8)] * 5
    # four, two, one and half times the input; the last takes every second position of the fourth
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert torch.equal(maps[4], maps[3][:, :, ::2, ::2])


def test_equals_detectron2() -> None:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import SimpleFeaturePyramid as Detectron2Pyramid
    from detectron2.modeling.backbone import Backbone
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    class Passing(Backbone):
        """Gives its input as the last feature map of stride 16."""

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"last_feat": x}

        def output_shape(self) -> dict[str, ShapeSpec]:
            return {"last_feat": ShapeSpec(channels=16, stride=16)}

    theirs = Detectron2Pyramid(
        Passing(), "last_feat", 8, scale_factors=(4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(), norm="LN"
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = SimpleFeaturePyramid(16, out_channels=8)
    ours.load_state_dict(theirs.state_dict())  # strict: the names are detectron2's
    image = torch.randn(2, 16, 6, 8)
    expected = theirs(image)
    assert list(expected) == ["p2", "p3", "p4", "p5", "p6"]
    for made, name in zip(ours(image), expected, strict=True):
        # float32, values of about 1: detectron2 writes its layer norm out by hand, PyTorch's is fused
        torch.testing.assert_close(made, expected[name], rtol=1e-5, atol=2e-5)
