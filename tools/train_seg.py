"""Train the shared ViT backbone for semantic segmentation (UPerNet), or a linear head on its frozen features.

    python tools/train_seg.py tiny --data scenes/ade20k --init runs/mae/backbone.safetensors --out runs/seg

--data holds images/{training,validation} and annotations/{training,validation}: PNG label maps with 0 for
unlabelled and 1 to N for the classes, which objectInfo<N>.txt may name. Other layouts (Cityscapes, PASCAL VOC,
COCO-Stuff, a folder of one's own) are declared by --layout. Command, published figure and source of each recipe are
in segmentation/recipes.py; the record says in what a run departs from them. Metrics: miou, macc, aacc in percent,
in OUT/record.json.
"""

from dataclasses import dataclass

from backbones.initial import with_architecture
from engine.launch import TrainArgs, run_tool
from segmentation.layout import LayoutName
from segmentation.recipes import RECIPES
from segmentation.task import build_task


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Flags of segmentation."""

    layout: LayoutName | None = None
    """How the data set lies on disk; the recipe's unless given (ade20k)."""
    train_split: str | None = None
    """Split to train on; the layout's own unless given."""
    val_split: str | None = None
    """Split to evaluate on; the layout's own unless given."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return run_tool(Args, argv, doc=__doc__, recipes=RECIPES, build=build_task, adopt=with_architecture)


if __name__ == "__main__":
    raise SystemExit(main())
