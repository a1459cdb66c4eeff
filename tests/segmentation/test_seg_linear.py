"""The linear probe: what learns, what does not, and what the head computes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from engine.config import Duration
from engine.training.loop import fit
from engine.training.seeding import seed_all
from segmentation.config import HeadConfig, SegmentationConfig
from segmentation.task import SegmentationTask, build_task


@pytest.fixture
def config(config: SegmentationConfig) -> SegmentationConfig:
    """A probe of the last two blocks, with all that could move a ViT that is not frozen."""
    head = HeadConfig(kind="linear", dropout=0.0)
    return replace(config, head=head, out_indices=(1, 3), freeze_backbone=True, drop_path=0.5)


@pytest.fixture
def task(config: SegmentationConfig, write_folder) -> SegmentationTask:
    seed_all(0)
    return build_task(config, data=write_folder(), init=None)


def test_scores_by_hand(task: SegmentationTask) -> None:
    segmentor, head = task.model.segmentor, task.model.segmentor.decode_head
    task.model.eval()
    torch.nn.init.normal_(head.norm.running_mean)
    torch.nn.init.uniform_(head.norm.weight)
    with torch.no_grad():
        first, last = segmentor.backbone(torch.randn(2, 3, 24, 40))
        made = head((first, last))
        x = torch.cat([first, last], dim=1).permute(0, 2, 3, 1)
        # the running variance is 1
        x = (x - head.norm.running_mean) / (1 + head.norm.eps) ** 0.5 * head.norm.weight
        expected = F.linear(x, head.conv_seg.weight[:, :, 0, 0], head.conv_seg.bias).permute(0, 3, 1, 2)
    assert made.shape == (2, 3, 3, 5)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)  # float32


def test_losses_equal_mmseg(task: SegmentationTask) -> None:
    task.model.train()
    batch = task.collate([task.train_data[i] for i in range(2)])
    segmentor = task.model.segmentor
    data = segmentor.data_preprocessor(batch, training=True)
    expected = segmentor.loss(data["inputs"], data["data_samples"])
    made = task.model(batch)
    assert made.keys() == {"decode.loss_ce"}
    assert made["decode.loss_ce"].item() == pytest.approx(expected["decode.loss_ce"].item(), rel=1e-6)


def test_the_head_alone_learns(task: SegmentationTask, config: SegmentationConfig, tmp_path: Path) -> None:
    groups = task.param_groups(replace(config.run.optim, weight_decay=0.05))
    assert [(group.weight_decay, group.lr_scale, group.layer, group.names) for group in groups] == [
        (0.05, 1.0, 5, ("segmentor.decode_head.conv_seg.weight",)),
        (0.0, 1.0, 5, tuple(f"segmentor.decode_head.{name}" for name in ("conv_seg.bias", "norm.weight", "norm.bias"))),
    ]
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    record = fit(task, config, recipe="probe", out=tmp_path / "run")
    assert record.status == "completed" and record.metrics["miou"] >= 0
    moved = {name for name, tensor in task.model.state_dict().items() if not torch.equal(tensor, before[name])}
    head = {f"segmentor.decode_head.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved == head | {name for group in groups for name in group.names}
    task.model.train()
    assert not any(module.training for module in task.model.backbone.modules())
    assert task.model.segmentor.decode_head.norm.training


def test_one_image_is_a_batch(config: SegmentationConfig, write_folder) -> None:
    run = replace(config.run, batch_size=1, length=Duration(1))
    task = build_task(replace(config, run=run), data=write_folder(), init=None)
    assert torch.isfinite(task.model(task.collate([task.train_data[0]]))["decode.loss_ce"])


def test_upernet_has_four_levels(config: SegmentationConfig) -> None:
    with pytest.raises(ValueError, match=r"out_indices \[1, 3\]: UPerNet has 4 levels; name as many blocks"):
        replace(config, head=HeadConfig())
