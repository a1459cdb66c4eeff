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

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.declaration import InitialWeights
from classification.config import Resize
from engine.launch import parse, run_tool
from engine.task import Task
from pretraining.beit_flags import BEiTFlags
from pretraining.build import build_task
from pretraining.crop_flags import CropFlags
from pretraining.mae_flags import MAEFlags
from pretraining.moco_flags import MoCoFlags
from pretraining.recipes import RECIPES
from pretraining.statistics import with_statistics
from pretraining.statistics_flags import StatisticsFlags


@dataclass(frozen=True, kw_only=True)
class Args(MAEFlags, BEiTFlags, MoCoFlags, CropFlags, StatisticsFlags):
    """Flags of pre-training. A flag of a method that the recipe is not of is refused."""

    resize: Resize | None = None
    """From labels: what resizes training crops, Pillow or torch, whose loader is faster and whose pixels are nearly the
    same."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""

    def build(config: Any, *, data: Path, init: InitialWeights | None) -> Task:
        args: Args = parse(Args, argv, doc=None)
        return build_task(config, data=data, init=init, trust_tokenizer=bool(args.trust_tokenizer_pickle))

    def adopt(config: Any, init: InitialWeights | None) -> Any:
        args: Args = parse(Args, argv, doc=None)
        if init is not None and init.architecture != "recipe":
            raise ValueError(f"--init-architecture {init.architecture}: this tool builds the recipe's ViT alone.")
        if not args.statistics:
            return config
        return with_statistics(config, data=args.data, out=args.out, resume=args.resume, init=init)

    return run_tool(Args, argv, doc=__doc__, recipes=RECIPES, build=build, adopt=adopt)


if __name__ == "__main__":
    raise SystemExit(main())
