"""Pre-train the shared ViT backbone by reconstructing pixels (MAE) or from labels (supervised).

    python tools/pretrain.py tiny --data imagenet --out runs/mae
    python tools/pretrain.py tiny_supervised --data imagenet --out runs/supervised

--data holds train/ and val/ with images, for the supervised recipes in one folder per class. The run ends with
OUT/backbone.safetensors, which the tools of the three tasks take as --init, and OUT/record.json.
"""

from dataclasses import dataclass

from engine.launch import TrainArgs, choose_recipe, fail, override, parse, train
from pretraining import supervised, task
from pretraining.config import MAEConfig
from pretraining.recipes import RECIPES


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Flags of pre-training."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    args = parse(Args, argv, doc=__doc__)
    try:
        config = override(choose_recipe(RECIPES, args.recipe), args)
    except ValueError as error:
        return fail(error)
    return train(args, config, task.build_task if isinstance(config, MAEConfig) else supervised.build_task)


if __name__ == "__main__":
    raise SystemExit(main())
