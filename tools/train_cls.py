"""Fine-tune the shared ViT backbone for image classification.

    python tools/train_cls.py tiny --data imagenet --init runs/mae/backbone.safetensors --out runs/cls

--data holds train/<class>/ and val/<class>/ with images. Metrics: top1, top5 in percent, in OUT/record.json.
"""

from dataclasses import dataclass

from classification.recipes import RECIPES
from classification.task import build_task
from engine.launch import TrainArgs, choose_recipe, fail, override, parse, train


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Flags of classification."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    args = parse(Args, argv, doc=__doc__)
    try:
        config = override(choose_recipe(RECIPES, args.recipe), args)
    except ValueError as error:
        return fail(error)
    return train(args, config, build_task)


if __name__ == "__main__":
    raise SystemExit(main())
