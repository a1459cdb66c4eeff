"""Fine-tune the shared ViT backbone for image classification.

    python tools/train_cls.py tiny --data imagenet --init runs/mae/backbone.safetensors --out runs/cls

--data holds train/<class>/ and val/<class>/ with images. Metrics: top1, top5 in percent, in OUT/record.json.
"""

from classification.recipes import RECIPES
from classification.task import build_task
from engine.launch import TrainArgs, run_tool


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return run_tool(TrainArgs, argv, doc=__doc__, recipes=RECIPES, build=build_task)


if __name__ == "__main__":
    raise SystemExit(main())
