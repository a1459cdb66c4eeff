"""Tokenizers of images: what turns pixels into the visual tokens that BEiT predicts (arXiv 2106.08254, section 2.1).

All take pixels from 0 to 1 and map them themselves to what their encoder was trained on. Axis letters: B batch,
h x w tokens.
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from backbones.config import Grid
from pretraining.mae.config import TokenizerKind
from pretraining.tokenizer.dall_e import read_dall_e
from pretraining.tokenizer.file import read_tokenizer


class Tokenizer(Protocol):
    """A frozen encoder of images into tokens, and its decoder. It follows the device of its input."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""

    @property
    def downsampling(self) -> int:
        """Pixels along each axis that become one token."""

    @property
    def sha256(self) -> dict[str, str]:
        """Of each of its files, by the file's name."""

    def tokens(self, pixel_BCHW: Tensor) -> Tensor:
        """Return the token numbers (B, h, w) of pixels from 0 to 1, in float32 whatever autocast says."""

    def decode(self, token_Bhw: Tensor) -> Tensor:
        """Return the pixels (B, C, H, W), 0 to 1, that the decoder makes of tokens."""


def open_tokenizer(path: str | None, kind: TokenizerKind, *, trust_pickle: bool) -> Tokenizer:
    """Return the tokenizer in a file of this project's (`own`) or in the folder of DALL-E's two files (`dall_e`).

    Raises ValueError or FileNotFoundError that says what to give.
    """
    if path is None:
        raise ValueError(
            "the tokens of a tokenizer are to be predicted, and none was named: give --tokenizer FILE, the "
            "tokenizer.safetensors that `tools/pretrain.py tiny_dvae` or `small_dvae` writes, or the folder of "
            "DALL-E's encoder.pkl and decoder.pkl with --tokenizer-kind dall_e."
        )
    if kind == "dall_e":
        return read_dall_e(Path(path), trust_pickle=trust_pickle)
    return read_tokenizer(Path(path))


def check_grid(tokenizer: Tokenizer, *, token_size: tuple[int, int], grid: Grid) -> None:
    """Raise ValueError where images of `token_size` pixels (height, width) do not give one token per patch."""
    step = tokenizer.downsampling
    rows, columns = grid
    wanted = f"token_size ({rows * step}, {columns * step}) gives one token per patch of the ViT's {rows} x {columns}"
    if any(side % step for side in token_size):
        raise ValueError(
            f"token_size {token_size} is no multiple of the {step} pixels that the tokenizer makes a token of; "
            f"{wanted}."
        )
    made = (token_size[0] // step, token_size[1] // step)
    if made != grid:
        raise ValueError(
            f"the tokenizer makes {made[0]} x {made[1]} tokens of images of {token_size[0]} x {token_size[1]} pixels "
            f"({step} pixels a token), and the ViT has {rows} x {columns} patches; {wanted}."
        )
