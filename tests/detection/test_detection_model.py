"""The detector: strides and names of its maps, padding, losses that reach every parameter, mixed precision."""

from typing import Any

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, ImageList, Instances

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from detection.config import HeadsConfig
from detection.model.backbone import ViTPyramid
from detection.model.detector import Detector
from detection.model.mask_rcnn import mask_rcnn

SMALL = HeadsConfig(
    channels=16,
    rpn_convs=2,
    box_convs=1,
    box_width=32,
    mask_convs=1,
    anchor_scale=6.0,
    rpn_samples=16,
    roi_samples=16,
    pre_nms=(50, 50),
    post_nms=(20, 20),
    score_threshold=0.0,
)


def make_backbone(patch: int = 8, *, square_pad: int = 64) -> ViTPyramid:
    architecture = ViTConfig(embed_dim=32, depth=2, num_heads=2, patch_size=patch, image_size=(64, 64))
    vit = ViT(architecture, class_token=False, final_norm=False)
    return ViTPyramid(vit, out_channels=16, square_pad=square_pad)


def make_detector(*, masks: bool = True) -> Detector:
    torch.manual_seed(0)
    return mask_rcnn(
        make_backbone(),
        heads=SMALL,
        num_classes=3,
        masks=masks,
        normalisation=Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)),
    )


def make_batch(boxes: list[list[float]], *, masks: bool = True, images: int = 2) -> list[dict[str, Any]]:
    """Noise images with the same objects in each, the masks filling the boxes."""
    batch = []
    for number in range(images):
        instances = Instances((64, 48))
        instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
        instances.gt_classes = torch.arange(len(boxes)) % 3
        if masks:
            filled = torch.zeros(len(boxes), 64, 48, dtype=torch.bool)
            for mask, (x0, y0, x1, y1) in zip(filled, boxes, strict=True):
                mask[int(y0) : int(y1), int(x0) : int(x1)] = True
            instances.gt_masks = BitMasks(filled)
        image = torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        batch.append({"image": image, "instances": instances, "height": 128, "width": 96})
    return batch


BOXES = [[4.0, 4.0, 20.0, 24.0], [20.0, 30.0, 44.0, 60.0]]


@pytest.mark.parametrize(("patch", "names"), [(8, "p1 p2 p3 p4 p5"), (16, "p2 p3 p4 p5 p6")])
def test_maps_have_the_strides_of_their_names(patch: int, names: str) -> None:
    backbone = make_backbone(patch)
    maps = backbone(torch.zeros(1, 3, 64, 128))
    assert " ".join(maps) == names == " ".join(backbone.output_shape())
    for name, values in maps.items():
        stride = 2 ** int(name[1:])
        assert backbone.output_shape()[name].stride == stride
        assert backbone.output_shape()[name].channels == values.shape[1] == 16
        assert values.shape[2:] == (64 // stride, 128 // stride)


def test_images_are_padded_as_the_backbone_asks() -> None:
    image = torch.zeros(3, 40, 30)
    for square, expected in ((64, (64, 64)), (0, (48, 32))):
        constraints = make_backbone(square_pad=square).padding_constraints
        padded = ImageList.from_tensors([image, image], padding_constraints=constraints)
        assert padded.tensor.shape[2:] == expected


def test_backbone_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match="patch_size 14 makes no pyramid"):
        ViTPyramid(ViT(ViTConfig(embed_dim=16, depth=1, num_heads=1, patch_size=14, image_size=(28, 28))))
    with pytest.raises(ValueError, match="no use for a class token"):
        ViTPyramid(ViT(ViTConfig(embed_dim=16, depth=1, num_heads=1, image_size=(32, 32))))


def test_pixels_are_normalised_in_units_of_255() -> None:
    detector = make_detector()
    assert detector.pixel_mean.flatten().tolist() == pytest.approx([127.5, 102.0, 76.5])
    assert detector.pixel_std.flatten().tolist() == pytest.approx([51.0, 51.0, 25.5])


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("boxes", [BOXES, []], ids=["objects", "no objects"])
def test_every_parameter_gets_a_finite_gradient(boxes: list[list[float]], autocast: bool) -> None:
    detector = make_detector()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = detector(make_batch(boxes))
    assert sorted(losses) == ["loss_box_reg", "loss_cls", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"]
    assert all(loss.dtype == torch.float32 and loss.ndim == 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_bfloat16_losses_are_near_float32s() -> None:
    detector, batch = make_detector(), make_batch(BOXES)
    values = []
    for autocast in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            values.append(torch.stack(list(detector(batch).values())).sum().item())
    # 8 bits of mantissa, and a proposal may be sampled in place of another
    assert values[1] == pytest.approx(values[0], rel=0.05)


def test_boxes_alone_need_no_mask_head() -> None:
    detector = make_detector(masks=False)
    losses = detector(make_batch(BOXES, masks=False))
    assert sorted(losses) == ["loss_box_reg", "loss_cls", "loss_rpn_cls", "loss_rpn_loc"]
    assert not [name for name, _ in detector.named_parameters() if "mask" in name]
    with torch.no_grad():
        (output,) = detector.eval()(make_batch([], masks=False, images=1))
    assert len(output["instances"]) and not output["instances"].has("pred_masks")


def test_detections_are_in_original_pixels_and_float32() -> None:
    detector = make_detector().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (output,) = detector(make_batch(BOXES, images=1))
    instances = output["instances"]
    assert instances.image_size == (128, 96)
    assert instances.pred_masks.shape == (len(instances), 128, 96)
    assert instances.scores.dtype == instances.pred_boxes.tensor.dtype == torch.float32
    assert (instances.pred_boxes.tensor >= 0).all()
    assert (instances.pred_boxes.tensor <= torch.tensor([96, 128, 96, 128])).all()
    assert len(instances.scores.unique()) > 0.9 * len(instances), "scores tie"
