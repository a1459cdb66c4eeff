"""Read the patches of a frozen ViT densely: k nearest neighbours and linear classifiers, without training the ViT.

    python tools/probe_dense.py vit_base_patch16 --data ADE20K --init mae.pth --init-source mae --image-size 512 512 \
        --out runs/dense
    python tools/probe_dense.py vit_demo_patch8 --data DIR --layout voc --init backbone.safetensors --out runs/dense

Prints the mIoU of raw, standardised and position-regressed features by k (1, 3, 10, 30) and of a logistic regression,
beside the most frequent class, the mean label map and position alone, and writes OUT/knn_segmentation and
OUT/linear_segmentation (record.json, results.jsonl, per_class.csv). docs/dense.md has the protocol, and in what it
departs from published ones. Features are cached by weights, images (names, sizes, times) and transform: 2 bytes for
each patch and each number of its feature or class (512 x 512 px, ViT-B, 150 classes: 1.9 MB an image).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from backbones.config import FAMILY
from engine.flags import parse_with_config
from engine.init_flags import InitFlags
from engine.launch import fail, refuse_among_images
from files.naming import refuse_overwriting
from segmentation.probe.config import DenseProbeConfig


@dataclass(frozen=True, kw_only=True)
class Args(InitFlags):
    """Flags of dense probing."""

    backbone: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BACKBONE")]
    """Name of a ViT: vit_base_patch16, vit_large_patch16, vit_huge_patch14, vit_demo_patch8, ..."""
    data: Path
    """Folder of a data set that train_seg reads (--layout)."""
    out: Path
    """Folder to write to."""
    cache: Path | None = None
    """Folder of the features, which runs may share; OUT/features unless given."""


def configured(argv: list[str] | None) -> tuple[Args, DenseProbeConfig]:
    """Return the flags and the configuration before the weights are read. Raises ValueError for an unknown ViT."""
    return parse_with_config(Args, RECIPES, argv, doc=__doc__, noun="ViT")


def _of(name: str) -> Callable[[], DenseProbeConfig]:
    def config() -> DenseProbeConfig:
        return DenseProbeConfig(backbone=FAMILY[name])

    vit = FAMILY[name]
    config.__doc__ = f"width {vit.embed_dim}, {vit.depth} blocks, {vit.num_heads} heads, patches of {vit.patch_size} px"
    return config


RECIPES = {name: _of(name) for name in FAMILY}
RUN = "segmentation.probe.run"  # imported when it is carried out


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    try:
        args, config = configured(argv)
    except ValueError as error:
        return fail(error)
    return carry_out(args, config)


def carry_out(args: Args, config: DenseProbeConfig) -> int:
    """Probe, and return the exit code: 0 done, 1 failed."""
    try:
        init = args.weights()
        if not args.data.is_dir():
            raise FileNotFoundError(f"{args.data}: no such folder; --data names the one that holds the data set.")
        from backbones.weights.initial import with_architecture
        from segmentation.data.layout import LAYOUTS
        from segmentation.probe.run import run_dense_probes

        layout, cache = LAYOUTS[config.layout], args.cache or args.out / "features"
        splits = config.train_split or layout.train, config.val_split or layout.val
        for folder in (args.out, cache):
            refuse_overwriting([folder], [args.data] if init is None else [args.data, init.path])
            refuse_among_images(folder, args.data, splits)
        config = with_architecture(config, init)
        records = run_dense_probes(config, data=args.data, init=init, out=args.out, cache=cache, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    for record in records:
        print(f"{record.task}: miou {record.metrics['miou']:.4f} ({args.out / record.task / 'record.json'})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
