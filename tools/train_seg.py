"""Train the shared ViT backbone for semantic segmentation (UPerNet, EoMT), or a linear head on its frozen features.

    python tools/train_seg.py tiny --data scenes/ade20k --init runs/mae/backbone.safetensors --out runs/seg

--data holds images/{training,validation} and annotations/{training,validation}: PNG label maps with 0 for
unlabelled and 1 to N for the classes, which objectInfo<N>.txt may name. Other layouts (Cityscapes, PASCAL VOC,
COCO-Stuff, a folder of one's own) are declared by --layout. Command, published figure and source of each recipe are
in segmentation/recipes.py; the record says in what a run departs from them. Metrics: miou, macc, aacc in percent,
in OUT/record.json.
"""

from engine.launch import train
from engine.spec import of_tool
from mae_transfer.tasks import TASKS


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return train(argv, of_tool(TASKS, "train_seg"), doc=__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
