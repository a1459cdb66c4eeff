"""Write procedural scenes in the layouts of ImageNet, COCO and ADE20K, with a contact sheet.

python tools/make_scenes.py --out data/scenes --image-size 64 64 --classify-train 3000
"""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from engine.launch import fail, parse
from scenes.config import SPLITS, ScenesConfig


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Procedural scenes as ImageFolder, COCO and ADE20K data."""

    out: Path
    """New folder; nothing is done when it already holds the same scenes."""
    scenes: tyro.conf.OmitArgPrefixes[ScenesConfig] = field(default_factory=ScenesConfig)
    """What to draw."""


def main(argv: list[str] | None = None) -> int:
    """Write the scenes, say where they are, and return the exit code."""
    return carry_out(parse(Arguments, argv, doc=__doc__))


def carry_out(arguments: Arguments) -> int:
    """Write the scenes, say where they are, and return the exit code."""
    from scenes.layouts import write_scenes  # OpenCV
    from scenes.sheet import write_contact_sheet

    try:
        index = write_scenes(arguments.out, arguments.scenes)
    except (ValueError, OSError) as error:
        return fail(error)
    sheet = write_contact_sheet(index, index.root / "contact_sheet.png")
    counts = index.config.counts
    for split in SPLITS:
        classify, dense = counts.classify(split), counts.dense(split)
        print(f"{split.name:<14} {classify} ImageFolder images, {dense} COCO and ADE20K images")
    print(f"ImageFolder    {index.imagenet}")
    print(f"COCO           {index.coco}")
    print(f"ADE20K         {index.ade20k}")
    print(f"contact sheet  {sheet}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
