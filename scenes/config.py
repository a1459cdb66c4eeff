"""Which scenes a data set is made of: world, seed, image size, and the number of images of each split and layout."""

from dataclasses import dataclass, field
from typing import Literal

VERSION = 1
"""Of the generator: raised when a seed gives other pictures, so that old folders are not taken for new."""

IDS_PER_SPLIT = 10_000_000

WorldName = Literal["outdoor", "indoor"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split and the name that each layout has for it."""

    name: str
    number: int
    coco: str
    ade20k: str


SPLITS: tuple[Split, ...] = (
    Split(name="train", number=0, coco="train2017", ade20k="training"),
    Split(name="val", number=1, coco="val2017", ade20k="validation"),
    Split(name="test", number=2, coco="test2017", ade20k="test"),
)


@dataclass(frozen=True, kw_only=True)
class SceneCounts:
    """How many images each split of each layout has."""

    classify_train: int = 3000
    """ImageFolder images to train on: pre-training takes many."""
    classify_val: int = 500
    """ImageFolder images to validate on."""
    classify_test: int = 500
    """ImageFolder images to test on."""
    dense_train: int = 200
    """COCO and ADE20K images to train on: transfer takes few."""
    dense_val: int = 200
    """COCO and ADE20K images to validate on."""
    dense_test: int = 200
    """COCO and ADE20K images to test on."""

    def classify(self, split: Split) -> int:
        """Return the number of ImageFolder images of the split."""
        return (self.classify_train, self.classify_val, self.classify_test)[split.number]

    def dense(self, split: Split) -> int:
        """Return the number of COCO and of ADE20K images of the split."""
        return (self.dense_train, self.dense_val, self.dense_test)[split.number]


@dataclass(frozen=True, kw_only=True)
class ScenesConfig:
    """All that the files depend on."""

    world: WorldName = "outdoor"
    """Which classes there are: 8 kinds of thing on 8 kinds of region outdoors, 12 on 12 indoors. The worlds share no
    shape, texture or class, so that one can be pre-trained on and the other transferred to."""
    seed: int = 0
    """Any number from 0 on; each split of each seed has a stream of its own."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width in pixels."""
    counts: SceneCounts = field(default_factory=SceneCounts)
    """Images of each split."""


def split_seed(seed: int, split: Split) -> int:
    """Return the seed of the split's stream; no two (seed, split) share one."""
    return seed * len(SPLITS) + split.number


def image_id(split: Split, index: int) -> int:
    """Return the id, unique over the splits, of scene `index`; counts from 1, as no COCO image has id 0."""
    return split.number * IDS_PER_SPLIT + index + 1
