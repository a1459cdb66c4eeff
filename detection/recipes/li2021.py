"""The recipes behind MAE's table 4 on COCO (Li et al. 2021, arXiv 2111.11429, section 2 and appendix; MAE, A.3).

An FPN over the maps of four blocks, batch norm over all processes in FPN and heads, one table of relative positions for
the blocks with windows and one for those without, large-scale jitter at 1,024 pixels, AdamW at batch 64, half a cosine
after a quarter of an epoch of warm-up. The paper takes the best of 25, 50 and 100 epochs for each start (from random
weights of 100, 200 and 400): the longest here, others by --epochs. Its code is not public and GPU-hours are not
published. None of these was run here at full size: they need COCO and GPUs.
"""

from dataclasses import replace

from detection.config import DetectionConfig, HeadsConfig
from detection.recipes.vitdet import SIDE, vitdet_backbone
from engine.config import Duration, OptimConfig, RunConfig, ScheduleConfig
from engine.recipe import departs

_in_what_it_departs = departs(
    "auto precision takes bfloat16 where the device has it; published runs used float16",
    "the order of images and every random draw follow this project's seeds",
    "not published: which parameters have no weight decay (vectors and position table here, as in MAE's fine-tuning)",
    "not published: the start of the warm-up (a thousandth here) and the groups of the finest map's norm (32 here)",
)
_for_random_weights = {"lr": 1.6e-4, "weight_decay": 0.2, "epochs": 400}


def _recipe(
    size: str, *, drop_path: float, lr: float = 8e-5, weight_decay: float = 0.1, epochs: float = 100
) -> DetectionConfig:
    return DetectionConfig(
        backbone=replace(vitdet_backbone(size, relative=False), relative_position="shared_table"),
        image_size=SIDE,
        pyramid="fpn",
        drop_path=drop_path,
        heads=HeadsConfig(norm="batch"),
        run=RunConfig(
            length=Duration(epochs, "epochs"),
            batch_size=64,
            optim=OptimConfig(base_lr=lr, base_batch_size=64, weight_decay=weight_decay),
            schedule=ScheduleConfig(kind="cosine", warmup=Duration(0.25, "epochs"), warmup_start=0.001),
            eval_every=Duration(5000),
            save_every=Duration(5000),
            workers=4,
            eval_batch_size=1,
        ),
    )


@_in_what_it_departs
def li2021_base() -> DetectionConfig:
    """ViT-B, Mask R-CNN with FPN: box AP 50.3, mask AP 44.9 from MAE (MAE, table 4).

    From labels (DeiT-B, --arm supervised) 47.9 and 42.9, from BEiT 49.8 and 44.4 at the same settings. GPU-hours
    not published.

    `torchrun --nproc-per-node 8 tools/train_det.py li2021_base --data coco --init mae_pretrain_vit_base.pth
    --init-source mae --out runs/li2021`
    """
    return _recipe("base", drop_path=0.1)


@_in_what_it_departs
def li2021_large() -> DetectionConfig:
    """ViT-L, Mask R-CNN with FPN: box AP 53.3, mask AP 47.2 from MAE (MAE, table 4).

    From labels (--arm supervised) 49.3 and 43.9, from BEiT 53.3 and 47.1 at the same settings. GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py li2021_large --data coco --init mae_pretrain_vit_large.pth
    --init-source mae --out runs/li2021`
    """
    return _recipe("large", drop_path=0.3)


@_in_what_it_departs
def li2021_base_moco_v3() -> DetectionConfig:
    """ViT-B, Mask R-CNN with FPN: box AP 47.9, mask AP 42.7 from MoCo v3 (MAE, table 4); learning rate 1.6e-4.

    GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py li2021_base_moco_v3 --data coco --init vit-b-300ep.pth.tar
    --init-source moco_v3 --out runs/li2021`
    """
    return _recipe("base", drop_path=0.1, lr=1.6e-4)


@_in_what_it_departs
def li2021_large_moco_v3() -> DetectionConfig:
    """ViT-L, Mask R-CNN with FPN: box AP 49.3, mask AP 44.0 from MoCo v3 (MAE, table 4); learning rate 1.6e-4.

    GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py li2021_large_moco_v3 --data coco --init FILE
    --init-source moco_v3 --out runs/li2021`
    """
    return _recipe("large", drop_path=0.3, lr=1.6e-4)


@_in_what_it_departs
def li2021_base_random() -> DetectionConfig:
    """ViT-B, Mask R-CNN with FPN: box AP 48.9, mask AP 43.6 from random weights (Li et al., table 1).

    Learning rate 1.6e-4, weight decay 0.2, 400 epochs. GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py li2021_base_random --data coco --out runs/li2021`
    """
    return _recipe("base", drop_path=0.1, **_for_random_weights)


@_in_what_it_departs
def li2021_large_random() -> DetectionConfig:
    """ViT-L, Mask R-CNN with FPN: box AP 50.7, mask AP 44.9 from random weights (Li et al., table 1).

    Learning rate 1.6e-4, weight decay 0.2, 400 epochs. GPU-hours not published.

    `torchrun --nproc-per-node 8 tools/train_det.py li2021_large_random --data coco --out runs/li2021`
    """
    return _recipe("large", drop_path=0.3, **_for_random_weights)


LI2021 = {
    recipe.__name__: recipe
    for recipe in (
        li2021_base,
        li2021_large,
        li2021_base_moco_v3,
        li2021_large_moco_v3,
        li2021_base_random,
        li2021_large_random,
    )
}
