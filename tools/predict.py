"""What the last checkpoint of a run says of images without labels.

    python tools/predict.py runs/det photo.jpg
    python tools/predict.py runs/det photos/ "more/**/*.png" --out predictions

Writes OUT/predictions.json and a picture OUT/<image>.png for each image (boxes, masks, labels), or for some of them
(--pictures); where names repeat or are too long, a digest is added, and predictions.json says which picture is of which
image. The run's folder is enough, wherever it lies: its data and the weights that it started from may be gone. An image
that nothing can be said of is said, and the exit code is then 1.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from backbones.weights.declaration import TrustStart
from engine.channels import channels_of
from engine.config import Device
from engine.images.file import allow_megapixels
from engine.launch import fail, parse
from engine.records.record import read_record
from mae_transfer.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of prediction."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Image files, folders, or glob patterns in quotes."""
    out: Path | None = None
    """Folder to write to; RUN/predictions unless given."""
    pictures: int | None = None
    """Draw so many of the images, evenly spaced among them; all unless given, 0 draws none."""
    min_score: float | None = None
    """Draw detections of this score and more, 0.3 unless given; predictions.json has all that the run reports."""
    max_megapixels: int | None = None
    """Read images of up to so many megapixels; the run's limit unless given."""
    device: Device = "auto"
    trust_pickle: TrustStart = False


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed or an image could not be read."""
    args = parse(Args, argv, doc=__doc__)
    try:
        channels = channels_of(read_record(args.run).config, args.run)
        from engine.runs.predict import Pictures, images_named, predict_images
        from engine.runs.trained import On

        allow_megapixels(args.max_megapixels)
        wanted = Pictures(most=args.pictures, min_score=args.min_score)
        on = On(device=args.device, trust_pickle=args.trust_pickle)
        named = images_named(args.images, channels)
        done = predict_images(args.run, TASKS, named, on, wanted=wanted, out=args.out, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    print(f"{done.images} images: {done.file}")
    for path in done.pictures:
        print(path)
    if done.failed:
        print(f"error: {len(done.failed)} of {done.images + len(done.failed)} images gave nothing", file=sys.stderr)
    return 1 if done.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
