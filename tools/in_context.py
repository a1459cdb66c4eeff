"""Masks and boxes by example, without any training: an object shown in one image is found in others.

    python tools/in_context.py vit_base_patch16 --examples shown --queries photographs --init mae.pth \
        --init-source mae --out answers
    python tools/in_context.py vit_base_patch16 --data coco --init mae.pth --init-source mae --out runs/by-example
    python tools/in_context.py vit_demo_patch8 --data coco --method inpainting --init runs/canvases --out runs/painted

The first form takes folders: examples are images with masks (masks/STEM.png, not 0 where the object is) or boxes
(boxes.json), queries are images. It writes OUT/masks/STEM.png, OUT/boxes.json with one box for each query, and a
picture. With --data, a data set in COCO's format, queries are validation images with one object of a class and
examples are training images of that class; it writes a record, OUT/in_context, with the foreground IoU and the box IoU,
means over queries, beside a copy of the example's mask, the mean mask, position alone and random weights.
tools/make_canvases.py makes what an MAE that paints is pre-trained on. docs/in_context.md has the protocol and its
limits.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from engine.flags import parse_with_config
from engine.init_flags import InitFlags
from engine.launch import fail, refuse_among_images
from engine.probe_flags import of_every_vit
from files.naming import refuse_overwriting, refuse_within
from segmentation.in_context.config import InContextConfig


@dataclass(frozen=True, kw_only=True)
class Args(InitFlags):
    """Flags that are no part of the configuration."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BACKBONE")]
    """Name of a ViT: vit_base_patch16, vit_large_patch16, vit_huge_patch14, vit_demo_patch8, ..."""
    data: Path | None = None
    """Folder of a data set in COCO's format, to score on."""
    examples: Path | None = None
    """Folder of examples, in place of --data: images with masks or boxes."""
    queries: Path | None = None
    """Folder of images to find the object in, with --examples."""
    out: Path
    """Folder to write to."""


RECIPES = of_every_vit(InContextConfig)
RUN = "mae_transfer.in_context"  # imported when it is carried out


def configured(argv: list[str] | None) -> tuple[Args, InContextConfig]:
    """Return the flags and the configuration before the weights are read. Raises ValueError for an unknown ViT."""
    return parse_with_config(Args, RECIPES, argv, doc=__doc__, noun="ViT")


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    try:
        args, config = configured(argv)
    except ValueError as error:
        return fail(error)
    return carry_out(args, config)


def carry_out(args: Args, config: InContextConfig) -> int:
    """Answer, and return the exit code: 0 done, 1 failed."""
    try:
        _check(args, config)
        init = args.weights()
        if init is not None and not init.path.exists():
            raise FileNotFoundError(f"{init.path}: no such file of weights or run; mend --init.")
        from backbones.weights.initial import with_architecture
        from mae_transfer.in_context import answer_queries, score_queries

        if config.method == "retrieval":
            config = with_architecture(config, init)
        if args.data is None:
            assert args.examples is not None and args.queries is not None
            made = answer_queries(
                config, examples=args.examples, queries=args.queries, init=init, out=args.out, say=print
            )
            print("\n".join([*made.notes, *map(str, made.files)]))
            return 0
        record = score_queries(config, data=args.data, init=init, out=args.out, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    found = ", ".join(f"{name} {record.metrics[name]:.4f}" for name in ("foreground_iou", "box_iou"))
    print(f"{record.task}: {found} ({args.out / record.task / 'record.json'})")
    return 0


def _check(args: Args, config: InContextConfig) -> None:
    """Raise ValueError or FileNotFoundError for flags that name no task."""
    if (args.data is None) == (args.examples is None) or (args.examples is None) != (args.queries is None):
        raise ValueError("give --data, to be scored, or both --examples and --queries, to have images answered.")
    for flag in ("data", "examples", "queries"):
        folder: Path | None = getattr(args, flag)
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; mend --{flag}.")
    read = [path for path in (args.data, args.examples, args.queries, args.init) if path is not None]
    refuse_overwriting([args.out], read)
    if args.data is not None:
        refuse_among_images(args.out, args.data, (config.train_split, config.val_split))
        return
    refuse_within(args.out, [path for path in (args.examples, args.queries) if path is not None])
    usual = type(config)(backbone=config.backbone)
    of_data = ("shots", "prompt", "queries_per_class", "least_area", "most_area", "train_split", "val_split")
    for name in (*of_data, "train_json", "val_json"):
        if getattr(config, name) != getattr(usual, name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{flag} is for --data: of a folder all examples are shown, and all images are asked about."
            )


if __name__ == "__main__":
    raise SystemExit(main())
