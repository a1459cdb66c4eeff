"""The command line's part of BEiT and of its tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from engine.launch import TrainArgs
from pretraining.tokenizer import Kind


@dataclass(frozen=True, kw_only=True)
class BEiTFlags(TrainArgs):
    """Flags of pre-training by visual tokens; they carry the names of BEiTConfig's and DVAEConfig's fields."""

    tokenizer: Path | None = None
    """BEiT, MAE with target tokens: the tokenizer.safetensors that a run of tiny_dvae or small_dvae wrote, or the
    folder of DALL-E's."""
    tokenizer_kind: Kind | None = None
    """Of --tokenizer: `own` is a tokenizer of this project, `dall_e` the public encoder.pkl and decoder.pkl."""
    trust_tokenizer_pickle: bool | None = None
    """Of --tokenizer: True reads DALL-E's pickles, which can run any code while they are read."""
    token_size: tuple[int, int] | None = None
    """BEiT: height and width in pixels of the image that the tokenizer sees; it must give one token per patch."""
    masked_patches: int | None = None
    """BEiT: patches hidden in every image."""
    min_block: int | None = None
    """BEiT: least area of a hidden rectangle in patches."""
    color_jitter: float | None = None
    """BEiT: largest relative change of brightness, contrast and saturation; 0 changes none."""
    drop_path: float | None = None
    """BEiT, from labels: stochastic depth of the last block, rising linearly from 0."""
    vocabulary: int | None = None
    """Tokenizer: tokens of its codebook."""
