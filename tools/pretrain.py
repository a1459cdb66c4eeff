"""Pre-train the shared ViT backbone: by pixels (MAE), visual tokens (BEiT), contrast (MoCo v3), or from labels.

    python tools/pretrain.py tiny --data imagenet --out runs/mae
    python tools/pretrain.py tiny --mask-ratio 0.5 --sampling block --data imagenet --out runs/mae-block-50
    python tools/pretrain.py tiny_moco_v3 --data imagenet --out runs/moco
    python tools/pretrain.py tiny_supervised --data imagenet --out runs/supervised
    python tools/pretrain.py small --data microscopy --statistics --out runs/mae
    python tools/pretrain.py mae_large_800 --resume-from checkpoint-399.pth --data imagenet --out runs/mae-large

--data holds train/ and val/ with images at any depth, as files or packed in uncompressed .tar shards as WebDataset has
them (KEY.jpg beside KEY.json, KEY.cls, ..., which are left out); shards are read by path, images as they lie in them.
The supervised recipes take files alone, in one folder per class. The run ends with
OUT/backbone.safetensors, which the tools of the three tasks take as --init, and OUT/record.json. The last form goes on
from a run of the official MAE code; like any run it is continued with --resume where it was stopped.
"""

from engine.launch import train
from engine.spec import of_tool
from mae_transfer.tasks import TASKS


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""
    return train(argv, of_tool(TASKS, "pretrain"), doc=__doc__)


if __name__ == "__main__":
    raise SystemExit(main())
