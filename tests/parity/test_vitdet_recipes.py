"""ViTDet's recipes against detectron2's own config of it: parameters, losses, detections, rates."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import detectron2
import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.engine import SimpleTrainer
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers
from detectron2.solver import WarmupParamScheduler
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch import Tensor, nn

from backbones.checkpoint import IMAGENET
from backbones.config import ViTConfig
from backbones.vit import ViT
from detection.backbone import ViTPyramid
from detection.config import DetectionConfig, HeadsConfig
from detection.configs.mask_rcnn import mask_rcnn
from detection.vitdet import VITDET
from engine.schedule import lr_factor

SIDE = 128
SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}


def their_config(*, cascade: bool) -> Any:
    """detectron2's mask_rcnn_vitdet.py, with the heads of projects/ViTDet's cascade_mask_rcnn_vitdet.py."""
    # not by detectron2.model_zoo, which imports pkg_resources
    configs = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    model = LazyConfig.load(str(configs / "common" / "models" / "mask_rcnn_vitdet.py")).model
    if cascade:
        # field by field as that file has it; projects/ is in no wheel
        [model.roi_heads.pop(name) for name in ("box_head", "box_predictor", "proposal_matcher")]
        model.roi_heads.update(
            _target_=CascadeROIHeads,
            box_heads=[
                LazyCall(FastRCNNConvFCHead)(
                    input_shape=LazyCall(ShapeSpec)(channels=256, height=7, width=7),
                    conv_dims=[256, 256, 256, 256],
                    fc_dims=[1024],
                    conv_norm="LN",
                )
                for _ in range(3)
            ],
            box_predictors=[
                LazyCall(FastRCNNOutputLayers)(
                    input_shape=LazyCall(ShapeSpec)(channels=1024),
                    test_score_thresh=0.05,
                    box2box_transform=LazyCall(Box2BoxTransform)(weights=(w1, w1, w2, w2)),
                    cls_agnostic_bbox_reg=True,
                    num_classes="${...num_classes}",
                )
                for w1, w2 in ((10, 5), (20, 10), (30, 15))
            ],
            proposal_matchers=[
                LazyCall(Matcher)(thresholds=[th], labels=[0, 1], allow_low_quality_matches=False)
                for th in (0.5, 0.6, 0.7)
            ],
        )
    return model


def theirs_of_size(size: str, *, cascade: bool, relative: bool) -> nn.Module:
    config = their_config(cascade=cascade)
    net = config.backbone.net
    net.embed_dim, net.depth, net.num_heads = SIZES[size]
    step = SIZES[size][1] // 4
    net.window_block_indexes = [block for block in range(SIZES[size][1]) if (block + 1) % step]
    net.use_rel_pos = relative
    return instantiate(config)


def ours_of(config: DetectionConfig, num_classes: int) -> nn.Module:
    vit = ViT(config.backbone, class_token=False, final_norm=False, drop_path=config.drop_path)
    backbone = ViTPyramid(vit, out_channels=config.heads.channels, square_pad=config.image_size)
    return mask_rcnn(backbone, heads=config.heads, num_classes=num_classes, masks=True, normalisation=IMAGENET)


def renamed(name: str) -> str:
    return name.replace("backbone.net.", "backbone.vit.").replace("backbone.simfp", "backbone.pyramid.simfp")


def parts_of(name: str) -> tuple[str, bool, bool]:
    size = next(size for size in SIZES if size in name)
    return size, "cascade" in name, "norelpos" not in name


@pytest.mark.parametrize("name", sorted(VITDET))
def test_parameters_are_detectron2s(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = partial(torch.linspace, device="cpu")  # their ViT reads the rates of stochastic depth from a tensor
    monkeypatch.setattr(torch, "linspace", on_cpu)
    size, cascade, relative = parts_of(name)
    with torch.device("meta"):
        theirs = dict(theirs_of_size(size, cascade=cascade, relative=relative).named_parameters())
        ours = {n: tuple(p.shape) for n, p in ours_of(VITDET[name](), 80).named_parameters()}
    expected = {renamed(n): tuple(p.shape) for n, p in theirs.items()}
    # detectron2 keeps 14 x 14 positions and an unused class row, and resizes them in every pass
    width = SIZES[size][0]
    assert expected.pop("backbone.vit.pos_embed") == (1, 197, width)
    assert ours.pop("backbone.vit.pos_embed") == (1, 64 * 64, width)
    assert ours == expected


@pytest.mark.parametrize("name", sorted(VITDET))
def test_rates_are_detectron2s_at_every_step(name: str) -> None:
    run = VITDET[name]().run
    total = run.length.steps(batch_size=64, dataset_size=118_287)
    epochs = {"supervised": 50, "random": 300 if "base" in name else 200}
    full = next((count for word, count in epochs.items() if word in name), 75 if "huge" in name else 100)
    assert total == 184_375 * full // 100
    # as projects/ViTDet/configs have it: milestones of 100 epochs, scaled with the length
    milestones = [step * full // 100 for step in (163_889, 177_546)]
    schedule = WarmupParamScheduler(
        MultiStepParamScheduler(values=[1.0, 0.1, 0.01], milestones=milestones, num_updates=total),
        warmup_length=250 / total,
        warmup_factor=0.001,
    )
    ours = [lr_factor(run.schedule, step, total_steps=total, warmup_steps=250) for step in range(total)]
    theirs = [schedule(step / total) for step in range(total)]
    differ = [step for step in range(total) if abs(ours[step] - theirs[step]) > 1e-9]
    # a scaled milestone falls between two steps: one of them may be rounded the other way
    assert all(min(abs(step - milestone) for milestone in milestones) <= 1 for step in differ)
    assert full not in (100,) or not differ


def tiny_pair(*, cascade: bool) -> tuple[nn.Module, nn.Module]:
    """detectron2's model and ours of the same tiny size, with the same random weights."""
    config = their_config(cascade=cascade)
    net = config.backbone.net
    net.update(
        img_size=128, embed_dim=32, depth=2, num_heads=2, drop_path_rate=0.0, window_size=3, window_block_indexes=[0],
        pretrain_img_size=128, pretrain_use_cls_token=False,
    )  # fmt: skip
    config.backbone.square_pad = SIDE
    config.roi_heads.num_classes = 5
    torch.manual_seed(0)
    theirs = instantiate(config)
    backbone = ViTConfig(
        embed_dim=32, depth=2, num_heads=2, image_size=(SIDE, SIDE), relative_position="decomposed",
        window_size=3, global_blocks=(1,),
    )  # fmt: skip
    ours = ours_of(replace(VITDET["vitdet_base"](), backbone=backbone, image_size=SIDE, drop_path=0.0,
                           heads=HeadsConfig(cascade=cascade)), 5)  # fmt: skip
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.05) if parameter.ndim > 1 else parameter.add_(0.05 * torch.randn_like(parameter))
    state = {renamed(name): tensor for name, tensor in theirs.state_dict().items()}
    own = ours.state_dict()
    ours.load_state_dict({name: state[name] for name in own})
    return theirs, ours


def batch() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    samples = []
    for boxes in ([[4.0, 6.0, 80.0, 94.0], [40.0, 20.0, 120.0, 60.0]], [[16.0, 16.0, 60.0, 120.0]]):
        instances = Instances((SIDE, SIDE))
        instances.gt_boxes = Boxes(torch.tensor(boxes))
        instances.gt_classes = torch.arange(len(boxes)) + 1
        masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        instances.gt_masks = BitMasks(masks)
        image: Tensor = torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        samples.append({"image": image, "instances": instances, "height": SIDE, "width": SIDE})
    return samples


@pytest.mark.slow
@pytest.mark.parametrize("cascade", [False, True])
def test_losses_and_detections_are_detectron2s(cascade: bool) -> None:
    theirs, ours = tiny_pair(cascade=cascade)
    losses = []
    for model in (theirs, ours):
        model.train()
        torch.manual_seed(7)  # the sampling of anchors and proposals
        with EventStorage():
            losses.append({name: float(value) for name, value in model(copy.deepcopy(batch())).items()})
    # float32: oneDNN's and this project's layer norm sum in another order
    assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-6)
    found = []
    for model in (theirs, ours):
        model.eval()
        with torch.no_grad():
            found.append(model([{**sample} for sample in batch()]))
    assert sum(len(output["instances"]) for output in found[0]) > 0
    for mine, other in zip(found[1], found[0], strict=True):
        a, b = mine["instances"], other["instances"]
        assert len(a) == len(b)
        same = a.pred_classes[:, None] == b.pred_classes[None]
        same &= (a.scores[:, None] - b.scores[None]).abs() < 1e-3
        same &= (a.pred_boxes.tensor[:, None] - b.pred_boxes.tensor[None]).abs().amax(dim=2) < 0.1  # pixels
        # random weights score thousands of boxes alike: rounding decides which of two neighbours suppresses the other,
        # and which is the last to be reported
        assert same.any(dim=1).float().mean() >= 0.95 and same.any(dim=0).float().mean() >= 0.95
        pairs = [(i, int(row.int().argmax())) for i, row in enumerate(same) if row.any()]
        differ = [float((a.pred_masks[i] != b.pred_masks[j]).float().mean()) for i, j in pairs]
        assert sum(differ) / len(differ) < 1e-3  # a pixel at the threshold may fall either way


@pytest.mark.slow
def test_our_backbone_in_a_lazy_config_and_detectron2s_trainer() -> None:
    config = their_config(cascade=False)
    vit = LazyCall(ViT)(class_token=False, final_norm=False)
    vit["architecture"] = LazyCall(ViTConfig)(embed_dim=32, depth=2, num_heads=2, image_size=(SIDE, SIDE))
    config.backbone = LazyCall(ViTPyramid)(vit=vit, out_channels=256, square_pad=SIDE)
    torch.manual_seed(0)
    model = instantiate(config)
    before = copy.deepcopy(model.backbone.vit.state_dict())
    trainer = SimpleTrainer(model, [batch() for _ in range(3)], torch.optim.AdamW(model.parameters(), lr=1e-3))
    trainer.train(0, 3)
    assert trainer.iter == 3
    assert any(not torch.equal(before[name], value) for name, value in model.backbone.vit.state_dict().items())
