"""Tokenizers: the grid they must have, this project's file, and DALL-E's pickles behind an explicit flag."""

import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from files.digest import file_sha256
from pretraining.tokenizer.dall_e import DallETokenizer
from pretraining.tokenizer.file import FORMAT, OwnTokenizer, TokenizerHeader, read_tokenizer, write_tokenizer
from pretraining.tokenizer.model import DiscreteVAE
from pretraining.tokenizer.opening import check_grid, open_tokenizer

HEADER = TokenizerHeader(vocabulary=12, downsampling=4, code_dim=5, width=6, image_size=(16, 16))


def model(seed: int = 0) -> DiscreteVAE:
    torch.manual_seed(seed)
    return DiscreteVAE(vocabulary=12, downsampling=4, code_dim=5, width=6).eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A random tokenizer of this project."""
    path = tmp_path / "tokenizer.safetensors"
    write_tokenizer(path, model(), HEADER)
    return path


def test_round_trip(file: Path) -> None:
    tokenizer = open_tokenizer(str(file), "own", trust_pickle=False)
    assert isinstance(tokenizer, OwnTokenizer)
    assert (tokenizer.vocabulary, tokenizer.downsampling, tokenizer.header) == (12, 4, HEADER)
    assert tokenizer.sha256 == {"tokenizer.safetensors": file_sha256(file)}
    pixels = torch.rand(2, 3, 16, 24)
    tokens = tokenizer.tokens(pixels)
    assert tokens.shape == (2, 4, 6) and tokens.dtype == torch.int64
    assert torch.equal(tokens, model().tokens(pixels))
    decoded = tokenizer.decode(tokens)
    assert torch.equal(decoded, model().decode(tokens)) and not decoded.requires_grad
    assert decoded.shape == pixels.shape and decoded.min() >= 0 and decoded.max() <= 1


def test_tokens_are_the_same_under_autocast(file: Path) -> None:
    tokenizer, pixels = read_tokenizer(file), torch.rand(4, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = tokenizer.tokens(pixels)
    assert torch.equal(tokens, tokenizer.tokens(pixels))


def test_equal_weights_make_equal_files(file: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.safetensors", tmp_path / "other.safetensors"
    write_tokenizer(again, model(), HEADER)
    write_tokenizer(other, model(1), HEADER)
    assert file_sha256(again) == file_sha256(file) != file_sha256(other)


def test_grid() -> None:
    tokenizer = OwnTokenizer(model(), HEADER, sha256={})
    check_grid(tokenizer, token_size=(16, 24), grid=(4, 6))
    with pytest.raises(
        ValueError,
        match=re.escape(
            "the tokenizer makes 4 x 4 tokens of images of 16 x 16 pixels (4 pixels a token), and the ViT has 8 x 8 "
            "patches; token_size (32, 32) gives one token per patch of the ViT's 8 x 8."
        ),
    ):
        check_grid(tokenizer, token_size=(16, 16), grid=(8, 8))
    with pytest.raises(
        ValueError,
        match=re.escape("token_size (30, 32) is no multiple of the 4 pixels that the tokenizer makes a token of; "),
    ):
        check_grid(tokenizer, token_size=(30, 32), grid=(8, 8))


def test_no_tokenizer_named() -> None:
    with pytest.raises(ValueError, match=r"none was named: give --tokenizer FILE, the tokenizer\.safetensors that"):
        open_tokenizer(None, "own", trust_pickle=False)


def test_refused_files(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors: no such file"):
        read_tokenizer(tmp_path / "absent.safetensors")
    plain = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(2)}, plain)
    with pytest.raises(ValueError, match=r"plain\.safetensors: no tokenizer of this project \(expected the header"):
        read_tokenizer(plain)
    tensors = {name: p.detach() for name, p in model().named_parameters()}
    header = {"vocabulary": 12, "downsampling": 4, "code_dim": 5, "width": 6, "image_size": [16, 16]}
    for changes, message in (
        ({"vocabulary": 13}, r"codebook has the shape \(12, 5\) in the file, and the shape \(13, 5\) by"),
        ({"vocabulary": 10**12}, r"codebook has the shape \(12, 5\) .* the shape \(1000000000000, 5\) by"),
        ({"vocabulary": 2**62, "code_dim": 2**62}, "its weights are not those of its header: "),
        ({"downsampling": 2**900}, "downsampling halves images 900 times, and the file has "),
        ({"downsampling": 6}, "its weights are not those of its header: downsampling is 6; it must be 2, 4, 8"),
        ({"vocabulary": "12"}, "its header does not describe a tokenizer .*vocabulary: '12' is no whole number"),
        ({"colour": 3}, "its header does not describe a tokenizer .*TokenizerHeader has no field colour; it has"),
    ):
        save_file(tensors, file, metadata={FORMAT: json.dumps(header | changes)})  # type: ignore[operator]
        with pytest.raises(ValueError, match=message):
            read_tokenizer(file)
    save_file(tensors | {"more": torch.zeros(1)}, file, metadata={FORMAT: json.dumps(header)})
    with pytest.raises(ValueError, match=r"its weights are not those of its header: .*more"):
        read_tokenizer(file)


class Encoder(nn.Module):
    """Stands in for DALL-E's: logits over 4 tokens from an 8 x 8 mean, the token whose level is nearest."""

    vocab_size = 4

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return (B, 4, h, w); DALL-E maps pixels to 0.1 to 0.9."""
        levels = torch.tensor([0.1, 0.3, 0.5, 0.9]).view(1, 4, 1, 1)
        return -(nn.functional.avg_pool2d(image_BCHW, 8).mean(dim=1, keepdim=True) - levels).abs()


class Decoder(nn.Module):
    """Stands in for DALL-E's: the logits of a mean of 0.1, 0.3, 0.5 or 0.9, and as many of a spread."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=8, mode="nearest")

    def forward(self, one_hot_BVhw: Tensor) -> Tensor:
        """Return (B, 6, H, W)."""
        levels = torch.tensor([0.1, 0.3, 0.5, 0.9]).view(1, 4, 1, 1)
        mean = self.up((one_hot_BVhw * levels).sum(dim=1, keepdim=True)).expand(-1, 3, -1, -1)
        return torch.cat([mean.logit(), torch.full_like(mean, 7.0)], dim=1)


@pytest.fixture
def dall_e(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Pickles of two modules of a package `dall_e`, the decoder as an old PyTorch would have pickled it."""
    package = types.ModuleType("dall_e")
    package.Encoder, package.Decoder = Encoder, Decoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dall_e", package)
    for cls in (Encoder, Decoder):
        monkeypatch.setattr(cls, "__module__", "dall_e")
    folder = tmp_path / "dall_e"
    folder.mkdir()
    decoder = Decoder()
    del decoder.up.recompute_scale_factor
    torch.save(Encoder(), folder / "encoder.pkl")
    torch.save(decoder, folder / "decoder.pkl")
    yield folder


def test_dall_e(dall_e: Path) -> None:
    tokenizer = open_tokenizer(str(dall_e), "dall_e", trust_pickle=True)
    assert isinstance(tokenizer, DallETokenizer)
    assert (tokenizer.vocabulary, tokenizer.downsampling) == (4, 8)
    assert tokenizer.sha256 == {name: file_sha256(dall_e / name) for name in ("encoder.pkl", "decoder.pkl")}
    # a pixel of 0.5 is mapped to 0.5, one of 1 to 0.9, one of 0.2 to 0.26
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[..., :8, 8:], pixels[..., 8:, :8], pixels[..., 8:, 8:] = 0.5, 1.0, 0.2
    tokens = tokenizer.tokens(pixels)
    assert tokens.tolist() == [[[0, 2], [3, 1]]]
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == (1, 3, 16, 16)
    # 0.3 is mapped back to 0.25; float32 through a logit and back
    torch.testing.assert_close(decoded[0, 0, ::8, ::8], torch.tensor([[0.0, 0.5], [1.0, 0.25]]), rtol=0, atol=1e-6)


def test_dall_e_is_read_with_trust_and_its_package_alone(dall_e: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"encoder\.pkl: a pickle, which can run any code.*--trust-pickle"):
        open_tokenizer(str(dall_e), "dall_e", trust_pickle=False)
    monkeypatch.setitem(sys.modules, "dall_e", None)
    with pytest.raises(
        ValueError, match=r"encoder\.pkl: holds classes of the package dall_e, which cannot be imported"
    ):
        open_tokenizer(str(dall_e), "dall_e", trust_pickle=True)


def test_dall_e_files_that_are_none(dall_e: Path) -> None:
    torch.save(Decoder(), dall_e / "encoder.pkl")
    with pytest.raises(ValueError, match=r"encoder\.pkl: a Decoder, which has no vocab_size; not DALL-E's encoder"):
        open_tokenizer(str(dall_e), "dall_e", trust_pickle=True)
    torch.save([1], dall_e / "encoder.pkl")
    with pytest.raises(ValueError, match=r"encoder\.pkl: holds a list, not a module of DALL-E's tokenizer"):
        open_tokenizer(str(dall_e), "dall_e", trust_pickle=True)
    (dall_e / "encoder.pkl").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"encoder\.pkl: could not be unpickled"):
        open_tokenizer(str(dall_e), "dall_e", trust_pickle=True)
    (dall_e / "decoder.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r"decoder\.pkl: no such file\. DALL-E's tokenizer is a folder with"):
        open_tokenizer(str(dall_e), "dall_e", trust_pickle=True)
