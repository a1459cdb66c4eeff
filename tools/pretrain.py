"""Pre-train the shared ViT backbone by reconstructing pixels (MAE) or from labels (supervised).

    python tools/pretrain.py tiny --data imagenet --out runs/mae
    python tools/pretrain.py tiny_supervised --data imagenet --out runs/supervised

--data holds train/ and val/ with images, for the supervised recipes in one folder per class. The run ends with
OUT/backbone.safetensors, which the tools of the three tasks take as --init, and OUT/record.json.
"""

from engine.launch import TrainArgs, run_tool
from pretraining.build import build_task
from pretraining.recipes import RECIPES


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return run_tool(TrainArgs, argv, doc=__doc__, recipes=RECIPES, build=build_task)


if __name__ == "__main__":
    raise SystemExit(main())
