"""ViTDet's recipes on LVIS v1 (arXiv 2203.16527, appendix A.3, table 10; detectron2's projects/ViTDet/configs/LVIS).

As on COCO, with images of rare classes repeated, sigmoid scores with the federated loss, 300 detections from a score of
0.02 on, 156,250 steps, and learning rates of 2e-4 (B, L) and 1e-4 (H). Box and mask AP are detectron2's table of
results, single scale, by LVIS's protocol; five seeds of ViT-B spread by 0.3 (standard deviation, the same table). Hours
are of an A100 at its seconds per image. None of these was run here at full size: they need LVIS and GPUs.

Images are COCO's: --data is the folder that holds train2017/ and val2017/.
"""

from dataclasses import replace

from detection.config import DetectionConfig
from detection.recipes.vitdet import DEPARTURES, WARMUP, vitdet_base, vitdet_huge, vitdet_large
from engine.config import Duration
from engine.recipe import departs

STEPS = 156_250  # 100 epochs of 100,000 images at batch 64
MILESTONES = (138_889 / 156_250, 150_463 / 156_250)

_in_what_it_departs = departs(
    *DEPARTURES,
    "fractions of repeat factors are rounded by chance once, alike in all runs; detectron2 rounds them in every pass",
)


def _on_lvis(coco: DetectionConfig, *, lr: float, drop_path: float) -> DetectionConfig:
    run = coco.run
    return replace(
        coco,
        drop_path=drop_path,
        repeat_threshold=0.001,
        heads=replace(coco.heads, classifier="federated", score_threshold=0.02, max_detections=300),
        train_split="lvis_v1_train",
        val_split="lvis_v1_val",
        run=replace(
            run,
            length=Duration(STEPS),
            optim=replace(run.optim, base_lr=lr),
            schedule=replace(run.schedule, milestones=MILESTONES, warmup=Duration(WARMUP)),
            eval_every=Duration(30_000),
        ),
    )


@_in_what_it_departs
def vitdet_lvis_base() -> DetectionConfig:
    """ViTDet-B Mask R-CNN on LVIS v1: box AP 40.2, mask AP 38.2 from MAE (detectron2's table).

    About 880 A100-hours: 0.317 s an image. ViTDet, table 10: 40.1 and 38.1.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_lvis_base --data coco --init mae_pretrain_vit_base.pth
    --init-source mae --train-json lvis_v1_train.json --val-json lvis_v1_val.json --out runs/lvis`
    """
    return _on_lvis(vitdet_base(), lr=2e-4, drop_path=0.1)


@_in_what_it_departs
def vitdet_lvis_large() -> DetectionConfig:
    """ViTDet-L Mask R-CNN on LVIS v1: box AP 46.1, mask AP 43.6 from MAE (detectron2's table).

    About 1,600 A100-hours: 0.576 s an image. ViTDet, table 10: 46.1 and 43.5.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_lvis_large --data coco --init mae_pretrain_vit_large.pth
    --init-source mae --train-json lvis_v1_train.json --val-json lvis_v1_val.json --out runs/lvis`
    """
    return _on_lvis(vitdet_large(), lr=2e-4, drop_path=0.4)


@_in_what_it_departs
def vitdet_lvis_huge() -> DetectionConfig:
    """ViTDet-H Mask R-CNN on LVIS v1: box AP 49.1, mask AP 46.0 from MAE (detectron2's table).

    About 2,940 A100-hours: 1.059 s an image. MAE's H/14 becomes H/16 by --init-resize-patch.

    `torchrun --nproc-per-node 8 tools/train_det.py vitdet_lvis_huge --data coco --init mae_pretrain_vit_huge.pth
    --init-source mae --init-resize-patch --train-json lvis_v1_train.json --val-json lvis_v1_val.json --out runs/lvis`
    """
    return _on_lvis(vitdet_huge(), lr=1e-4, drop_path=0.4)


LVIS = {recipe.__name__: recipe for recipe in (vitdet_lvis_base, vitdet_lvis_large, vitdet_lvis_huge)}
