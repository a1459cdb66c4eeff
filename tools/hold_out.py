"""Set a part of the training images aside, as links, in the layout that a training tool reads.

    python tools/hold_out.py train_seg --data ade20k --out held-out --share 0.1
    python tools/train_seg.py small --data held-out --out runs/trial

What is held out is the validation split of the new folder; the validation images of the data set take no part. Studies
choose learning rates so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmark.study.hold_out import HoldOut, hold_out
from engine.launch import fail, parse


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    tool: Annotated[Literal["train_cls", "train_det", "train_seg"], tyro.conf.Positional]
    """Tool that is to read the new folder."""
    data: Path
    """Folder of the data set."""
    out: Path
    """New folder; nothing is done when it holds the same already."""
    share: float = 0.1
    """Of the training images (of each class alike where they have one); at least one."""
    train_split: str | None = None
    """Split to divide; the tool's usual one unless given."""
    train_json: Path | None = None
    """COCO annotations to divide, instead of annotations/instances_<train split>.json."""
    layout: str | None = None
    """Of label maps: ade20k (unless given) or folder."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    return carry_out(parse(Args, argv, doc=__doc__))


def carry_out(args: Args) -> int:
    """Hold out, and return the exit code: 0 done, 1 failed."""
    try:
        if not 0 < args.share < 1:
            raise ValueError(f"--share {args.share:g}: give a number between 0 and 1 (a fifth is 0.2).")
        wanted = HoldOut(**{name: value for name, value in vars(args).items() if name != "out"})
        print(hold_out(wanted, args.out))
    except (ValueError, OSError) as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
