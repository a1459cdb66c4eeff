"""mmengine's own Runner trains our backbone from a config file alone: `MAETransferViT` under mmseg's neck and heads."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint

ARCHITECTURE = {"embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": 8, "image_size": (32, 32)}
CONFIG = """
custom_imports = dict(imports=["segmentation.model.backbone", "segmentation.mmseg_plugin"])
default_scope = "mmseg"
norm_cfg = dict(type="BN")
head = dict(num_classes=150, norm_cfg=norm_cfg, loss_decode=dict(type="CrossEntropyLoss"))
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", size=(32, 32), bgr_to_rgb=True, seg_pad_val=255,
                           mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(type="MAETransferViT", out_indices=[0, 1, 2, 3], drop_path=0.1, architecture={architecture},
                  init={init!r}),
    neck=dict(type="Feature2Pyramid", embed_dim=16, rescales=[4, 2, 1, 0.5], norm_cfg=norm_cfg),
    decode_head=dict(type="UPerHead", in_channels=[16] * 4, in_index=[0, 1, 2, 3], channels=8, **head),
    auxiliary_head=dict(type="FCNHead", in_channels=16, in_index=2, channels=8, num_convs=1, concat_input=False,
                        **head),
    train_cfg=dict(), test_cfg=dict(mode="slide", crop_size=(32, 32), stride=(21, 21)))
data = dict(type="ADE20KDataset", data_root={data!r})
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(**data, data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"), pipeline=[
        dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", reduce_zero_label=True),
        dict(type="RandomCrop", crop_size=(32, 32)), dict(type="PackSegInputs")]))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**data, data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
                 pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", reduce_zero_label=True),
                           dict(type="PackSegInputs")]))
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2, weight_decay=0.05),
                     constructor="MAETransferLayerDecay", paramwise_cfg=dict(decay_rate=0.5))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=1.0, begin=0, end=12, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=12, val_interval=12)
val_cfg = dict(type="ValLoop")
default_hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=12),
                     logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False))
randomness = dict(seed=0)
work_dir = {work!r}
"""


def test_runner_trains_and_evaluates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("training", 4), ("validation", 2)):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(count):
            label = rng.integers(0, 5, (5, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            image = (label[:, :, None] * 40 + rng.integers(0, 20, (40, 48, 3))).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / split / f"{number}.jpg")
            Image.fromarray(label).save(tmp_path / "annotations" / split / f"{number}.png")
    vit = ViT(ViTConfig(**ARCHITECTURE), final_norm=True)
    write_checkpoint(tmp_path / "vit.safetensors", vit, source="mae")
    text = CONFIG.format(
        architecture=ARCHITECTURE,
        init=str(tmp_path / "vit.safetensors"),
        data=str(tmp_path),
        work=str(tmp_path / "work"),
    )
    runner = Runner.from_cfg(Config.fromstring(text, ".py"))
    loaded = runner.model.backbone.vit.state_dict()["blocks.3.mlp.fc2.weight"].clone()
    assert torch.equal(loaded, vit.blocks[3].mlp.fc2.weight)
    trained = runner.train()
    steps, _ = runner.message_hub.get_scalar("train/loss").data
    assert len(steps) == 12 and np.isfinite(steps).all() and steps[-3:].mean() < steps[:3].mean()
    groups = runner.optim_wrapper.optimizer.param_groups
    assert sorted({group["lr_scale"] for group in groups}) == [0.5**k for k in range(5, -1, -1)]
    assert sum(len(group["params"]) for group in groups) == len(list(trained.parameters()))
    assert not torch.equal(trained.backbone.vit.blocks[3].mlp.fc2.weight, loaded)
    assert 0 <= runner.message_hub.get_scalar("val/mIoU").current() <= 100
    saved = torch.load(tmp_path / "work" / "iter_12.pth", weights_only=False)["state_dict"]
    torch.testing.assert_close(saved["backbone.vit.pos_embed"], trained.backbone.vit.pos_embed.data)
