"""Probe a frozen ViT on features extracted once: k nearest neighbours, and linear classifiers by depth.

    python tools/probe.py vit_base_patch16 --data imagenet --init mae.pth --init-source mae --out runs/probe
    python tools/probe.py vit_demo_patch8 --data DIR --init backbone.safetensors --out runs/probe

Prints top-1 by depth, pooling and k (weighted by similarity, temperature 0.07, as DINO's eval_knn; DINO ViT-B/16: 76.1,
arXiv 2104.14294, table 2) and the sweep of learning rates of the linear classifiers, and writes OUT/knn and
OUT/linear_features (record.json, results.jsonl). MAE ViT-B: 68.0 by its linear probe, which unlike this one crops at
random while it trains (arXiv 2111.06377, table 12): the number here is not that protocol's. Features are cached by
weights, images (names, sizes, times) and transform: 2 * depth * width * 2 bytes an image, 37 kB for ViT-B.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from backbones.config import FAMILY
from backbones.initial import with_architecture
from classification.config import Pooling
from classification.probe import ProbeConfig, run_probes
from engine.init_flags import InitFlags
from engine.launch import fail, parse, refuse_among_images
from files.naming import refuse_overwriting


@dataclass(frozen=True, kw_only=True)
class Args(InitFlags):
    """Flags of probing."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BACKBONE")]
    """Name of a ViT: vit_base_patch16, vit_large_patch16, vit_huge_patch14, vit_demo_patch8, ..."""
    data: Path
    """Folder that holds train/<class>/ and val/<class>/."""
    out: Path
    """Folder to write to."""
    image_size: int | None = None
    """Side of the square in pixels; the ViT's usual one unless given."""
    pooling: Pooling = "class"
    """What the leading metric reads; the other is printed and recorded too."""
    val_split: str = "val"
    """Folder of the validation images."""
    linear_epochs: int = 100
    """Passes of the linear classifiers over the cached features."""
    seed: int = 0
    """Seed of random weights and of the linear classifiers' order."""
    batch_size: int = 64
    """Images per forward pass."""
    workers: int = 0
    """Processes that load images."""
    cache: Path | None = None
    """Folder of the features, which runs may share; OUT/features unless given."""


def config_of(args: Args) -> ProbeConfig:
    """Return the configuration before the weights are read. Raises ValueError for a name that no ViT has."""
    if args.backbone not in FAMILY:
        raise ValueError(f"no ViT is called {args.backbone!r}; there are: {', '.join(sorted(FAMILY))}.")
    backbone = FAMILY[args.backbone]
    if args.image_size is not None:
        backbone = backbone.at(args.image_size, args.image_size)
    shared = ("pooling", "val_split", "linear_epochs", "seed", "batch_size", "workers")
    return replace(ProbeConfig(backbone=backbone), **{name: getattr(args, name) for name in shared})


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    try:
        config, init = config_of(args), args.weights()
        cache = args.cache or args.out / "features"
        for folder in (args.out, cache):
            refuse_overwriting([folder], [args.data] if args.init is None else [args.data, args.init])
            refuse_among_images(folder, args.data, ("train", args.val_split))
        config = with_architecture(config, init)
        records = run_probes(config, data=args.data, init=init, out=args.out, cache=cache, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    for record in records:
        print(f"{record.task}: top1 {record.metrics['top1']:.4f} ({args.out / record.task / 'record.json'})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
