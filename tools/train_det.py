"""Train Mask R-CNN or Cascade Mask R-CNN (detectron2) on the shared ViT backbone; box and mask AP by COCO's protocol.

    python tools/train_det.py tiny --data scenes/coco --init runs/mae/backbone.safetensors --out runs/det

--data holds <split>/*.jpg and annotations/instances_<split>.json. Metrics: box_ap, box_ap50, mask_ap, mask_ap50 and
more in percent, in OUT/record.json; of LVIS annotations by LVIS's protocol. Annotations without masks train the boxes
alone. On a node of GPUs: `torchrun --nproc-per-node 8 tools/train_det.py vitdet_base ...`.
"""

from engine.launch import train
from engine.spec import of_tool
from mae_transfer.tasks import TASKS


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return train(argv, of_tool(TASKS, "train_det"), doc=__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
