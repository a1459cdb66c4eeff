"""Fine-tune, partly fine-tune or linearly probe the shared ViT backbone for image classification.

    python tools/train_cls.py tiny --data imagenet --init runs/mae/backbone.safetensors --out runs/cls
    python tools/train_cls.py tiny --protocol partial --tuned-blocks 0.5 --data imagenet --init FILE --out runs/half
    python tools/train_cls.py tiny --label-fraction 0.1 --data imagenet --init FILE --out runs/ten
    python tools/train_cls.py small --mixup 0 --cutmix 0 --resize tensor --data DIR --init FILE --out runs/own

--data holds train/<class>/ and val/<class>/ with images. Metrics: top1, top5 in percent, in OUT/record.json. With a
part of the labels OUT/train_list.txt names the images that were used. tools/probe.py probes cached features in a
fraction of the time; tools/eval_cls.py scores weights that come with a head; tools/predict.py looks at any image.
"""

from engine.launch import train
from engine.spec import of_tool
from mae_transfer.tasks import TASKS


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return train(argv, of_tool(TASKS, "train_cls"), doc=__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
