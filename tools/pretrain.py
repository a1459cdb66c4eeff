"""Pre-train the shared ViT backbone: by pixels (MAE), visual tokens (BEiT), contrast (MoCo v3), or from labels.

    python tools/pretrain.py tiny --data imagenet --out runs/mae
    python tools/pretrain.py tiny --mask-ratio 0.5 --sampling block --data imagenet --out runs/mae-block-50
    python tools/pretrain.py tiny_moco_v3 --data imagenet --out runs/moco
    python tools/pretrain.py tiny_supervised --data imagenet --out runs/supervised
    python tools/pretrain.py mae_large_800 --resume-from checkpoint-399.pth --data imagenet --out runs/mae-large

--data holds train/ and val/ with images, for the supervised recipes in one folder per class. The run ends with
OUT/backbone.safetensors, which the tools of the three tasks take as --init, and OUT/record.json. The last form goes on
from a run of the official MAE code; like any run it is continued with --resume where it was stopped.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.launch import parse, run_tool
from engine.task import InitialWeights, Task
from pretraining.beit_flags import TokenizerFlags
from pretraining.build import build_task
from pretraining.mae_flags import MAEFlags
from pretraining.recipes import RECIPES
from pretraining.task import MAETask


@dataclass(frozen=True, kw_only=True)
class Args(MAEFlags, TokenizerFlags):
    """Flags of pre-training. A flag of a method that the recipe is not of is refused."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed, 130 interrupted."""

    def build(config: Any, *, data: Path, init: InitialWeights | None) -> Task:
        task = build_task(config, data=data, init=init)
        if isinstance(task, MAETask) and os.environ.get("RANK", "0") == "0":
            task.write_start(parse(Args, argv, doc=None).out)
        return task

    return run_tool(Args, argv, doc=__doc__, recipes=RECIPES, build=build)


if __name__ == "__main__":
    raise SystemExit(main())
