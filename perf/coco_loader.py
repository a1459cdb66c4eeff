"""Images per second of one process: this mapper against detectron2's DatasetMapper, with ViTDet's augmentation.

    python perf/coco_loader.py coco/ --split val2017

Both read, flip, scale by 0.1 to 2.0 of --image-size and crop the same records with the same seeds, and move their
boxes. Masks are left out of the comparison, since detectron2's cropping of polygons needs shapely; ours with masks is
printed beside it. Prints images/s, the ratio (median of the rounds, which alternate), and whether the pixels are equal.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from detection.data.coco import annotation_file, read_coco
from detection.data.mapping import train_data
from engine.training.seeding import seeded


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder that holds <split>/ and annotations/."""
    split: str = "val2017"
    """Split of the data set."""
    image_size: int = 1024
    """Side of the square in pixels."""
    images: int = 100
    """Images per round."""
    rounds: int = 3
    """Rounds of each mapper."""


def run(samples: Any, count: int) -> tuple[float, list[torch.Tensor]]:
    """Return images per second and the images."""
    began = time.perf_counter()
    images = []
    for number in range(count):
        with seeded(number):
            images.append(samples(number)["image"])
    return count / (time.perf_counter() - began), images


def main() -> None:
    """Print the figures."""
    args = tyro.cli(Args, description=__doc__)
    torch.set_num_threads(1)
    split = read_coco(annotation_file(args.data, args.split, None), data=args.data, split=args.split)
    data, masked = (
        train_data(split, image_size=args.image_size, scale_jitter=(0.1, 2.0), flip=True, masks=masks)[0]
        for masks in (False, split.masks)
    )
    side = args.image_size
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[
            T.RandomFlip(horizontal=True),
            T.ResizeScale(min_scale=0.1, max_scale=2.0, target_height=side, target_width=side),
            T.FixedSizeCrop(crop_size=(side, side), pad=False),
        ],
        image_format="RGB",
    )
    records = [data.records[number] for number in range(len(data))]
    count = min(args.images, len(records))
    rates: dict[str, list[float]] = {"ours": [], "detectron2": [], "masks": []}
    for _ in range(args.rounds):
        rate, ours = run(lambda number: data[number], count)
        rates["ours"].append(rate)
        rate, theirs = run(lambda number: mapper(records[number]), count)
        rates["detectron2"].append(rate)
        rates["masks"].append(run(lambda number: masked[number], count)[0])
    equal = sum(a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    one, other = median(rates["ours"]), median(rates["detectron2"])
    print(f"ours {one:.1f} images/s, detectron2's DatasetMapper {other:.1f} images/s: {one / other:.2f}x")
    print(f"ours with masks {median(rates['masks']):.1f} images/s")
    print(f"{equal} of {count} images have equal pixels")


if __name__ == "__main__":
    main()
