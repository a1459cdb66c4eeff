"""The command line's part of MAE: every choice of its table 1, so that an ablation is a flag."""

from dataclasses import dataclass
from pathlib import Path

from backbones.config import Position
from engine.launch import TrainArgs
from pretraining.augment import Views
from pretraining.mae import LossOn, MaskTokenIn
from pretraining.masking import Sampling
from pretraining.target import TargetKind


@dataclass(frozen=True, kw_only=True)
class MAEFlags(TrainArgs):
    """Flags of pre-training by reconstruction; they carry the names of MAEConfig's fields."""

    mask_ratio: float | None = None
    """MAE: share of patches hidden."""
    sampling: Sampling | None = None
    """MAE: which patches are hidden: random ones, rectangles, or all but a regular grid."""
    mask_token: MaskTokenIn | None = None
    """MAE: where mask tokens stand in for hidden patches."""
    position: Position | None = None
    """MAE: positions of the encoder."""
    decoder_position: Position | None = None
    """MAE: positions of the decoder."""
    decoder_dim: int | None = None
    """MAE: width of the decoder."""
    decoder_depth: int | None = None
    """MAE: blocks of the decoder."""
    decoder_heads: int | None = None
    """MAE: attention heads of the decoder."""
    target: TargetKind | None = None
    """MAE: what is predicted: pixels, pixels normalised by patch, PCA coefficients, or the tokens of --tokenizer."""
    pca_components: int | None = None
    """MAE: coefficients of target pca."""
    loss_on: LossOn | None = None
    """MAE: patches that the loss is of."""
    augmentation: Views | None = None
    """MAE: training views: centre, crop of fixed scale, of random scale, or that with other colours."""
    resume_from: Path | None = None
    """MAE: a checkpoint-N.pth of the official code that the run goes on from, decoder and AdamW's state included. A
    published file with a decoder (mae_pretrain_*_full.pth) holds no optimiser and starts at step 0."""
    repeats: int | None = None
    """MAE: crops of every loaded image; a step trains on that many times batch_size."""
