"""Fine-tune, partly fine-tune or linearly probe the shared ViT backbone for image classification.

    python tools/train_cls.py tiny --data imagenet --init runs/mae/backbone.safetensors --out runs/cls
    python tools/train_cls.py tiny --protocol partial --tuned-blocks 0.5 --data imagenet --init FILE --out runs/half
    python tools/train_cls.py tiny --label-share 0.1 --data imagenet --init FILE --out runs/ten
    python tools/train_cls.py small --mixup 0 --cutmix 0 --resize tensor --data DIR --init FILE --out runs/own

--data holds train/<class>/ and val/<class>/ with images. Metrics: top1, top5 in percent, in OUT/record.json. With a
part of the labels OUT/train_list.txt names the images that were used. tools/probe.py probes cached features in a
fraction of the time; tools/eval_cls.py scores weights that come with a head; tools/predict.py looks at any image.
"""

from dataclasses import dataclass
from pathlib import Path

from backbones.initial import with_architecture
from classification.config import Pooling, Protocol, Resize
from classification.recipes import RECIPES
from classification.task import build_task
from engine.launch import TrainArgs, run_tool


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Flags of classification; what is not given is the recipe's."""

    protocol: Protocol | None = None
    """What learns: all, a linear layer on frozen features, or the head and the last blocks."""
    tuned_blocks: float | None = None
    """Blocks that learn under `partial`, counted from the last; 0.5 is the MLP half of the last block."""
    pooling: Pooling | None = None
    """What the head reads: the mean of the patch tokens, or the class token."""
    layer_decay: float | None = None
    """Layer-wise decay of the learning rate; 1 gives every layer the same."""
    drop_path: float | None = None
    """Stochastic depth of the last block, rising linearly from 0."""
    mixup: float | None = None
    """Beta parameter of mixup; 0 is none."""
    cutmix: float | None = None
    """Beta parameter of cutmix; 0 is none. With mixup too, each batch takes one of them."""
    randaugment: str | None = None
    """timm's RandAugment, for instance rand-m9-mstd0.5-inc1; "" is none."""
    erase: float | None = None
    """Probability of random erasing, filled with noise per pixel."""
    label_smoothing: float | None = None
    """Share of the target spread over all classes."""
    resize: Resize | None = None
    """What resizes training crops: Pillow, as the published recipes, or torch, whose loader is faster and whose pixels
    are nearly the same; compare runs of one choice."""
    val_split: str | None = None
    """Folder of the validation images, beside train/."""
    label_share: float | None = None
    """Share of the training images of each class that is used, at least one (0.01 is 1 %)."""
    label_seed: int | None = None
    """Seed of that choice, which is not the run's."""
    train_list: Path | None = None
    """File with the training images to use, one name or class/name a line, as the 1 % and 10 % lists of ImageNet."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return run_tool(Args, argv, doc=__doc__, recipes=RECIPES, build=build_task, adopt=with_architecture)


if __name__ == "__main__":
    raise SystemExit(main())
