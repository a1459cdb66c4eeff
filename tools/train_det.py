"""Train Mask R-CNN or Cascade Mask R-CNN (detectron2) on the shared ViT backbone; box and mask AP by COCO's protocol.

    python tools/train_det.py tiny --data scenes/coco --init runs/mae/backbone.safetensors --out runs/det

--data holds <split>/*.jpg and annotations/instances_<split>.json. Metrics: box_ap, box_ap50, mask_ap, mask_ap50 and
more in percent, in OUT/record.json; of LVIS annotations by LVIS's protocol. Annotations without masks train the boxes
alone. On a node of GPUs: `torchrun --nproc-per-node 8 tools/train_det.py vitdet_base ...`.
"""

from dataclasses import dataclass
from pathlib import Path

from backbones.initial import with_architecture
from detection.recipes import RECIPES
from detection.task import build_task
from engine.launch import TrainArgs, run_tool


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Flags of detection."""

    train_split: str | None = None
    """Folder of the training images, and name of their annotations; train2017 unless given."""
    val_split: str | None = None
    """Folder of the validation images, and name of their annotations; val2017 unless given."""
    empty_images: bool = False
    """Train on images without objects too, as background; they are left out unless given."""
    train_json: Path | None = None
    """Training annotations, instead of annotations/instances_<train split>.json."""
    val_json: Path | None = None
    """Validation annotations, instead of annotations/instances_<val split>.json."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return run_tool(Args, argv, doc=__doc__, recipes=RECIPES, build=build_task, adopt=with_architecture)


if __name__ == "__main__":
    raise SystemExit(main())
