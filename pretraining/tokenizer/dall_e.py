"""DALL-E's public discrete VAE (arXiv 2102.12092, section 2.1), whose tokens BEiT predicts, through its own package.

OpenAI publishes it as two pickles of whole modules, `encoder.pkl` and `decoder.pkl`, which need the classes of the
package `dall_e` (`pip install attrs requests && pip install --no-deps DALL-E`). A pickle runs code while it is read,
so it is read only where the user trusts its origin. On a GPU the package computes in float16. Axis letters: B batch,
V vocabulary, h x w tokens.
"""

import importlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.weights.checksum import check_records
from backbones.weights.reader import ZIP
from files.digest import file_sha256

ENCODER, DECODER = "encoder.pkl", "decoder.pkl"
URL = "https://cdn.openai.com/dall-e"
DOWNSAMPLING = 8  # three max-pools
EDGE = 0.1  # the logit-Laplace distribution needs pixels from 0.1 to 0.9


class DallETokenizer:
    """Encoder and decoder as the package makes them; 8,192 tokens of 8 x 8 pixels."""

    downsampling = DOWNSAMPLING

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, sha256: dict[str, str]) -> None:
        self.encoder, self.decoder = (part.eval().requires_grad_(False) for part in (encoder, decoder))
        self.vocabulary = int(self.encoder.vocab_size)  # type: ignore[arg-type]
        self.sha256 = sha256

    @torch.no_grad()
    def tokens(self, pixel_BCHW: Tensor) -> Tensor:
        """Return the likeliest tokens (B, h, w); the package maps pixels to 0.1 to 0.9 before the encoder."""
        with torch.autocast(pixel_BCHW.device.type, enabled=False):
            mapped = pixel_BCHW.float() * (1 - 2 * EDGE) + EDGE
            return self.encoder.to(mapped.device)(mapped).argmax(dim=1)

    @torch.no_grad()
    def decode(self, token_Bhw: Tensor) -> Tensor:
        """Return the pixels (B, 3, H, W): the first half of the decoder's channels are the means, as logits."""
        with torch.autocast(token_Bhw.device.type, enabled=False):
            one_hot_BVhw = F.one_hot(token_Bhw, self.vocabulary).permute(0, 3, 1, 2).float()
            mean_BCHW = self.decoder.to(token_Bhw.device)(one_hot_BVhw).float().chunk(2, dim=1)[0].sigmoid()
        return ((mean_BCHW - EDGE) / (1 - 2 * EDGE)).clamp(0, 1)


def read_dall_e(folder: Path, *, trust_pickle: bool) -> DallETokenizer:
    """Return the tokenizer in a folder with encoder.pkl and decoder.pkl.

    Raises FileNotFoundError for an absent file, ValueError without the user's trust, without the package, and for a
    file that holds something else.
    """
    files = [folder / ENCODER, folder / DECODER]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: no such file. DALL-E's tokenizer is a folder with {ENCODER} and {DECODER}, from "
                f"{URL}/{ENCODER} and {URL}/{DECODER}."
            )
    if not trust_pickle:
        raise ValueError(
            f"{files[0]}: a pickle, which can run any code while it is read; add --trust-pickle if you "
            "trust where it comes from."
        )
    try:
        importlib.import_module("dall_e")
    except ImportError as error:
        raise ValueError(
            f"{files[0]}: holds classes of the package dall_e, which cannot be imported ({error}); "
            "`pip install attrs requests && pip install --no-deps DALL-E` installs it."
        ) from error
    encoder, decoder = (_unpickle(file) for file in files)
    if not hasattr(encoder, "vocab_size"):
        raise ValueError(f"{files[0]}: a {type(encoder).__name__}, which has no vocab_size; not DALL-E's encoder.")
    return DallETokenizer(encoder, decoder, sha256={file.name: file_sha256(file) for file in files})


def _unpickle(file: Path) -> nn.Module:
    with file.open("rb") as opened:
        if opened.read(len(ZIP)) == ZIP:
            check_records(file, opened)
    try:
        module: Any = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle may raise anything
        raise ValueError(f"{file}: could not be unpickled ({type(error).__name__}: {error}).") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{file}: holds a {type(module).__name__}, not a module of DALL-E's tokenizer.")
    for part in module.modules():
        if isinstance(part, nn.Upsample) and not hasattr(part, "recompute_scale_factor"):
            part.recompute_scale_factor = None  # pickled by PyTorch 1.7, which had no such attribute
    return module
