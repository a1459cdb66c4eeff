"""ViTDet's recipes against detectron2's own configs of it: parameters, their groups, rates, losses, detections.

The files of projects/ViTDet are in no wheel, so what they set is stated here, value by value. Where they are there
(detectron2 installed from a checkout, or MAE_TRANSFER_DETECTRON2 the folder of one), they are read and compared.
"""

import copy
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import detectron2
import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers
from detectron2.solver import WarmupParamScheduler
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from fvcore.common.param_scheduler import MultiStepParamScheduler
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import IMAGENET
from detection.config import DetectionConfig, HeadsConfig
from detection.model.backbone import pyramid_on
from detection.model.mask_rcnn import mask_rcnn
from detection.recipes.all import RECIPES
from detection.recipes.lvis import LVIS
from detection.recipes.vitdet import VITDET
from detection.task import DetectionTask
from engine.training.schedule import lr_factor

SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}
LAYER_DECAY = {"base": 0.7, "large": 0.8, "huge": 0.9}
PUBLISHED = sorted({**VITDET, **LVIS})
LVIS_CLASSES = 1203
# ours: file, steps, milestones, share of the run that is warm-up, learning rate, stochastic depth
FILES = {
    "vitdet_base": ("COCO/mask_rcnn_vitdet_b_100ep.py", 184_375, [163_889, 177_546], 250 / 184_375, 1e-4, 0.1),
    "vitdet_large": ("COCO/mask_rcnn_vitdet_l_100ep.py", 184_375, [163_889, 177_546], 250 / 184_375, 1e-4, 0.4),
    "vitdet_huge": ("COCO/mask_rcnn_vitdet_h_75ep.py", 138_281, [122_916, 133_159], 250 / 184_375, 1e-4, 0.5),
    "vitdet_lvis_base": ("LVIS/mask_rcnn_vitdet_b_100ep.py", 156_250, [138_889, 150_463], 250 / 156_250, 2e-4, 0.1),
    "vitdet_lvis_large": ("LVIS/mask_rcnn_vitdet_l_100ep.py", 156_250, [138_889, 150_463], 250 / 156_250, 2e-4, 0.4),
    "vitdet_lvis_huge": ("LVIS/mask_rcnn_vitdet_h_100ep.py", 156_250, [138_889, 150_463], 250 / 156_250, 1e-4, 0.4),
}
FILES |= {
    name.replace("vitdet_", "vitdet_cascade_"): (f"COCO/cascade_{row[0].removeprefix('COCO/')}", *row[1:])
    for name, row in FILES.items()
    if "lvis" not in name
}
SIDE, CLASSES, CHANNELS, WIDTH = 128, 60, 16, 32
CLASS_IMAGES = [1 + 7 * number % 50 for number in range(CLASSES)]


def configs() -> Path:
    # not by detectron2.model_zoo, which imports pkg_resources
    return Path(detectron2.__file__).parent / "model_zoo" / "configs" / "common"


def their_config(*, cascade: bool, class_images: list[int] | None = None) -> Any:
    """detectron2's mask_rcnn_vitdet.py with what the cascade file, and the LVIS file for `class_images`, make of it."""
    model = LazyConfig.load(str(configs() / "models" / "mask_rcnn_vitdet.py")).model
    if cascade:
        [model.roi_heads.pop(name) for name in ("box_head", "box_predictor", "proposal_matcher")]
        model.roi_heads.update(
            _target_=CascadeROIHeads,
            box_heads=[
                LazyCall(FastRCNNConvFCHead)(
                    input_shape=ShapeSpec(channels=256, height=7, width=7),
                    conv_dims=[256, 256, 256, 256],
                    fc_dims=[1024],
                    conv_norm="LN",
                )
                for _ in range(3)
            ],
            box_predictors=[
                LazyCall(FastRCNNOutputLayers)(
                    input_shape=ShapeSpec(channels=1024),
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
    if class_images:
        model.roi_heads.num_classes = len(class_images)
        weights = torch.tensor(class_images, device="cpu").float() ** 0.5
        for predictor in model.roi_heads.box_predictors if cascade else [model.roi_heads.box_predictor]:
            predictor.update(test_score_thresh=0.02, test_topk_per_image=300, use_sigmoid_ce=True, use_fed_loss=True)
            predictor.get_fed_loss_cls_weights = lambda: weights
    return model


def size_of(name: str) -> str:
    return next(size for size in SIZES if size in name)


def theirs_of(name: str) -> nn.Module:
    size, lvis = size_of(name), "lvis" in name
    config = their_config(cascade="cascade" in name, class_images=[1] * LVIS_CLASSES if lvis else None)
    net = config.backbone.net
    net.embed_dim, net.depth, net.num_heads = SIZES[size]
    step = SIZES[size][1] // 4
    net.window_block_indexes = [block for block in range(SIZES[size][1]) if (block + 1) % step]
    net.use_rel_pos = "norelpos" not in name
    return instantiate(config)


def ours_of(config: DetectionConfig, num_classes: int, class_images: list[int]) -> nn.Module:
    heads = config.heads
    vit = ViT(config.architecture, class_token=False, final_norm=False, drop_path=config.drop_path)
    backbone = pyramid_on(vit, config.pyramid, out_channels=heads.channels, square_pad=config.image_size)
    return mask_rcnn(
        backbone,
        heads=heads,
        num_classes=num_classes,
        masks=True,
        normalisation=IMAGENET,
        class_images=class_images,
    )


def built(name: str) -> nn.Module:
    classes = LVIS_CLASSES if "lvis" in name else 80
    return ours_of(RECIPES[name](), classes, [1] * classes)


def renamed(name: str) -> str:
    return name.replace("backbone.net.", "backbone.vit.").replace("backbone.simfp", "backbone.pyramid.simfp")


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models without memory."""
    on_cpu = partial(torch.linspace, device="cpu")  # their ViT reads the rates of stochastic depth from a tensor
    monkeypatch.setattr(torch, "linspace", on_cpu)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_detectron2s(name: str, on_meta: None) -> None:
    theirs, ours = theirs_of(name), built(name)
    expected = {renamed(n): tuple(p.shape) for n, p in theirs.named_parameters()}
    # theirs has a row for the class token, which it drops in every pass
    width = SIZES[size_of(name)][0]
    assert expected["backbone.vit.pos_embed"] == (1, 197, width)
    expected["backbone.vit.pos_embed"] = (1, 196, width)
    assert {n: tuple(p.shape) for n, p in ours.named_parameters()} == expected
    count = sum(p.numel() for p in theirs.parameters()) - width
    assert sum(p.numel() for p in ours.parameters()) == count


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_groups_are_detectron2s(name: str, on_meta: None) -> None:
    config, size = RECIPES[name](), size_of(name)
    from_mae = "supervised" not in name and "random" not in name
    theirs = theirs_of(name)
    optimizer = LazyConfig.load(str(configs() / "optim.py")).AdamW
    # table 11: rate and weight decay by the start; layer-wise decay with MAE alone
    optimizer.lr = {"supervised": 8e-5, "random": 1.6e-4, "lvis": 1e-4 if size == "huge" else 2e-4}.get(
        next((word for word in ("supervised", "random", "lvis") if word in name), ""), 1e-4
    )
    optimizer.weight_decay = 0.2 if "random" in name else 0.1
    optimizer.params.base_lr = optimizer.lr
    optimizer.params.weight_decay = optimizer.weight_decay
    optimizer.params.lr_factor_func = partial(
        get_vit_lr_decay_rate, num_layers=SIZES[size][1], lr_decay_rate=LAYER_DECAY[size] if from_mae else 1.0
    )
    optimizer.params.overrides = {} if size == "huge" else {"pos_embed": {"weight_decay": 0.0}}
    if size == "huge":
        optimizer.params.weight_decay_norm = None
    optimizer.params.model = theirs
    groups = instantiate(optimizer.params)
    of_parameter = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    expected = {renamed(n): of_parameter[p] for n, p in theirs.named_parameters()}

    optim = config.run.optim
    task: Any = SimpleNamespace(model=built(name), config=config)
    made = {
        n: (optim.lr(config.run.batch_size) * group.lr_scale, group.weight_decay)
        for group in DetectionTask.param_groups(task, optim)
        for n in group.names
    }
    assert made.keys() == expected.keys()
    for parameter, values in expected.items():
        assert made[parameter] == pytest.approx(values, rel=1e-9), parameter
    assert optim.betas == tuple(optimizer.betas)


@pytest.mark.parametrize("name", FILES)
def test_what_is_stated_is_what_the_files_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [os.environ.get("MAE_TRANSFER_DETECTRON2"), Path(detectron2.__file__).parents[1]]
    folders = [Path(place) / "projects" / "ViTDet" / "configs" for place in places if place]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        pytest.skip("projects/ViTDet is in no wheel of detectron2; set MAE_TRANSFER_DETECTRON2 to a checkout")
    packages = ModuleType("pkg_resources")  # model_zoo asks it for files, and setuptools has it no longer
    packages.resource_filename = lambda _, file: str(configs().parents[1] / file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pkg_resources", packages)
    file, steps, milestones, warmup, lr, drop_path = FILES[name]
    theirs = LazyConfig.load(str(folder / file))
    schedule = theirs.lr_multiplier
    assert (theirs.train.max_iter, list(schedule.scheduler.milestones)) == (steps, milestones)
    assert (schedule.scheduler.num_updates, list(schedule.scheduler["values"])) == (steps, [1.0, 0.1, 0.01])
    assert (schedule.warmup_length, schedule.warmup_factor) == (warmup, 0.001)
    assert (theirs.optimizer.lr, theirs.model.backbone.net.drop_path_rate) == (lr, drop_path)
    config = RECIPES[name]()
    assert (config.run.optim.lr(64), config.drop_path) == (lr, drop_path)
    decay = theirs.optimizer.params.lr_factor_func.keywords
    assert decay == {"num_layers": config.backbone.depth, "lr_decay_rate": config.run.optim.layer_decay}
    windows = set(range(config.backbone.depth)) - set(config.backbone.global_blocks)
    assert set(theirs.model.backbone.net.window_block_indexes) == windows


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_are_detectron2s_at_every_step(name: str) -> None:
    run = RECIPES[name]().run
    total = run.length.steps(batch_size=64, dataset_size=118_287)
    if name in FILES:
        _, steps, milestones, warmup, *_ = FILES[name]
    else:  # table 11's other lengths have no file: as H's makes 75 epochs of 100
        epochs = {"supervised": 50, "random": 300 if "base" in name else 200}
        full = next((count for word, count in epochs.items() if word in name), 100)
        steps, milestones = 184_375 * full // 100, [step * full // 100 for step in (163_889, 177_546)]
        warmup = 250 / steps
    assert total == steps
    schedule = WarmupParamScheduler(
        MultiStepParamScheduler(values=[1.0, 0.1, 0.01], milestones=milestones, num_updates=total),
        warmup_length=warmup,
        warmup_factor=0.001,
    )
    warm = run.schedule.warmup.steps(batch_size=64, dataset_size=118_287)
    ours = [lr_factor(run.schedule, step, total_steps=total, warmup_steps=warm) for step in range(total)]
    theirs = [schedule(step / total) for step in range(total)]
    if warmup * total != pytest.approx(warm):  # H's 187.5 steps, which its departures state
        stated = getattr(RECIPES[name], "departs", ())
        assert warm == math.ceil(warmup * total) and any("187.5" in line for line in stated)
        assert ours[:warm] == pytest.approx(theirs[:warm], rel=0.003)
        theirs[:warm] = ours[:warm]
    assert [step for step in range(total) if abs(ours[step] - theirs[step]) > 1e-9] == []


def tiny_pair(*, cascade: bool, lvis: bool) -> tuple[nn.Module, nn.Module]:
    """detectron2's model and ours of the same tiny size, with the same random weights."""
    class_images = CLASS_IMAGES if lvis else None
    config = their_config(cascade=cascade, class_images=class_images)
    config.backbone.net.update(
        img_size=SIDE, embed_dim=32, depth=2, num_heads=2, drop_path_rate=0.0, window_size=3, window_block_indexes=[0],
        pretrain_img_size=64,
    )  # fmt: skip
    config.backbone.update(square_pad=SIDE, out_channels=CHANNELS)
    config.proposal_generator.update(batch_size_per_image=32, pre_nms_topk=(200, 200), post_nms_topk=(50, 50))
    config.proposal_generator.head.in_channels = CHANNELS
    regions = config.roi_heads
    regions.update(num_classes=CLASSES, batch_size_per_image=32)
    for head in regions.box_heads if cascade else [regions.box_head]:
        head.input_shape = ShapeSpec(channels=CHANNELS, height=7, width=7)
        head.update(conv_dims=[CHANNELS] * 4, fc_dims=[WIDTH])
    for predictor in regions.box_predictors if cascade else [regions.box_predictor]:
        predictor.input_shape = ShapeSpec(channels=WIDTH)
    regions.mask_head.input_shape = ShapeSpec(channels=CHANNELS, height=14, width=14)
    regions.mask_head.conv_dims = [CHANNELS] * 5
    torch.manual_seed(0)
    theirs = instantiate(config)

    recipe = RECIPES["vitdet_lvis_base" if lvis else "vitdet_base"]()
    heads = HeadsConfig(
        channels=CHANNELS, box_width=WIDTH, rpn_samples=32, roi_samples=32, pre_nms=(200, 200), post_nms=(50, 50),
        cascade=cascade, classifier=recipe.heads.classifier, score_threshold=recipe.heads.score_threshold,
        max_detections=recipe.heads.max_detections,
    )  # fmt: skip
    backbone = ViTConfig(
        embed_dim=32, depth=2, num_heads=2, relative_position="decomposed", window_size=3, global_blocks=(1,)
    )
    tiny = replace(recipe, backbone=backbone, image_size=SIDE, position_size=64, drop_path=0.0, heads=heads)
    ours = ours_of(tiny, CLASSES, CLASS_IMAGES)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                # scores far apart, so that rounding does not decide between two of them
                wide = "cls_score" in name or "objectness" in name
                parameter.normal_(std=(3.0 if wide else 1.0) / parameter[0].numel() ** 0.5)
        for name, parameter in theirs.named_parameters():
            if "bbox_pred" in name or "anchor_deltas" in name:
                parameter.mul_(0.3)
    state = {renamed(name): tensor for name, tensor in theirs.state_dict().items()}
    state["backbone.vit.pos_embed"] = state["backbone.vit.pos_embed"][:, 1:]
    anchors = {name for name in state if "cell_anchors" in name}
    assert ours.state_dict().keys() == state.keys() - anchors | anchors & ours.state_dict().keys()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
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


@pytest.mark.parametrize("lvis", [False, True], ids=["coco", "lvis"])
@pytest.mark.parametrize("cascade", [False, True], ids=["mask", "cascade"])
def test_losses_and_detections_are_detectron2s(cascade: bool, lvis: bool) -> None:
    theirs, ours = tiny_pair(cascade=cascade, lvis=lvis)
    losses, gradients = [], []
    for model in (theirs, ours):
        model.train()
        torch.manual_seed(7)  # the sampling of anchors, proposals and negative classes
        with EventStorage():
            found = model(copy.deepcopy(batch()))
        torch.stack(list(found.values())).sum().backward()
        losses.append({name: value.item() for name, value in found.items()})
        gradients.append({renamed(n): p.grad.norm().item() for n, p in model.named_parameters()})
    # float32: this project's layer norm and attention sum in another order
    assert losses[1] == pytest.approx(losses[0], rel=1e-4, abs=1e-6)
    assert gradients[1] == pytest.approx(gradients[0], rel=1e-2, abs=1e-5)
    outputs = []
    for model in (theirs, ours):
        model.eval()
        with torch.no_grad():
            outputs.append([output["instances"] for output in model(batch())])
    assert sum(len(instances) for instances in outputs[0]) > 20
    for mine, other in zip(outputs[1], outputs[0], strict=True):
        assert len(mine) == len(other)
        # not by order: scores that are equal but for rounding may be listed either way
        same = mine.pred_classes[:, None] == other.pred_classes[None]
        same &= (mine.scores[:, None] - other.scores[None]).abs() < 1e-4
        same &= (mine.pred_boxes.tensor[:, None] - other.pred_boxes.tensor[None]).abs().amax(dim=2) < 1e-2  # pixels
        assert same.any(dim=1).all() and same.any(dim=0).all()
        masks = other.pred_masks[same.int().argmax(dim=1)]
        assert (mine.pred_masks != masks).float().mean() < 1e-3  # a pixel at the threshold may fall either way
