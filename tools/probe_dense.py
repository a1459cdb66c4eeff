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

from engine.flags import parse_with_config
from engine.launch import fail, refuse_among_images
from engine.probe_flags import ProbeArgs, of_every_vit
from files.naming import refuse_overwriting
from segmentation.probe.config import DenseProbeConfig


def configured(argv: list[str] | None) -> tuple[ProbeArgs, DenseProbeConfig]:
    """Return the flags and the configuration before the weights are read. Raises ValueError for an unknown ViT."""
    return parse_with_config(ProbeArgs, RECIPES, argv, doc=__doc__, noun="ViT")


RECIPES = of_every_vit(DenseProbeConfig)
RUN = "segmentation.probe.run"  # imported when it is carried out


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    try:
        args, config = configured(argv)
    except ValueError as error:
        return fail(error)
    return carry_out(args, config)


def carry_out(args: ProbeArgs, config: DenseProbeConfig) -> int:
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
