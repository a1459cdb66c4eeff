"""Look at a data set before it is trained on: counts, classes, sizes, every defect and how it is treated.

    python tools/check_data.py coco coco/
    python tools/check_data.py coco mine/ --annotations mine/train.json mine/val.json
    python tools/check_data.py ade20k ade20k/
    python tools/check_data.py classes imagenet/
    python tools/check_data.py channels spectral/ --in-chans 5

The last prints mean and std of each channel of the .npy arrays below a folder, as flags of the training tools. With
--in-chans `ade20k` and `classes` look at such arrays. `coco` and `ade20k` write a contact sheet (--sheet; one of its
own for each data set unless given); the exit code is 1 where training would be refused or stopped.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from engine.images.arrays import RGB
from engine.images.file import allow_megapixels
from engine.launch import fail, parse
from files.naming import distinct_stems


@dataclass(frozen=True, kw_only=True)
class Coco:
    """COCO, LVIS, or a data set of one's own in COCO's format."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder that holds <split>/ with images, and annotations/."""
    annotations: tuple[Path, ...] = ()
    """Annotation files; all annotations/instances_*.json in DIR unless given."""
    sheet: Path | None = None
    """Picture to write; check_data_NAME_DIGEST.png of the data set unless given."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; 179 unless given."""


@dataclass(frozen=True, kw_only=True)
class Ade20k:
    """ADE20K, or a data set of one's own with label maps."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder that holds images/, and annotations/ or labels/."""
    layout: Literal["ade20k", "folder"] = "ade20k"
    """`folder` takes labels/ and classes.txt in the place of ADE20K's own files."""
    in_chans: int = RGB
    """Channels of the images; of other than three they are .npy arrays."""
    sheet: Path | None = None
    """Picture to write; check_data_NAME_DIGEST.png of the data set unless given."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; 179 unless given."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """A folder of images per class."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder that holds train/<class>/ and val/<class>/."""
    val_split: str = "val"
    """Folder of the validation images, beside train/."""
    in_chans: int = RGB
    """Channels of the images; of other than three they are .npy arrays."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; 179 unless given."""


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Mean and std of each channel of .npy arrays, at any depth of a folder or in tar shards."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder of the training images."""
    in_chans: int
    """Channels of the images, other than three."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; 179 unless given."""


Form = (
    Annotated[Coco, tyro.conf.subcommand("coco")]
    | Annotated[Ade20k, tyro.conf.subcommand("ade20k")]
    | Annotated[Classes, tyro.conf.subcommand("classes")]
    | Annotated[Channels, tyro.conf.subcommand("channels")]
)
Args = Coco | Ade20k | Classes | Channels


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 nothing to mend, 1 faults or failed."""
    args: Args = parse(Form, argv, doc=__doc__)  # type: ignore[arg-type]
    try:
        allow_megapixels(args.max_megapixels)
        lines, faults, sheet = _look(args)
    except (ValueError, OSError) as error:
        return fail(error)
    print("\n".join(lines))
    if sheet is not None:
        print(f"contact sheet: {sheet}")
    return 1 if faults else 0


def _look(args: Args) -> tuple[tuple[str, ...], tuple[str, ...], Path | None]:
    if isinstance(args, Coco):
        return _coco(args)
    if isinstance(args, Channels):
        return _channels(args)
    return _ade20k(args) if isinstance(args, Ade20k) else _classes(args)


def _coco(args: Coco) -> tuple[tuple[str, ...], tuple[str, ...], Path | None]:
    from detection.data.check import check_coco  # here, so that the other form needs no detectron2

    found = check_coco(args.data, files=args.annotations, sheet=_sheet(args))
    return found.lines, found.faults, found.sheet


def _ade20k(args: Ade20k) -> tuple[tuple[str, ...], tuple[str, ...], Path | None]:
    from segmentation.data.check import check_ade20k  # here, so that the other form needs no mmseg

    found = check_ade20k(args.data, sheet=_sheet(args), layout=args.layout, channels=args.in_chans)
    return found.lines, found.faults, found.sheet


def _sheet(args: Coco | Ade20k) -> Path:
    """Return where the contact sheet goes: to a file that no other data set's goes to."""
    if args.sheet is not None:
        return args.sheet
    folder = args.data.resolve()
    digest = hashlib.sha256(f"{type(args).__name__} {os.fsencode(folder)!r}".encode()).hexdigest()[:6]
    (stem,) = distinct_stems([f"check_data_{folder.name}_{digest}"], [str(folder)], endings=(".png",))
    return Path(f"{stem}.png")


def _classes(args: Classes) -> tuple[tuple[str, ...], tuple[str, ...], Path | None]:
    from classification.check import check_folders  # here, so that the other forms need not wait for timm

    found = check_folders(args.data, val_split=args.val_split, channels=args.in_chans)
    return found.lines, found.faults, None


def _channels(args: Channels) -> tuple[tuple[str, ...], tuple[str, ...], Path | None]:
    from pretraining.statistics import of_arrays

    found = of_arrays(args.data, args.in_chans)
    return tuple(found.lines()), found.unreadable, None


if __name__ == "__main__":
    raise SystemExit(main())
