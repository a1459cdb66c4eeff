"""Li et al.'s FPN over four maps with batch norm, and what the cascade and LVIS change in the heads."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from torch import nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import IMAGENET
from detection.config import DetectionConfig, HeadsConfig
from detection.model.backbone import ViTFPN, pyramid_on
from detection.model.detector import Detector
from detection.model.mask_rcnn import mask_rcnn
from detection.model.norm import BatchNorm
from detection.recipes.li2021 import LI2021
from detection.task import build_task
from engine.training.loop import fit
from engine.training.seeding import seed_all
from scenes.layouts import ScenesIndex

SMALL = HeadsConfig(
    channels=16, box_width=32, rpn_samples=16, roi_samples=16, pre_nms=(50, 50), post_nms=(20, 20), score_threshold=0.0
)
CLASS_IMAGES = [9, 0, 4]


def make_vit(patch: int = 8) -> ViT:
    architecture = ViTConfig(
        embed_dim=32,
        depth=4,
        num_heads=2,
        patch_size=patch,
        image_size=(64, 64),
        relative_position="shared_table",
        window_size=3,
        global_blocks=(1, 3),
    )
    return ViT(architecture, class_token=False, final_norm=False)


def make_detector(heads: HeadsConfig, pyramid: Any = "sfp") -> Detector:
    torch.manual_seed(0)
    backbone = pyramid_on(make_vit(), pyramid, out_channels=16, square_pad=64, norm=heads.norm)
    return mask_rcnn(
        backbone, heads=heads, num_classes=3, masks=True, normalisation=IMAGENET, class_images=CLASS_IMAGES
    )


def batch(boxes: list[list[float]]) -> list[dict[str, Any]]:
    samples = []
    for seed in range(2):
        instances = Instances((64, 64))
        instances.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
        instances.gt_classes = torch.zeros(len(boxes), dtype=torch.long)
        instances.gt_masks = BitMasks(torch.ones(len(boxes), 64, 64, dtype=torch.bool))
        image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(seed))
        samples.append({"image": image.to(torch.uint8), "instances": instances, "height": 64, "width": 64})
    return samples


@pytest.mark.parametrize(("patch", "names"), [(8, "p1 p2 p3 p4 p5"), (16, "p2 p3 p4 p5 p6")])
def test_levels_and_padding(patch: int, names: str) -> None:
    backbone = ViTFPN(make_vit(patch), out_channels=16, square_pad=64)
    maps = backbone(torch.zeros(1, 3, 64, 64))
    assert " ".join(maps) == names == " ".join(backbone.output_shape())
    for name, values in maps.items():
        stride = 2 ** int(name[1:])
        assert backbone.output_shape()[name].stride == stride
        assert values.shape[1:] == (16, 64 // stride, 64 // stride)
    padded = ImageList.from_tensors(
        [torch.zeros(3, 40, 30)], backbone.size_divisibility, padding_constraints=backbone.padding_constraints
    )
    assert padded.tensor.shape[2:] == (64, 64) and backbone.size_divisibility == 2 * patch


def test_each_level_comes_from_its_own_map() -> None:
    """The coarsest level sees all blocks alone; a finer one also sees its own, less deep map."""
    backbone = ViTFPN(make_vit(), out_channels=16).eval()
    backbone.vit.feature_maps = lambda image, out_indices: [torch.zeros(1, 32, 8, 8)] * 4  # type: ignore[method-assign]
    still = backbone(torch.zeros(1, 3, 64, 64))
    for number in range(4):
        changed = [torch.zeros(1, 32, 8, 8) for _ in range(4)]
        changed[number] += torch.randn(1, 32, 8, 8)
        backbone.vit.feature_maps = lambda image, out_indices, maps=changed: maps  # type: ignore[method-assign]
        maps = backbone(torch.zeros(1, 3, 64, 64))
        moved = [not torch.equal(maps[f"p{level}"], still[f"p{level}"]) for level in (1, 2, 3, 4)]
        assert moved == [level <= number for level in range(4)]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("boxes", [[[4.0, 4.0, 40.0, 44.0]], []], ids=["objects", "no objects"])
def test_every_parameter_gets_a_finite_gradient(boxes: list[list[float]], autocast: bool) -> None:
    detector = make_detector(replace(SMALL, norm="batch"), "fpn")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = detector(batch(boxes))
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    norms = {name.rsplit(".", 1)[0] for name, m in detector.named_modules() if isinstance(m, BatchNorm)}
    levels = {f"backbone.fpn_{kind}{level}" for kind in ("lateral", "output") for level in (1, 2, 3, 4)}
    heads = {f"roi_heads.box_head.conv{n}" for n in (1, 2, 3, 4)} | {
        f"roi_heads.mask_head.mask_fcn{n}" for n in (1, 2, 3, 4)
    }
    assert norms == levels | heads
    assert not [name for name, m in detector.named_modules() if type(m) is nn.BatchNorm2d]


@pytest.mark.parametrize("cascade", [False, True])
def test_federated_loss_leaves_out_what_it_did_not_sample(cascade: bool) -> None:
    detector = make_detector(replace(SMALL, classifier="federated", cascade=cascade))
    losses = detector(batch([[4.0, 4.0, 40.0, 44.0]]))
    stages = [f"_stage{n}" for n in range(3)] if cascade else [""]
    assert {f"{loss}{stage}" for loss in ("loss_cls", "loss_box_reg") for stage in stages} < losses.keys()
    torch.stack(list(losses.values())).sum().backward()
    predictor = detector.roi_heads.box_predictor
    for one in predictor if cascade else [predictor]:
        # square roots of the numbers of images; as many negatives as there are classes with images
        assert one.fed_loss_cls_weights.tolist() == [3.0, 0.0, 2.0] and one.fed_loss_num_classes == 2
        rows = one.cls_score.weight.grad.abs().sum(dim=1)
        # class 0 is in the images; class 1, which no image has, and the background's score are never looked at
        assert rows[0] > 0 and rows[1] == rows[3] == 0


def test_federated_loss_needs_the_training_data() -> None:
    with pytest.raises(ValueError, match="federated loss asks for the number of training images of each of 3 classes"):
        mask_rcnn(
            pyramid_on(make_vit(), "sfp", out_channels=16, square_pad=64),
            heads=replace(SMALL, classifier="federated"),
            num_classes=3,
            masks=True,
            normalisation=IMAGENET,
        )


@pytest.mark.parametrize("name", sorted(LI2021))
def test_recipes_build(name: str) -> None:
    config = LI2021[name]()
    with torch.device("meta"):
        vit = ViT(config.architecture, class_token=False, final_norm=False, drop_path=config.drop_path)
        backbone = pyramid_on(vit, config.pyramid, out_channels=256, square_pad=1024, norm=config.heads.norm)
        detector = mask_rcnn(backbone, heads=config.heads, num_classes=80, masks=True, normalisation=IMAGENET)
    shapes = {name: tuple(p.shape) for name, p in detector.named_parameters()}
    heads = config.backbone.num_heads
    # one table for all windows of 14 x 14 and one for all 64 x 64 patches: a number per head for every distance
    assert shapes["backbone.bottom_up.vit.window_rel_pos_bias.relative_position_bias_table"] == (27 * 27, heads)
    assert shapes["backbone.bottom_up.vit.rel_pos_bias.relative_position_bias_table"] == (127 * 127, heads)
    width = config.backbone.embed_dim
    assert shapes["backbone.bottom_up.neck.upsample_4x.0.weight"] == (width, width, 2, 2)
    assert shapes["backbone.fpn_lateral2.weight"] == (256, width, 1, 1)


@pytest.mark.slow
def test_a_run_with_everything(small_config: DetectionConfig, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    vit = replace(small_config.backbone, depth=4, relative_position="shared_table", window_size=4, global_blocks=(3,))
    heads = replace(small_config.heads, norm="batch", classifier="federated", cascade=True)
    config = replace(
        small_config,
        backbone=vit,
        heads=heads,
        pyramid="fpn",
        repeat_threshold=1.0,
        position_size=32,
        no_weight_decay="block_norms_and_position",
    )
    seed_all(0)
    task = build_task(config, data=few_scenes.coco, init=None)
    scale = {name: group.lr_scale for group in task.param_groups(config.run.optim) for name in group.names}
    assert scale["backbone.bottom_up.vit.blocks.0.norm1.weight"] == pytest.approx(0.8**4)
    assert scale["backbone.fpn_output1.weight"] == 1
    assert task.model.backbone.vit.pos_embed.shape == (1, 16, 32)
    record = fit(task, config, recipe="small", out=tmp_path / "run")
    assert record.status == "completed" and "box_ap" in record.metrics
    assert {"loss_cls_stage0", "loss_cls_stage2"} <= record.losses.keys()
    assert record.train_images > 12 and "a pass over the data is" in record.data_notes[0]


PROCESS = """
import sys, torch
import torch.distributed as dist
from detection.model.norm import BatchNorm
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
x = torch.randn(3, 4, 5, 5)
mine = x[:1] if rank == 0 else x[1:]
if sys.argv[3] == "empty":
    mine = x if rank == 0 else x[:0]
mine.requires_grad_()
norm = BatchNorm(4)
y = norm(mine)
(y ** 3).sum().backward()
torch.save({"y": y, "grad": mine.grad, "mean": norm.running_mean}, sys.argv[2] + str(rank))
"""


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize("shares", ["one and two", "empty"])
def test_two_processes_have_the_statistics_of_one(shares: str, tmp_path: Path) -> None:
    meeting = str(tmp_path / "meeting")
    root = str(Path(__file__).resolve().parents[2])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), meeting, shares],
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 5, requires_grad=True)
    alone = BatchNorm(4)
    y = alone(x)
    (y**3).sum().backward()
    parts = [torch.load(f"{meeting}{rank}") for rank in range(2)]
    # float32; the variance there is the mean of squares less the square of the mean
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([part["grad"] for part in parts]), x.grad, rtol=1e-3, atol=1e-4)
    for part in parts:
        torch.testing.assert_close(part["mean"], alone.running_mean, rtol=1e-4, atol=1e-6)
