"""Mean and standard deviation of the pixels of the training images, for images unlike ImageNet's.

They are computed once, before the first step, and are part of the run's configuration from then on: a resumed run
reads them there, and the backbone's file states them to whoever loads it.

Every image counts alike, whatever its size: it is resized as for evaluation, shorter side to resolution / CROP_PCT,
and taken whole, since training crops come from all of it; one that is all length piece by piece, PIECES at most, evenly
spaced. One of other than three channels is taken as it is. With m and s the means of an image's pixels and of their
squares, from 0 to 1, the mean is E[m] and the std sqrt(E[s] - E[m]^2), rounded to DIGITS. Of more than SAMPLE
images a fixed random choice is taken, the same for every seed of the run; an image's mean deviates by 0.15 or so from
that of all, which the sample brings to 0.0015. Axis letters: C channels, V values of a byte.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from classification.config import ClassificationConfig
from classification.data import MOST_SIDES
from engine.config import UnlabelledSplits
from engine.device import device_named
from engine.images.arrays import RGB, array_kind
from engine.images.reading import ImageFiles, ImageSource, UnreadableImageError, evenly_spaced, open_images
from engine.records.identity import check_folder, read_identity
from engine.records.record import IDENTITY_NAME as NAME
from engine.training.data import loading_for
from engine.training.log import evaluation_lines
from files.typed import from_json
from pretraining.augment import CROP_PCT, is_long, resized_part, resized_size
from pretraining.beit.config import BEiTConfig
from pretraining.mae.config import MAEConfig
from pretraining.moco_v3.config import MoCoConfig
from pretraining.splits import open_splits

SAMPLE = 10_000  # images; some minutes of one process on photographs, less with --workers
DIGITS = 4
PIECES = 64  # of a long image, each of MOST_SIDES shorter sides

C = TypeVar("C", MAEConfig, BEiTConfig, MoCoConfig, ClassificationConfig)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What was computed, and of what."""

    normalisation: Normalisation
    images: int
    """That it is of."""
    of: int
    """Images that there are."""
    unreadable: tuple[str, ...]
    """Of the images that were chosen; left out."""

    def lines(self) -> list[str]:
        """Return them for people."""
        mean, std = self.normalisation.mean, self.normalisation.std
        found = f"statistics of {self.images} of {self.of} training images: mean {mean}, standard deviation {std}"
        return [found, *(f"warning: left out of the statistics: {error}" for error in self.unreadable)]


def with_statistics(config: C, *, data: Path, out: Path, resume: bool, init: InitialWeights | None) -> C:
    """Return the configuration with the normalisation of the training images, computed and printed.

    That of the run in `out` where one is to be resumed. Raises ValueError where the initial weights state theirs, where
    the run to be resumed has none, and where no image could be read.
    """
    if (start := init.path if init is not None else getattr(config, "resume_from", None)) is not None:
        raise ValueError(f"{start}: weights know what their pixels were normalised with; drop --statistics.")
    if not resume:
        check_folder(out, {}, resume=False)  # before the work
    elif (out / NAME).is_file():
        return replace(config, normalisation=_of_run(out / NAME))
    say = print if os.environ.get("RANK", "0") == "0" else _nothing  # every process computes the same
    made = measure(
        open_splits(data, config, config.backbone.in_chans).train
        if isinstance(config, UnlabelledSplits)
        else open_images(data / config.train_split, config.backbone.in_chans),
        config.backbone.image_size,
        channels=config.backbone.in_chans,
        workers=loading_for(config.run.workers, device_named(config.run.device, processes=1)).workers,
        progress=evaluation_lines("statistics:", say),
    )
    for line in made.lines():
        say(line)
    return replace(config, normalisation=made.normalisation)


def of_arrays(folder: Path, channels: int) -> "ChannelsFound":
    """Return the statistics of the arrays of so many channels below a folder, and which types of numbers they have.

    Raises ValueError for three channels, which are RGB's, and for arrays of another number; and as `measure`.
    """
    if channels == RGB:
        raise ValueError(f"--in-chans {RGB} is RGB, whose statistics --statistics of tools/pretrain.py takes.")
    if channels < 1:
        raise ValueError(f"--in-chans {channels}: it must be at least 1.")
    images = open_images(folder, channels)
    made = measure(images, (1, 1), workers=0, progress=lambda done, of: None, channels=channels)
    kinds: Counter[str] = Counter()
    for path in images.files if isinstance(images, ImageFiles) else ():
        with suppress(UnreadableImageError):  # those are named already
            kinds[array_kind(path)] += 1
    return ChannelsFound(made, kinds)


@dataclass(frozen=True)
class ChannelsFound:
    """Statistics of arrays, for people."""

    statistics: Statistics
    kinds: Counter[str]
    """Type of the numbers -> how many images; of tar shards nothing."""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """What could not be read, a line for each."""
        return self.statistics.unreadable

    def lines(self) -> list[str]:
        """Return them, the flags of the training tools last."""
        made = self.statistics
        mean, std = (" ".join(f"{v:g}" for v in values) for values in asdict(made.normalisation).values())
        lines = [f"{made.images} of {made.of} images read, {len(made.normalisation.mean)} channels"]
        if self.kinds:
            lines.append("numbers: " + ", ".join(f"{kind} ({count})" for kind, count in self.kinds.most_common()))
        if len(self.kinds) > 1:
            lines.append("warning: numbers of several types, each scaled by its own type; make sure they mean the same")
        lines += [f"left out: {error}" for error in made.unreadable]
        return [*lines, "", f"--in-chans {len(made.normalisation.mean)} --channel-mean {mean} --channel-std {std}"]


def measure(
    images: ImageSource,
    size: tuple[int, int],
    *,
    workers: int,
    progress: Callable[[int, int], None],
    channels: int = RGB,
) -> Statistics:
    """Return the statistics of images seen at `size` (height, width in pixels); `workers` processes read them.

    `progress` is told how many of how many are done. Raises ValueError where none can be read, or all are of one
    colour.
    """
    count = min(SAMPLE, len(images))
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:count])
    samples = _Samples(images, chosen, shorter=math.floor(min(size) / CROP_PCT))
    total_2C = np.zeros((2, channels))
    unreadable: list[str] = []
    progress(0, count)
    for done, (moments_2C, error) in enumerate(
        DataLoader(samples, batch_size=None, num_workers=workers, collate_fn=_as_it_is), start=1
    ):
        if error:
            unreadable.append(error)
        else:
            total_2C += moments_2C
        progress(done, count)
    read = count - len(unreadable)
    if not read:
        raise ValueError(f"none of {count} images could be read for their statistics; the last: {unreadable[-1]}")
    mean_C, square_C = total_2C / read
    std_C = np.sqrt(np.maximum(square_C - mean_C**2, 0.0))
    rounded = np.round if channels == RGB else _significant  # a channel may use a small part of 0 to 1
    normalisation = Normalisation(*(tuple(rounded(v, DIGITS).tolist()) for v in (mean_C, std_C)))
    return Statistics(normalisation=normalisation, images=read, of=len(images), unreadable=tuple(unreadable))


def moments(pieces: Iterable[Image.Image]) -> np.ndarray:
    """Return the means (2, C) of the pixels of an RGB image, given in pieces, from 0 to 1, and of their squares."""
    count_CV = sum(np.array(piece.histogram()).reshape(3, 256) for piece in pieces)
    share_CV = count_CV / np.sum(count_CV, axis=1, keepdims=True)
    level_V = np.arange(256) / 255
    return np.stack([share_CV @ level_V, share_CV @ level_V**2])


class _Samples(Dataset[tuple[np.ndarray, str]]):
    """The moments of chosen images, or why there are none."""

    def __init__(self, images: ImageSource, chosen: np.ndarray, *, shorter: int) -> None:
        self.images, self.chosen, self.shorter = images, chosen, shorter

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> tuple[np.ndarray, str]:
        try:
            image = self.images.read(int(self.chosen[number]))
        except UnreadableImageError as error:
            return np.zeros((2, 1)), str(error)
        if isinstance(image, np.ndarray):
            wide_HWC = image.astype(np.float64)
            return np.stack([wide_HWC.mean(axis=(0, 1)), np.square(wide_HWC).mean(axis=(0, 1))]), ""
        return moments(_pieces(image, self.shorter)), ""


def _significant(values: np.ndarray, digits: int) -> np.ndarray:
    """Return numbers rounded to so many significant digits."""
    return np.array([float(f"{value:.{digits}g}") for value in values])


def _pieces(image: Image.Image, shorter: int) -> Iterator[Image.Image]:
    """Yield the image with its shorter side resized to `shorter`, in pieces where it is all length."""
    if not is_long(image):
        yield v2.functional.resize(image, [shorter], v2.InterpolationMode.BICUBIC)
        return
    height, width = size = resized_size(image, shorter)
    step = MOST_SIDES * shorter
    for begin in evenly_spaced(range(0, max(size), step), PIECES):
        end = min(begin + step, max(size))
        yield resized_part(image, size, (begin, 0, end, height) if width > height else (0, begin, width, end))


def _nothing(_: str) -> None:
    """Say nothing."""


def _as_it_is(sample: Any) -> Any:
    return sample


def _of_run(path: Path) -> Normalisation:
    """Return what the configuration of a run states."""
    identity = read_identity(path)
    try:
        return from_json(Normalisation, identity["config"]["normalisation"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: states no mean and std, so the run was not begun with --statistics; drop the flag, or give "
            "another --out."
        ) from error
