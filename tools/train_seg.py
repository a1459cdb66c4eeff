"""Train the shared ViT backbone for semantic segmentation (UPerNet).

    python tools/train_seg.py tiny --data scenes/ade20k --init runs/mae/backbone.safetensors --out runs/seg

--data holds images/{training,validation} and annotations/{training,validation}: PNG label maps with 0 for
unlabelled and 1 to N for the classes, which objectInfo<N>.txt may name. Metrics: miou, macc, aacc in percent,
in OUT/record.json.
"""

from engine.launch import TrainArgs, run_tool
from segmentation.recipes import RECIPES
from segmentation.task import build_task


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return run_tool(TrainArgs, argv, doc=__doc__, recipes=RECIPES, build=build_task)


if __name__ == "__main__":
    raise SystemExit(main())
