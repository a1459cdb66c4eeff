"""Write canvases of example, mask, query and answer as an image folder: what an MAE that paints is pre-trained on.

    python tools/make_canvases.py vit_demo_patch8 --data data/scenes/coco --out data/canvases
    python tools/pretrain.py tiny --data data/canvases --target pixels --augmentation none --out runs/canvases
    python tools/in_context.py vit_demo_patch8 --data data/scenes/coco --method inpainting --init runs/canvases \
        --out runs/painted

The ViT says how large a canvas is. Each canvas has two images of one class out of a data set in COCO's format and both
masks: in OUT/train two training images, in OUT/val a validation image below a training image. docs/in_context.md has
the protocol.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from engine.flags import parse_with_config
from engine.launch import fail, refuse_among_images
from engine.probe_flags import of_every_vit
from files.naming import refuse_overwriting
from segmentation.in_context.config import EpisodeConfig


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags that are no part of the configuration."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BACKBONE")]
    """Name of the ViT that is to be pre-trained: vit_base_patch16, vit_demo_patch8, ..."""
    data: Path
    """Folder of a data set in COCO's format."""
    out: Path
    """New folder for the canvases."""


RECIPES = of_every_vit(EpisodeConfig)


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    try:
        args, config = parse_with_config(Args, RECIPES, argv, doc=__doc__, noun="ViT")
        if not args.data.is_dir():
            raise FileNotFoundError(f"{args.data}: no such folder; --data names the one that holds the data set.")
        refuse_overwriting([args.out], [args.data])
        refuse_among_images(args.out, args.data, (config.train_split, config.val_split))
        from mae_transfer.in_context import make_canvases

        folders = make_canvases(config, data=args.data, out=args.out, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    print("\n".join(map(str, folders)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
