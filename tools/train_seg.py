"""Train the shared ViT backbone for semantic segmentation (UPerNet).

    python tools/train_seg.py tiny --data scenes/ade20k --init runs/mae/backbone.safetensors --out runs/seg

--data holds images/{training,validation} and annotations/{training,validation}: PNG label maps with 0 for
unlabelled and 1 to N for the classes, which objectInfo<N>.txt may name. Metrics: miou, macc, aacc in percent,
in OUT/record.json.
"""

from dataclasses import dataclass

from engine.launch import TrainArgs, choose_recipe, fail, override, parse, train
from segmentation.recipes import RECIPES
from segmentation.task import build_task


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Flags of segmentation."""


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
