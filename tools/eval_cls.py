"""Score weights that come with a head, without training: the top-1 that timm's `validate` gives for the same images.

    python tools/eval_cls.py --init vit_base.safetensors --init-source augreg --data imagenet --crop-pct 0.9

Prints top1 and top5 of --data/val (--split) in percent. The class folders, sorted, are taken for the outputs of the
head in order, so there must be as many. --crop-pct is timm's (0.875 is MAE's); pixels are resized bicubic.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.weights.declaration import Heads, InitialWeights, PixelMean, PixelStd, TrustPickle
from backbones.weights.hub import family_of, is_remote, located
from backbones.weights.hub import parse as parse_name
from backbones.weights.normalisation import Normalisation
from engine.config import Device, ReadingWorkers
from engine.launch import fail, parse

if TYPE_CHECKING:
    from classification.heads import Classifier


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the evaluation of a head."""

    init: Path
    """Weights of a ViT with its head."""
    data: Path
    """Folder of the data set."""
    init_source: str | None = None
    """Family of the weights, among those whose files hold a head: timm, augreg, mae, beit, huggingface. Unless given
    the catalogue's for a name that it knows, else timm."""
    init_heads: Heads = None
    init_mean: PixelMean = None
    init_std: PixelStd = None
    trust_pickle: TrustPickle = False
    split: str = "val"
    """Folder of the images, below --data."""
    crop_pct: float = 224 / 256
    """The shorter side is resized to resolution / crop_pct before the centre crop."""
    batch_size: int = 32
    """Images per forward pass."""
    workers: ReadingWorkers = "auto"
    device: Device = "auto"


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    if not is_remote(args.init) and not args.init.exists():
        return fail(FileNotFoundError(f"{args.init}: no such file of weights."))
    from classification.with_head import classifier_of

    try:
        known = family_of(parse_name(str(args.init))) if is_remote(args.init) else None
    except ValueError as error:
        return fail(error)
    declared = InitialWeights(
        path=args.init,
        source=args.init_source or known or "timm",
        num_heads=args.init_heads,
        mean=args.init_mean,
        std=args.init_std,
        trust_pickle=args.trust_pickle,
    )
    try:
        scores, unreadable = evaluate(args, *classifier_of(located(declared)))
    except (ValueError, OSError) as error:
        return fail(error)
    print("\n".join([*(f"warning: {line}" for line in unreadable), *(f"{k} {v:.4f}" for k, v in scores.items())]))
    return 0


def evaluate(args: Args, model: "Classifier", normalisation: Normalisation) -> tuple[dict[str, float], list[str]]:
    """Return the scores, and a line on what was left out and per image that cannot be read."""
    from classification.data import LabelledImages, eval_transform, open_split
    from classification.with_head import top_predictions, top_scores
    from engine.device import make_fabric

    folder, notes = open_split(args.data, args.split)
    outputs = model.head.out_features
    if len(folder.classes) != outputs:
        raise ValueError(f"{folder.root}: {len(folder.classes)} class folders for a head of {outputs} outputs.")
    fabric = make_fabric("32-true", device=args.device)
    model.to(fabric.device)
    view = eval_transform(model.backbone.architecture.image_size, args.crop_pct, normalisation)
    results, unreadable = top_predictions(
        model.logits,
        LabelledImages(folder, view),
        fabric=fabric,
        batch_size=args.batch_size,
        workers=args.workers,
        kept=list(range(outputs)),
    )
    return top_scores(results), [*notes, *unreadable]


if __name__ == "__main__":
    raise SystemExit(main())
