"""Images decoded on the device (`--decode device`) beside a loader process: time, and how far pixels are apart."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from backbones.weights.normalisation import IMAGENET
from classification.config import Augmentation
from classification.data import train_transform
from engine.images.encoded import EncodedBatch, encoded, open_encoded
from engine.images.jpeg import picture_of
from engine.images.reading import ImageFile
from engine.training.seeding import seeded
from perf.gpu.machine import median_seconds
from perf.gpu.row import Ask

SIZE = 500, 375  # width and height of most of ImageNet's photographs


def photographs(count: int) -> list[ImageFile]:
    """Return JPEGs with detail at several scales, quality 90, chroma at half the resolution."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        levels = np.array(coarse, dtype=np.int16) + rng.integers(-12, 13, (SIZE[1], SIZE[0], 3))
        buffer = io.BytesIO()
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(ImageFile(f"{number}.jpg", buffer.getvalue()))
    return files


def _seen(make: Callable[[ImageFile], Any], files: list[ImageFile]) -> list[Any]:
    made = []
    for number, file in enumerate(files):
        with seeded(number):
            made.append(make(file))
    return made


def decoding(ask: Ask) -> None:
    """Say images/s of a batch's decoding on the device, of a loader process, and how far their pixels are apart."""
    files = photographs(4 if ask.small else 256)
    augment = {"crop_scale": (0.2, 1.0), "resize": "tensor"}
    view, placed = (
        train_transform((224, 224), Augmentation(decode=how, **augment), IMAGENET)  # type: ignore[arg-type]
        for how in ("full", "device")
    )
    place = placed.place
    assert place is not None

    def open_one(file: ImageFile) -> Any:
        opened = open_encoded(file)
        return encoded(opened, [place(*opened.size)])

    batch = EncodedBatch(_seen(open_one, files))
    made = batch.to(ask.device).cpu()
    left = f"{sum(batch.by_cpu.values())} of {len(files)} left to the CPU"
    expected = torch.stack(_seen(lambda file: view.pixels(picture_of(file)), files))
    apart = (made.int() - expected.int()).abs().float()
    told = f"{float(apart.mean()):.3f} of 255 levels apart on average, at most {int(apart.max())}; {left}"
    ask.say("pixels against --resize tensor", told, mean=float(apart.mean()), most=float(apart.max()))
    limit = 0.01 if ask.small else 2.0
    torch.set_num_threads(1)
    for name, work in (
        (f"decoded, cropped, resized on {ask.device}", lambda: batch.to(ask.device)),
        ("the same by one loader process", lambda: _seen(lambda file: view.pixels(picture_of(file)), files)),
        ("what a loader process does besides", lambda: _seen(open_one, files)),
    ):
        rate = len(files) / median_seconds(work, ask.device, seconds=limit)
        ask.say(name, f"{rate:,.0f} images/s", images_per_second=rate)
