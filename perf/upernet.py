"""A training step of UPerNet on ViT-B (forward, backward, AdamW) against mmsegmentation's own configs/mae model.

python perf/upernet.py [--size 256|512] [--rounds N] [--quick]

The peer is mmseg's EncoderDecoder with its MAE backbone, built from the config that it publishes and trained by its
own `train_step`; ours is the recipe mae_base_mmseg as our loop runs it. Both start from the same weights and see the
same two images; dropout and drop path are off, since the libraries draw them differently. Batch norm is per process, as
SyncBN needs CUDA. The value is the sum of the losses.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mmseg
import torch
from harness import CPU, Step, Switches, fuse, run, training_step, variants
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from backbones.config import ViTConfig
from backbones.sources import mmseg as source
from backbones.weights.normalisation import IMAGENET
from segmentation.config import SegmentationConfig
from segmentation.host import build_model
from segmentation.model.upernet import upernet
from segmentation.recipes import mae_base_mmseg
from segmentation.task import SegmentationModel

CONFIG = Path(mmseg.__file__).parent / ".mim/configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py"
CLASSES, BATCH = 150, 2
VIT, CHANNELS = mae_base_mmseg().backbone, mae_base_mmseg().head.channels
ROUNDS = {256: 3, 512: 2}  # by size; a step of 512 px takes half a minute


def peer(config: SegmentationConfig) -> torch.nn.Module:
    """Return mmseg's model with seeded weights, of the sizes of ours."""
    a, size = config.backbone, config.backbone.image_size
    torch.manual_seed(0)
    nodes = Config.fromfile(CONFIG).model
    nodes.pretrained = None
    nodes.data_preprocessor.update(type="mmseg.SegDataPreProcessor", size=size)
    nodes.backbone.update(img_size=size, drop_path_rate=0.0, out_indices=list(config.out_indices))
    nodes.backbone.update(embed_dims=a.embed_dim, num_layers=a.depth, num_heads=a.num_heads)
    nodes.neck.update(embed_dim=a.embed_dim, norm_cfg={"type": "BN"})
    nodes.decode_head.update(in_channels=[a.embed_dim] * 4, channels=config.head.channels)
    nodes.auxiliary_head.update(in_channels=a.embed_dim, channels=config.head.aux_channels)
    for head in (nodes.decode_head, nodes.auxiliary_head):
        head.update(norm_cfg={"type": "BN"}, dropout_ratio=0.0)
    return build_model(nodes).train()


def config_of(size: int, a: ViTConfig, channels: int) -> SegmentationConfig:
    """Return our recipe at a crop of `size` pixels, without what is random."""
    recipe = mae_base_mmseg()
    taps = tuple((tap + 1) * a.depth // VIT.depth - 1 for tap in recipe.out_indices)
    head = replace(recipe.head, dropout=0.0, channels=channels)
    return replace(recipe, backbone=a.at(size, size), head=head, drop_path=0.0, out_indices=taps)


def theirs(
    size: int, images: int = BATCH, a: ViTConfig = VIT, device: torch.device = CPU, *, channels: int = CHANNELS
) -> Step:
    model = peer(config_of(size, a, channels))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    wrapper = OptimWrapper(optimizer)

    def step(switches: Switches) -> float:
        fuse(optimizer, switches)
        logs = model.train_step(batch_of(size, images), wrapper)
        return float(logs["loss"].detach())

    return step


def ours(
    size: int, images: int = BATCH, a: ViTConfig = VIT, device: torch.device = CPU, *, channels: int = CHANNELS
) -> Step:
    config = config_of(size, a, channels)
    model = SegmentationModel(build_model(upernet(config, num_classes=CLASSES, normalisation=IMAGENET))).train()
    state = peer(config).state_dict()
    vit = source.rename({name: tensor for name, tensor in state.items() if name.startswith("backbone.")}).state
    others = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}
    model.segmentor.load_state_dict({f"backbone.vit.{name}": tensor for name, tensor in vit.items()} | others)
    model.to(device)
    return training_step(model, lambda: torch.stack(list(model(batch_of(size, images)).values())).sum())


def batch_of(size: int, count: int) -> dict[str, list[Any]]:
    """Return images and their labels in blocks of 32 pixels, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    blocks = torch.randint(0, CLASSES, (count, 1, size // 32, size // 32), generator=generator)
    blocks[torch.rand(blocks.shape, generator=generator) < 0.1] = 255
    samples = []
    for label in blocks.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3):
        sample = SegDataSample(metainfo={"img_shape": (size, size), "ori_shape": (size, size)})
        sample.gt_sem_seg = PixelData(data=label)
        samples.append(sample)
    return {"inputs": list(images), "data_samples": samples}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--size", type=int, choices=sorted(ROUNDS))
    chosen, sys.argv[1:] = parser.parse_known_args()  # the rest is the harness's
    for size in [chosen.size] if chosen.size else sorted(ROUNDS):
        their_step, our_step = partial(theirs, size), partial(ours, size)
        programs = [*variants("mmseg", their_step, peer=True), *variants("ours", our_step, peer=False)]
        run(f"UPerNet step, ViT-B/16, {size} px, batch {BATCH}", programs, rounds=ROUNDS[size])
