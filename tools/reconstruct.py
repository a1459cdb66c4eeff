"""Pictures of a pre-trained model on any images: reconstructions, masks, attention, nearest neighbours, positions.

    python tools/reconstruct.py runs/mae photographs --out pictures
    python tools/reconstruct.py runs/mae photographs --mask-ratio 0.9 --sampling block --out pictures
    python tools/reconstruct.py mae_visualize_vit_base.pth photographs --init-source mae --target pixels --out pictures

The first argument is a run of pre-training or a file of weights, the second a folder with images of any kind, greyscale
ones too, as files or in uncompressed .tar shards; of each the centre is taken. Reconstructions need a decoder: a run of
MAE has it in its checkpoints, and a file where it was saved with it. Where pixels were predicted normalised, the
picture says whose mean and std were put back: by default the true patches', which tells more than the model knows;
--statistics visible takes those of the visible patches. MAE's notebook puts none back: it shows weights that predict
plain pixels (`mae_visualize_*`), and squeezes the whole image into a square.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from backbones.weights.declaration import Family, Heads, InitialWeights, PixelMean, PixelStd, TrustPickle
from backbones.weights.hub import is_remote, located
from engine.launch import fail, parse
from pretraining.mae.config import Sampling, StatisticsOf


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the gallery."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Folder of a run, or weights: a file or a name (hf:OWNER/MODEL, timm:NAME.TAG, an address)."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """Folder with images or .tar shards, searched with its subfolders."""
    out: Path
    """Folder that the pictures are written to."""
    mask_ratio: float = 0.75
    """Share of patches masked."""
    sampling: Sampling = "random"
    """Which patches are masked."""
    statistics: StatisticsOf = "true"
    """Whose mean and std a normalised target is undone with: the true patch's, or the visible patches'."""
    count: int = 8
    """Images drawn, evenly spaced in the folder."""
    seed: int = 0
    """Seed of the masks."""
    init_source: Family = "own"
    init_heads: Heads = None
    init_mean: PixelMean = None
    init_std: PixelStd = None
    target: Literal["pixels", "normalised"] | None = None
    """What the decoder of a weights file predicts; a run knows it."""
    decoder_heads: int = 16
    """Attention heads of the decoder of a weights file."""
    trust_pickle: TrustPickle = False


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    args = parse(Args, argv, doc=__doc__)
    if not is_remote(args.model) and not args.model.exists():
        return fail(FileNotFoundError(f"{args.model}: no such run or file of weights."))
    from pretraining.gallery import Decoder, Options, make_gallery, open_any

    options = Options(
        mask_ratio=args.mask_ratio,
        sampling=args.sampling,
        statistics=args.statistics,
        images=args.count,
        seed=args.seed,
    )
    try:
        shown = open_any(
            located(
                InitialWeights(
                    path=args.model,
                    source=args.init_source,
                    num_heads=args.init_heads,
                    mean=args.init_mean,
                    std=args.init_std,
                    trust_pickle=args.trust_pickle,
                )
            ),
            Decoder(heads=args.decoder_heads, target=args.target),
        )
        made = make_gallery(shown, args.images, args.out, options)
    except (ValueError, OSError) as error:
        return fail(error)
    print("\n".join([*made.notes, *(str(path) for path in made.pictures)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
