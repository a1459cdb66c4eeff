"""tokenizer.safetensors: the file of a discrete VAE that this project trained, and the tokenizer in it.

safetensors with one header entry, like a backbone's file. Axis letters: B batch, h x w tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from backbones.weights.checksum import BLANK, FIELD, stamp
from backbones.weights.reader import read_weight_file
from files.parsing import parse_json
from files.typed import from_json
from files.writing import replacing
from pretraining.tokenizer.config import check_downsampling
from pretraining.tokenizer.model import DiscreteVAE

FORMAT = "mae-transfer-tokenizer/1"


@dataclass(frozen=True, kw_only=True)
class TokenizerHeader:
    """What the weights of a discrete VAE fit."""

    vocabulary: int
    """Tokens."""
    downsampling: int
    """Side of a token in pixels."""
    code_dim: int
    """Width of a vector of the codebook."""
    width: int
    """Channels of encoder and decoder."""
    image_size: tuple[int, int]
    """Height and width in pixels that it was trained at; it takes any multiple of a token."""

    def __post_init__(self) -> None:
        """Raise ValueError for what are no such numbers: a file may hold anything. Lists become tuples."""
        object.__setattr__(self, "image_size", tuple(self.image_size))
        numbers = (self.vocabulary, self.downsampling, self.code_dim, self.width, *self.image_size)
        if len(self.image_size) != 2 or not all(type(number) is int and number > 0 for number in numbers):
            raise ValueError(f"{self} is not made of whole numbers above 0, two of them for image_size")


class OwnTokenizer:
    """A discrete VAE in evaluation, its weights frozen."""

    def __init__(self, model: DiscreteVAE, header: TokenizerHeader, *, sha256: dict[str, str]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.header = header
        self.vocabulary, self.downsampling = header.vocabulary, header.downsampling
        self.sha256 = sha256

    @torch.no_grad()
    def tokens(self, pixel_BCHW: Tensor) -> Tensor:
        """Return the likeliest tokens (B, h, w) of pixels from 0 to 1."""
        return self.model.to(pixel_BCHW.device).tokens(pixel_BCHW)

    @torch.no_grad()
    def decode(self, token_Bhw: Tensor) -> Tensor:
        """Return the pixels (B, 3, H, W), 0 to 1."""
        return self.model.to(token_Bhw.device).decode(token_Bhw)


def write_tokenizer(path: Path, model: DiscreteVAE, header: TokenizerHeader) -> None:
    """Write the weights to `path` by a temporary file and a rename. Raises OSError, the file of before kept."""
    tensors = {name: p.detach().float().cpu().contiguous() for name, p in model.named_parameters()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={FORMAT: json.dumps(asdict(header) | {FIELD: BLANK}, sort_keys=True)})
        stamp(temporary)


def read_tokenizer(path: Path) -> OwnTokenizer:
    """Return the tokenizer in a file that `write_tokenizer` wrote.

    Raises FileNotFoundError, and ValueError where it is another file or its weights are not those of its header.
    """
    file = read_weight_file(path, entries=())
    header = _header(path, file.metadata)
    file.check()
    try:
        _check_shapes(header, file.tensors)
        model = _model(header)
        model.load_state_dict({**file.tensors, "passed": model.passed})
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:  # a header may hold any number
        reason = " ".join(str(error).split())  # PyTorch's has a line for every tensor
        raise ValueError(f"{path}: its weights are not those of its header: {reason}") from error
    return OwnTokenizer(model, header, sha256={path.name: file.sha256})


def _model(header: TokenizerHeader) -> DiscreteVAE:
    return DiscreteVAE(
        vocabulary=header.vocabulary, downsampling=header.downsampling, code_dim=header.code_dim, width=header.width
    )


def _check_shapes(header: TokenizerHeader, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where the header makes other tensors than there are, before any memory is taken for them."""
    levels = check_downsampling(header.downsampling)
    if levels > len(tensors):
        raise ValueError(f"downsampling halves images {levels} times, and the file has {len(tensors)} tensors")
    with torch.device("meta"):
        wanted = {name: tuple(p.shape) for name, p in _model(header).named_parameters()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            there, made = (f"the shape {of[name]}" if name in of else "no place" for of in (found, wanted))
            raise ValueError(f"{name} has {there} in the file, and {made} by {header}")


def _header(path: Path, metadata: Mapping[str, str]) -> TokenizerHeader:
    if FORMAT not in metadata:
        raise ValueError(
            f"{path}: no tokenizer of this project (expected the header {FORMAT!r}, found {sorted(metadata) or 'none'}"
            "); give the tokenizer.safetensors that a run of tiny_dvae or small_dvae wrote."
        )
    try:
        content = parse_json(metadata[FORMAT].encode(), FORMAT)
        if isinstance(content, dict):
            content.pop(FIELD, None)  # files from before have none
        return from_json(TokenizerHeader, content)
    except ValueError as error:
        raise ValueError(f"{path}: its header does not describe a tokenizer ({error}).") from error
