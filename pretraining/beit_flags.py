"""The command line's part of BEiT: what a recipe cannot know."""

from dataclasses import dataclass
from pathlib import Path

from engine.launch import TrainArgs
from pretraining.tokenizer import Kind


@dataclass(frozen=True, kw_only=True)
class TokenizerFlags(TrainArgs):
    """Flags of pre-training by visual tokens; they carry the names of BEiTConfig's fields."""

    tokenizer: Path | None = None
    """BEiT: the tokenizer.safetensors that a run of tiny_dvae or small_dvae wrote, or the folder of DALL-E's."""
    tokenizer_kind: Kind | None = None
    """BEiT: `own` is a tokenizer of this project, `dall_e` the public encoder.pkl and decoder.pkl."""
    trust_tokenizer_pickle: bool | None = None
    """BEiT: True reads DALL-E's pickles, which can run any code while they are read."""
