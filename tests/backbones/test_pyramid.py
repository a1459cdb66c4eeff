"""The pyramids against detectron2's and mmsegmentation's on the same weights, and the maps by hand."""

import pytest
import torch
from torch import Tensor, nn

from backbones.pyramid import RescalingNeck, SimpleFeaturePyramid, even_out_indices, fpn_neck


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


@pytest.mark.parametrize("training", [True, False])
def test_neck_equals_mmsegmentation(training: bool) -> None:
    from segmentation.host import MODELS

    # BN: its SyncBN wants processes to share with; alone it is the same
    theirs = MODELS.build(
        {"type": "Feature2Pyramid", "embed_dim": 16, "rescales": [4, 2, 1, 0.5], "norm_cfg": {"type": "BN"}}
    )
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = RescalingNeck(16, norm=nn.BatchNorm2d)
    ours.load_state_dict(theirs.state_dict())  # strict: the names are mmsegmentation's
    theirs.train(training)
    ours.train(training)
    maps = [torch.randn(2, 16, 6, 8, requires_grad=True) for _ in range(4)]
    copies = [map_BDhw.detach().clone().requires_grad_() for map_BDhw in maps]
    made, expected = ours(maps), theirs(copies)
    assert [tuple(level.shape) for level in made] == [(2, 16, *s) for s in ((24, 32), (12, 16), (6, 8), (3, 4))]
    for level, reference in zip(made, expected, strict=True):
        assert torch.equal(level, reference)
    for levels in (made, expected):
        torch.stack([level.square().sum() for level in levels]).sum().backward()
    for map_BDhw, copy in zip(maps, copies, strict=True):
        assert torch.equal(map_BDhw.grad, copy.grad)
    # the running statistics too
    for name, buffer in theirs.named_buffers():
        assert torch.equal(dict(ours.named_buffers())[name], buffer)


def test_neck_of_the_fpn() -> None:
    neck = fpn_neck(64)
    levels = neck([torch.randn(1, 64, 3, 5) for _ in range(4)])
    assert [tuple(level.shape) for level in levels] == [(1, 64, *s) for s in ((12, 20), (6, 10), (3, 5), (1, 2))]
    norms = [module for module in neck.modules() if isinstance(module, nn.GroupNorm)]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(32, 64)]
    with pytest.raises(ValueError, match="3 maps for a pyramid of 4 levels"):
        neck([torch.randn(1, 64, 3, 5)] * 3)


def test_even_out_indices_by_hand() -> None:
    # every d/4 blocks (Li et al. 2021, section 2.1); the global blocks of ViTDet-B, -L and -H
    assert even_out_indices(12) == (2, 5, 8, 11)
    assert even_out_indices(24) == (5, 11, 17, 23)
    assert even_out_indices(32) == (7, 15, 23, 31)
    assert even_out_indices(4) == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="3 blocks have no four quarters; name out_indices"):
        even_out_indices(3)
