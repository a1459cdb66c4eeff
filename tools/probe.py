"""Probe a frozen ViT on features extracted once: k nearest neighbours, and linear classifiers by depth.

    python tools/probe.py vit_base_patch16 --data imagenet --init mae.pth --init-source mae --out runs/probe
    python tools/probe.py vit_demo_patch8 --data DIR --init backbone.safetensors --out runs/probe

Prints top-1 by depth, pooling and k (weighted by similarity, temperature 0.07, as DINO's eval_knn; DINO ViT-B/16: 76.1,
arXiv 2104.14294, table 2) and the sweep of learning rates of the linear classifiers, and writes OUT/knn and
OUT/linear_features (record.json, results.jsonl). MAE ViT-B: 68.0 by its linear probe, which unlike this one crops at
random while it trains (arXiv 2111.06377, table 12): the number here is not that protocol's. Features are cached by
weights, images (names, sizes, times) and transform: 2 * depth * width * 2 bytes an image, 37 kB for ViT-B.
"""

from classification.config import ProbeConfig
from engine.flags import parse_with_config
from engine.launch import fail, refuse_among_images
from engine.probe_flags import ProbeArgs, of_every_vit
from files.naming import refuse_overwriting


def configured(argv: list[str] | None) -> tuple[ProbeArgs, ProbeConfig]:
    """Return the flags and the configuration before the weights are read. Raises ValueError for an unknown ViT."""
    return parse_with_config(ProbeArgs, RECIPES, argv, doc=__doc__, noun="ViT")


RECIPES = of_every_vit(ProbeConfig)
RUN = "classification.probe.run"  # imported when it is carried out


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    try:
        args, config = configured(argv)
    except ValueError as error:
        return fail(error)
    return carry_out(args, config)


def carry_out(args: ProbeArgs, config: ProbeConfig) -> int:
    """Probe, and return the exit code: 0 done, 1 failed."""
    try:
        from backbones.weights.initial import with_architecture
        from classification.probe.run import run_probes

        init = args.weights()
        cache = args.cache or args.out / "features"
        for folder in (args.out, cache):
            refuse_overwriting([folder], [args.data] if init is None else [args.data, init.path])
            refuse_among_images(folder, args.data, ("train", config.val_split))
        config = with_architecture(config, init)
        records = run_probes(config, data=args.data, init=init, out=args.out, cache=cache, say=print)
    except (ValueError, OSError) as error:
        return fail(error)
    for record in records:
        print(f"{record.task}: top1 {record.metrics['top1']:.4f} ({args.out / record.task / 'record.json'})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
