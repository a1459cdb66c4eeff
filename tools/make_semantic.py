"""Make index maps for segmentation from other people's masks.

    python tools/make_semantic.py colours --source masks --out labels/train --palette classes.txt
    python tools/make_semantic.py panoptic --annotations panoptic_train2017.json --pngs panoptic_train2017 \
        --images train2017 --out coco_semantic --split train

The palette is a classes.txt: a name a line, the first for label 0, a tab and #rrggbb behind it. `panoptic` writes
images/SPLIT, labels/SPLIT and classes.txt (the `folder` layout); run it once per split.
"""

from dataclasses import dataclass
from pathlib import Path

from engine.launch import fail, parse


@dataclass(frozen=True, kw_only=True)
class Colours:
    """Masks, colour-coded or black-and-white, whose colours stand for classes."""

    source: Path  # folder of masks, its subfolders included
    out: Path  # folder that the index maps are written to
    palette: Path  # class list with colours
    ignore: tuple[int, int, int] | None = None
    """Red, green and blue of what is not labelled; it becomes 255."""


@dataclass(frozen=True, kw_only=True)
class Panoptic:
    """COCO's panoptic PNGs and JSON."""

    annotations: Path  # the JSON
    pngs: Path  # folder of the panoptic PNGs
    images: Path  # folder of the images
    out: Path  # folder of the new data set
    split: str = "train"  # name of its split: train or val


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Colours | Panoptic, argv, doc=__doc__)  # type: ignore[arg-type]
    from segmentation.data.convert import convert_colours
    from segmentation.data.panoptic import convert_panoptic

    try:
        if isinstance(args, Colours):
            count = len(convert_colours(args.source, args.out, args.palette, ignore=args.ignore or ()))
        else:
            count = convert_panoptic(args.annotations, args.pngs, args.images, args.out, split=args.split)
    except (ValueError, OSError) as error:
        return fail(error)
    print(f"{count} label maps written to {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
