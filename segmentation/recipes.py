"""Segmentation recipes: the published ones on ADE20K, a probe of frozen features, and short ones for one's own data.

Each published recipe names its source, and `departs` in which ways a run of it differs. None of them has been run here:
they need ADE20K and GPUs, and no source states hours.
"""

from collections.abc import Callable
from dataclasses import replace

from backbones.config import FAMILY, ViTConfig
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.recipe import departs, drops_last
from segmentation.config import HeadConfig, SegmentationConfig, SlideConfig

ITERATIONS = Duration(160_000)
BASE = replace(FAMILY["vit_base_patch16"].at(512, 512), relative_position="table")
LARGE = replace(FAMILY["vit_large_patch16"].at(512, 512), relative_position="table")
OUT_INDICES = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23)}  # by depth, mmseg's configs/mae and configs/beit

PRECISION = "bfloat16 autocast where the device has it, with float32 logits; {published}"
ADE20K_IMAGES = 20_210  # of training
ALWAYS = (
    "the learning rate rises over 1,500 steps and falls over all that remain, where mmengine's LinearLR and PolyLR "
    "take one step fewer for each: nowhere more than 1/1499 of the peak apart",
    "images are decoded by Pillow, not by OpenCV",
)
MMSEG = (PRECISION.format(published="the published run is in float16 autocast, by its file's name"), *ALWAYS)
UNSTATED = (
    PRECISION.format(published="the paper's is not stated"),
    *ALWAYS,
    "crop, warm-up, decay of the learning rate, layer decay, weight decay, drop path and test by windows are "
    "mmseg's: the paper states BEiT's code, 100 epochs and a batch of 16 alone",
    "one learning rate for every arm; the paper searched one for each and states none",
)


def tiny() -> SegmentationConfig:
    """UPerNet for the embedded scenes (64 px).

    Of the learning rates 1e-3 and 4e-3 the second was better by 13 to 16 mIoU, from MAE and from random weights
    (one seed, studies/demo).

    python tools/train_seg.py tiny --data scenes/ade20k --init runs/mae/backbone.safetensors --out runs/seg
    """
    return SegmentationConfig(
        backbone=FAMILY["vit_demo_patch8"],
        out_indices=(1, 2, 3, 5),  # blocks 3, 5, 7 and 11 of 12 at half the depth
        head=HeadConfig(channels=64, aux_channels=64),
        resize=(256, 64),
        resize_ratio=(0.75, 1.5),
        drop_path=0.0,
        run=RunConfig(
            length=Duration(120),
            batch_size=8,
            optim=OptimConfig(base_lr=4e-3, base_batch_size=8, layer_decay=0.75),
            schedule=ScheduleConfig(kind="poly", warmup=Duration(12)),
        ),
    )


def small() -> SegmentationConfig:
    """UPerNet on a data set of one's own of some hundreds of images, with the small patch-8 ViT.

    Of learning rates from 1e-3 to 8e-3 tried on CamVid, 2e-3 and 4e-3 were the best from labels and from MAE
    (studies/real_small).

    python tools/train_seg.py small --data DIR --init backbone.safetensors --out runs/my_seg
    """
    return SegmentationConfig(
        backbone=FAMILY["vit_demo_patch8"].at(160, 160),
        out_indices=(1, 2, 3, 5),
        head=HeadConfig(channels=64, aux_channels=64),
        resize=(768, 192),
        run=RunConfig(
            length=Duration(600),
            batch_size=8,
            optim=OptimConfig(base_lr=2e-3, base_batch_size=8, lr_scaling="sqrt", layer_decay=0.75),
            schedule=ScheduleConfig(kind="poly", warmup=Duration(50)),
            eval_batch_size=8,
        ),
    )


@departs(*MMSEG)
def mae_base_mmseg() -> SegmentationConfig:
    """MAE ViT-B under UPerNet at 512 px: 48.13 mIoU, 48.70 with scales and flips (mmseg's configs/mae, metafile).

    torchrun --nproc-per-node 8 tools/train_seg.py mae_base_mmseg --data ADEChallengeData2016 \\
        --init mae_pretrain_vit_base.pth --init-source mae --out runs/seg_mae_b

    160,000 iterations of 16 images. As there, relative positions start at 0 and a layer scale at 1 in every block,
    position table and class token are decayed, and windows of 512 px every 341 are averaged in evaluation.
    """
    return _ade20k(replace(BASE, layer_scale=1.0), length=ITERATIONS, lr=1e-4, layer_decay=0.65, drop_path=0.1)


@departs(
    PRECISION.format(published="the published precision is not stated"),
    *ALWAYS,
    "what the authors do not state (UPerNet's widths, schedule, weight decay, relative positions, test) is mmseg's",
)
def mae_base_long_seq() -> SegmentationConfig:
    """MAE ViT-B by the learning rate and decay of another reproduction: 8e-5 and 0.8 (facebookresearch/long_seq_mae,
    issue 1).

    torchrun --nproc-per-node 8 tools/train_seg.py mae_base_long_seq --data ADEChallengeData2016 \\
        --init mae_pretrain_vit_base.pth --init-source mae --out runs/seg_mae_b

    160,000 iterations of 16 images, drop path 0.1, 512 px. Its authors give no mIoU of this ViT there.
    """
    return _ade20k(BASE, length=ITERATIONS, lr=8e-5, layer_decay=0.8, drop_path=0.1)


@departs(*UNSTATED)
def mae_base_100ep() -> SegmentationConfig:
    """ViT-B of any arm but BEiT for 100 epochs: MAE 48.1, supervised 47.4, MoCo v3 47.3 mIoU (MAE, table 5).

    torchrun --nproc-per-node 8 tools/train_seg.py mae_base_100ep --data ADEChallengeData2016 \\
        --init mae_pretrain_vit_base.pth --init-source mae --out runs/seg_mae_b

    The arms differ in --init and --init-source (mae, augreg or timm, moco_v3) alone; BEiT's, `beit_base_100ep`, is made
    by the same function and differs in the architecture that its weights have. Relative positions start at 0.
    """
    return _hundred_epochs(BASE)


@departs(*UNSTATED)
def beit_base_100ep() -> SegmentationConfig:
    """BEiT's ViT-B for 100 epochs: 47.1 mIoU (MAE, table 5); `mae_base_100ep` with the architecture of BEiT's weights.

    torchrun --nproc-per-node 8 tools/train_seg.py beit_base_100ep --data ADEChallengeData2016 \\
        --init beit_base_patch16_224_pt22k.pth --init-source beit --out runs/seg_beit_b

    No position table, the relative positions of pre-training, a layer scale, no bias of the keys. The published file is
    pre-trained on ImageNet-22K, table 5's on ImageNet-1K.
    """
    return _hundred_epochs(replace(BASE, position="none", qkv_bias="qv", layer_scale=0.1))


@departs(*UNSTATED, "drop path 0.2 and out_indices are those of mmseg's BEiT-L; the rest is the recipe of ViT-B")
def mae_large_100ep() -> SegmentationConfig:
    """ViT-L of any arm but BEiT for 100 epochs: MAE 53.6, supervised 49.9, MoCo v3 49.1 mIoU (MAE, table 5).

    torchrun --nproc-per-node 8 tools/train_seg.py mae_large_100ep --data ADEChallengeData2016 \\
        --init mae_pretrain_vit_large.pth --init-source mae --out runs/seg_mae_l

    As `mae_base_100ep`; BEiT's arm is `beit_large_100ep`.
    """
    return _hundred_epochs(LARGE)


@departs(*UNSTATED, "drop path 0.2 and out_indices are those of mmseg's BEiT-L; the rest is the recipe of ViT-B")
def beit_large_100ep() -> SegmentationConfig:
    """BEiT's ViT-L for 100 epochs: 53.3 mIoU (MAE, table 5); `mae_large_100ep` with the architecture of BEiT's weights.

    torchrun --nproc-per-node 8 tools/train_seg.py beit_large_100ep --data ADEChallengeData2016 \\
        --init beit_large_patch16_224_pt22k.pth --init-source beit --out runs/seg_beit_l
    """
    return _hundred_epochs(replace(LARGE, position="none", qkv_bias="qv", layer_scale=1e-5))


@departs(PRECISION.format(published="the published run is in float32"), *ALWAYS)
def beit_base_640() -> SegmentationConfig:
    """BEiT-B, fine-tuned on ImageNet-22K before, at 640 px: 53.08 mIoU, 53.84 with scales and flips (mmseg's metafile).

    torchrun --nproc-per-node 8 tools/train_seg.py beit_base_640 --data ADEChallengeData2016 \\
        --init beit_base_patch16_224_pt22k_ft22k.pth --init-source beit --out runs/seg_beit_b

    mmseg's configs/beit; the labels of 14 million images are in these weights, so no row of MAE's table 5 compares.
    """
    vit = replace(BASE.at(640, 640), position="none", qkv_bias="qv", layer_scale=0.1)
    return _ade20k(vit, length=ITERATIONS, lr=3e-5, layer_decay=0.9, drop_path=0.1)


@departs(
    PRECISION.format(published="the published run is in float16 autocast"),
    *ALWAYS,
    "a batch norm stands before the classifier, as in DINOv2's probes, where iBOT's has none",
    "biases and norms are free of weight decay",
    "no drop path in the frozen ViT",
)
def linear_base() -> SegmentationConfig:
    """A linear map of ViT-B's frozen features at 512 px, iBOT's protocol: how well dense features separate classes.

    torchrun --nproc-per-node 8 tools/train_seg.py linear_base --data ADEChallengeData2016 \\
        --init mae_pretrain_vit_base.pth --init-source mae --out runs/probe_mae_b

    AdamW at 7e-4, 160,000 iterations of 16 images (iBOT's evaluation/semantic_segmentation/configs/linear). A quick
    look: --steps 4000. BEiT's weights need --init-architecture file. No published figure of MAE by this protocol is
    known to us.
    """
    vit = FAMILY["vit_base_patch16"].at(512, 512)
    config = _ade20k(vit, length=ITERATIONS, lr=7e-4, layer_decay=1.0, drop_path=0.0)
    return replace(config, head=HeadConfig(kind="linear", dropout=0.0), freeze_backbone=True)


def tiny_eomt() -> SegmentationConfig:
    """EoMT for the embedded scenes (64 px), as `tiny` but for the head: 20 queries in the last two of six blocks.

    Of the learning rates 1e-3, 2e-3 and 4e-3 the second was the best from random weights: 33.3, 35.7 and 17.8 mIoU,
    where `tiny` has 41.0 (one seed).

    python tools/train_seg.py tiny_eomt --data scenes/ade20k --init runs/mae/backbone.safetensors --out runs/seg_eomt
    """
    config = tiny()
    optim = replace(config.run.optim, base_lr=2e-3, clip_norm=1.0)
    return replace(
        config,
        out_indices=(config.backbone.depth - 1,),
        head=HeadConfig(kind="eomt", queries=20, query_blocks=2, points=784),
        run=replace(config.run, optim=optim),
    )


@departs(
    PRECISION.format(published="the published run is in float16 autocast, its losses too"),
    drops_last("tue-mps/eomt", epochs=31, batch_size=16, images=ADE20K_IMAGES),
    "the learning rate of all parameters rises over 1,500 steps; there that of what is new rises over 500, and that "
    "of the ViT is 0 for these and rises over the next 1,000",
    "the learning rate of the last block is 0.8 of the peak and that of the embedding 0.8**25; there the last block "
    "has the peak, and the embedding 0.8**23, as the first block",
    "in training the shorter side of an image is fitted to 0.375 to 1.5 of the crop, which makes the longer side of a "
    "4:3 image 0.5 to 2 of it; there the longer side is, whatever the shape",
    "colours are changed by mmseg's transform, not torchvision's; crops are filled up with the mean colour, not black; "
    "a crop without a label is kept, not drawn again",
    "windows in evaluation begin every 512 px, the last moved inside; there three and more are spread evenly",
    "masked attention is annealed by sixths of the run, up to 31 steps later than by the steps stated there; in an "
    "evaluation meanwhile a block masks all queries or none",
)
def eomt_large_ade20k() -> SegmentationConfig:
    """EoMT on DINOv2's ViT-L with registers, 512 px: 58.4 mIoU (tue-mps/eomt, model_zoo/dinov2.md; arXiv 2503.19108).

    torchrun --nproc-per-node 8 tools/train_seg.py eomt_large_ade20k --data ADEChallengeData2016 \
        --init dinov2_vitl14_reg4_pretrain.pth --init-source dinov2 --init-resize-patch --out runs/seg_eomt_l

    31 epochs of 16 images, 100 queries in the last four blocks, patches of 14 px resampled to 16, gradients clipped at
    a norm of 0.01, everything decayed, windows in evaluation (tue-mps/eomt: configs/dinov2/ade20k/semantic/
    eomt_large_512.yaml, main.py). Weights of another family: --init-architecture file.
    """
    vit = replace(
        FAMILY["vit_large_patch16"].at(512, 512), position="learned", registers=4, layer_scale=1e-5
    )  # timm's vit_large_patch14_reg4_dinov2, made for patches of 16
    config = _ade20k(vit, length=Duration(31, "epochs"), lr=1e-4, layer_decay=0.8, drop_path=0.0)
    schedule = ScheduleConfig(kind="poly", power=0.9, warmup=Duration(1500))
    run = replace(config.run, optim=replace(config.run.optim, clip_norm=0.01), schedule=schedule)
    return replace(
        config,
        out_indices=(vit.depth - 1,),
        head=HeadConfig(kind="eomt"),
        resize_ratio=(0.375, 1.5),
        cat_max_ratio=1.0,
        no_weight_decay="nothing",
        slide=SlideConfig(stride=512),
        run=replace(run, eval_every=Duration(5, "epochs")),
    )


def _hundred_epochs(vit: ViTConfig) -> SegmentationConfig:
    """Return the recipe of every arm of MAE's table 5: nothing in it depends on the weights."""
    drop_path = {12: 0.1, 24: 0.2}[vit.depth]
    return _ade20k(vit, length=Duration(100, "epochs"), lr=1e-4, layer_decay=0.65, drop_path=drop_path)


def _ade20k(vit: ViTConfig, *, length: Duration, lr: float, layer_decay: float, drop_path: float) -> SegmentationConfig:
    """Return what the published recipes share: UPerNet as wide as the ViT, 16 images, poly decay, windows in test."""
    crop = vit.image_size[0]
    return SegmentationConfig(
        backbone=vit,
        out_indices=OUT_INDICES[vit.depth],
        head=HeadConfig(channels=vit.embed_dim),
        resize=(4 * crop, crop),
        drop_path=drop_path,
        no_weight_decay="vectors",
        slide=SlideConfig(stride=2 * crop // 3),  # 341 and 426 pixels
        run=RunConfig(
            length=length,
            batch_size=16,
            optim=OptimConfig(base_lr=lr, base_batch_size=16, layer_decay=layer_decay),
            schedule=ScheduleConfig(kind="poly", warmup=Duration(1500), warmup_start=1e-6),
            eval_every=Duration(16_000),
            save_every=Duration(4_000),
            eval_batch_size=4,
        ),
    )


RECIPES: dict[str, Callable[[], SegmentationConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        tiny,
        small,
        tiny_eomt,
        mae_base_mmseg,
        mae_base_long_seq,
        mae_base_100ep,
        mae_large_100ep,
        beit_base_100ep,
        beit_large_100ep,
        beit_base_640,
        linear_base,
        eomt_large_ade20k,
    )
}
