"""What every source refuses or does alike: shapes, an encoder that is not whole, sizes, parallel names, channels."""

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from backbones.config import ViTConfig
from backbones.sources import SOURCES
from backbones.sources.source import join
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint, write_checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import HALF, IMAGENET, Normalisation
from backbones.weights.read import read_checkpoint

TINY = ViTConfig(embed_dim=32, depth=3, num_heads=4, patch_size=8, image_size=(32, 32))
NET = "backbone.net."


def plain(**changes: Tensor | None) -> dict[str, Tensor]:
    """A tiny ViT's parameters with tensors changed, or taken out by None; `__` in a name is a dot."""
    state = {**ViT(TINY).state_dict(), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def vitdet(lengths: dict[int, tuple[int, int]], width: int = 8) -> dict[str, Tensor]:
    """A tiny ViTDet's tensors with decomposed positions of these numbers of rows, by block."""
    state = {name: t for name, t in plain().items() if name != "cls_token" and not name.startswith("norm.")}
    for block, pair in lengths.items():
        for axis, length in zip("hw", pair, strict=True):
            state[f"blocks.{block}.attn.rel_pos_{axis}"] = torch.zeros(length, width)
    return {f"{NET}{name}": tensor for name, tensor in state.items()}


def read(tmp_path: Path, state: dict[str, Tensor], source: str, **declared: Any) -> Checkpoint:
    """The checkpoint in a new `file.pth` that holds the state where the source looks for it."""
    path = Path(mkdtemp(dir=tmp_path)) / "file.pth"  # a file that is mapped must not be written again
    torch.save({(*SOURCES[source].entries, "model")[0]: state}, path)
    if source in ("timm", "beit"):  # the name does not tell the pixels
        declared = {"mean": IMAGENET.mean, "std": IMAGENET.std} | declared
    return read_checkpoint(InitialWeights(path=path, source=source, **declared))


ABSURD = [
    ("pos_embed", (5,), "not 3 axes"),
    ("pos_embed", (), "not 3 axes"),
    ("pos_embed", (17, 32), "not 3 axes"),
    ("cls_token", (32,), "not 3 axes"),
    ("patch_embed.proj.weight", (32, 192), "not 4 axes"),
    ("patch_embed.proj.weight", (32, 3, 0, 0), "without a number in it"),
    ("patch_embed.proj.weight", (0, 3, 8, 8), "without a number in it"),
    ("blocks.0.mlp.fc1.weight", (), "not 2 axes"),
    ("blocks.2.attn.qkv.weight", (96,), "not 2 axes"),
    ("blocks.1.norm2.weight", (1, 32), "not 1 axes"),
    ("blocks.1.attn.qkv.bias", (96, 1), "not 1 axes"),
]


@pytest.mark.parametrize(("name", "shape", "fault"), ABSURD)
@pytest.mark.parametrize("source", ["mae", "timm", "augreg", "dino", "moco_v3"])
def test_absurd_shapes_are_named(source: str, name: str, shape: tuple[int, ...], fault: str, tmp_path: Path) -> None:
    state = plain() | {name: torch.zeros(shape)}
    with pytest.raises(ValueError) as caught:
        read(tmp_path, state, source, num_heads=4)
    assert "file.pth: read as source" in str(caught.value)
    assert f"{name} has the shape {shape}, {fault}" in str(caught.value)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_absurd_positions_of_detectron2(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file\.pth: .*pos_embed has the shape .*, not 3 axes"):
        read(tmp_path, vitdet({}) | {f"{NET}pos_embed": torch.zeros(shape)}, "detectron2", num_heads=4)


def test_absurd_tables(tmp_path: Path) -> None:
    state = plain(pos_embed=None, rel_pos_bias__relative_position_bias_table=torch.zeros(52))
    names = [name for name in state if name.endswith("qkv.bias")]
    state = {name: tensor for name, tensor in state.items() if name not in names}
    with pytest.raises(ValueError, match=r"relative_position_bias_table has the shape \(52,\), not 2 axes"):
        read(tmp_path, state, "beit")


@pytest.mark.parametrize("parts", [{"q": (), "k": (), "v": ()}, {"q": (8, 8), "k": (4, 4), "v": (8, 8)}])
def test_parts_that_make_no_whole(parts: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv\.weight cannot be joined: .* the shapes of its parts"):
        join("blocks.0.attn.qkv.weight", {name: torch.zeros(shape) for name, shape in parts.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks__1__norm1__bias": None}, r"not whole\. Missing 1 \(blocks\.1\.norm1\.bias\)"),
        ({"patch_embed__proj__bias": None}, r"not whole\. Missing 1 \(patch_embed\.proj\.bias\)"),
        ({"norm__bias": None}, r"Missing 1 \(norm\.bias\)"),
        ({"cls_token": torch.zeros(1, 1, 31)}, r"other shape 1 \(cls_token \(1, 1, 31\) for \(1, 1, 32\)\)"),
        (
            {"blocks__2__mlp__fc1__weight": torch.zeros(64, 32)},
            r"other shape 1 \(blocks\.2\.mlp\.fc1\.weight \(64, 32\)",
        ),
        (
            {"norm__weight": None},
            r"unexpected 1 \(norm\.bias\)",
        ),
    ],
)
def test_an_encoder_that_is_not_whole(changes: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"file\.pth: .*{message}"):
        read(tmp_path, plain(**changes), "mae", num_heads=4)


def test_positions_of_two_images(tmp_path: Path) -> None:
    state = plain(pos_embed=torch.zeros(2, 16, 32))
    with pytest.raises(ValueError, match=r"other shape 1 \(pos_embed \(2, 17, 32\) for \(1, 17, 32\)\)"):
        read(tmp_path, state, "timm", num_heads=4, image_size=(32, 32))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((30, 36), "image size 30 x 36 is no multiple of the patch of 8 pixels"),
        ((4, 32), "image size 4 x 32 is no multiple of the patch"),
        ((64, -32), "image size 64 x -32 is no multiple of the patch"),
        ((64, 32), r"position table has 17 rows, and 64 x 32 pixels in patches of 8 need 1 \+ 32"),
    ],
)
@pytest.mark.parametrize("source", ["mae", "timm", "dino"])
def test_a_size_that_is_not_the_tables(source: str, size: tuple[int, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, plain(), source, num_heads=4, image_size=size)
    assert read(tmp_path, plain(), source, num_heads=4, image_size=(16, 64)).architecture.grid == (2, 8)


def test_a_size_that_is_not_the_relative_tables(tmp_path: Path) -> None:
    bare = ViT(
        ViTConfig(**{**TINY.__dict__, "position": "none", "qkv_bias": "qv", "relative_position": "shared_table"})
    )
    assert read(tmp_path, bare.state_dict(), "beit", image_size=(32, 32)).architecture.relative_grid == (4, 4)
    message = r"relative position table has 52 rows, and 16 x 64 pixels in patches of 8 need 3 \+ 45"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, bare.state_dict(), "beit", image_size=(16, 64))
    with pytest.raises(ValueError, match=r"num_heads is 8 by declaration or config\.json; the weights have 4 heads"):
        read(tmp_path, bare.state_dict(), "beit", num_heads=8)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({0: (7, 7), 1: (11, 11), 2: (15, 15)}, "for 4 x 4 and 6 x 6 and 8 x 8 patches; there can be square windows"),
        ({0: (7, 9), 1: (15, 15), 2: (15, 15)}, "for 4 x 5 and 8 x 8 patches; there can be square windows"),
        ({0: (9, 9), 1: (15, 7), 2: (15, 7)}, "for 5 x 5 and 8 x 4 patches; there can be square windows"),
        ({0: (7, 7), 1: (15, 16), 2: (7, 7)}, r"blocks\.1\.attn\.rel_pos_w has an even number of rows \(15 and 16\)"),
        ({0: (7, 7), 2: (7, 7)}, r"2 are absent, blocks\.1\.attn\.rel_pos_h the first"),
    ],
)
def test_relative_positions_of_no_vitdet(lengths: dict[int, tuple[int, int]], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, vitdet(lengths), "detectron2")


def test_relative_positions_tell_heads_and_windows(tmp_path: Path) -> None:
    windows = read(tmp_path, vitdet({0: (7, 7), 1: (15, 9), 2: (7, 7)}), "detectron2").architecture
    assert (windows.window_size, windows.global_blocks, windows.relative_grid) == (4, (1,), (8, 5))
    whole = read(tmp_path, vitdet(dict.fromkeys(range(3), (7, 7))), "detectron2")
    assert whole.architecture.window_size == 0 and whole.notes[-1].startswith("no windows: ")
    with pytest.raises(ValueError, match="relative positions are 7 wide, which does not divide the width of 32"):
        read(tmp_path, vitdet(dict.fromkeys(range(3), (7, 7)), width=7), "detectron2")
    with pytest.raises(ValueError, match=r"num_heads is 2 by declaration or config\.json; the weights have 4 heads"):
        read(tmp_path, vitdet(dict.fromkeys(range(3), (7, 7))), "detectron2", num_heads=2)


@pytest.mark.parametrize("source", ["mae", "timm", "augreg", "dino", "moco_v3", "huggingface", "detectron2", "mmseg"])
def test_names_of_a_parallel_model(source: str, tmp_path: Path) -> None:
    torch.save({"model": plain()}, tmp_path / "mae.pth")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "mae.pth", source="mae", num_heads=4))
    restore = SOURCES[source].restore
    assert restore is not None
    state = restore(checkpoint)
    if source in ("timm", "augreg"):  # looked for by name before anything is renamed
        state |= {"pre_logits.fc.weight": torch.ones(32, 32), "head.weight": torch.ones(3, 32)}
    usual = read(tmp_path, state, source, num_heads=4)
    wrapped = read(tmp_path, {f"module.{name}": tensor for name, tensor in state.items()}, source, num_heads=4)
    assert wrapped.state.keys() == usual.state.keys() and wrapped.architecture == usual.architecture
    assert all(torch.equal(wrapped.state[name], tensor) for name, tensor in usual.state.items())
    with pytest.raises(ValueError, match=r"names do not belong to this kind of file: module\.extra"):
        read(tmp_path, state | {"module.extra": torch.ones(2)}, source, num_heads=4)


@pytest.mark.parametrize(("source", "mean", "std"), [("mae", 0.449, 0.226), ("augreg", 0.5, 0.5)])
@pytest.mark.parametrize("channels", [1, 5])
def test_constants_of_channels_that_are_no_colours(
    source: str, mean: float, std: float, channels: int, tmp_path: Path
) -> None:
    state = plain(patch_embed__proj__weight=torch.zeros(32, channels, 8, 8))
    checkpoint = read(tmp_path, state, source, num_heads=4)
    # ImageNet's: (0.485 + 0.456 + 0.406) / 3 and (0.229 + 0.224 + 0.225) / 3
    assert checkpoint.normalisation.mean == pytest.approx((mean,) * channels)
    assert checkpoint.normalisation.std == pytest.approx((std,) * channels)
    assert f"the mean of the family's constants for each of {channels} channels" in checkpoint.notes[-1]
    write_as(checkpoint, "own", tmp_path / "own.safetensors")
    assert read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors")).normalisation == checkpoint.normalisation


def test_spread_by_hand() -> None:
    assert Normalisation((0.25, 0.5, 0.75), (1.0, 2.0, 3.0)).spread(2) == Normalisation((0.5, 0.5), (2.0, 2.0))
    assert HALF.spread(3) == HALF and IMAGENET.spread(3) != IMAGENET


@pytest.mark.parametrize("target", ["mae", "timm", "beit", "augreg"])
@pytest.mark.parametrize(("kept", "found"), [((), "neither norm nor"), (("norm", "fc_norm"), "both norm and")])
def test_a_model_needs_its_norm(target: str, kept: tuple[str, ...], found: str, tmp_path: Path) -> None:
    norms = {f"{name}.{leaf}": torch.ones(32) for name in kept for leaf in ("weight", "bias")}
    state = plain(norm__weight=None, norm__bias=None) | norms
    checkpoint = read(tmp_path, state, "mae", num_heads=4)
    suffix = ".safetensors" if target in ("timm", "augreg") else ".pth"
    with pytest.raises(ValueError, match=rf"file\.pth: has {found} fc_norm, and .* needs one of them .*--encoder-only"):
        write_as(checkpoint, target, tmp_path / f"out{suffix}")
    assert not (tmp_path / f"out{suffix}").exists()


def test_the_official_model_needs_positions(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "own.safetensors", ViT(replace(TINY, position="none")), source="mae")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors"))
    with pytest.raises(ValueError, match="has no position table, and the official MAE model needs one"):
        write_as(checkpoint, "mae", tmp_path / "out.pth")


def test_positions_that_are_no_square_are_not_detectron2s(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, plain(), "mae", num_heads=4, image_size=(16, 64))
    with pytest.raises(
        ValueError, match=r"is for 2 x 8 patches, and that of detectron2's ViT is square; .*--resize-to"
    ):
        write_as(checkpoint, "detectron2", tmp_path / "out.pth")


def test_empty_file_of_a_source(tmp_path: Path) -> None:
    save_file({"norm.weight": torch.ones(32)}, tmp_path / "norm.safetensors")
    with pytest.raises(ValueError, match="no patch projection of four axes among 1 tensors"):
        read_checkpoint(InitialWeights(path=tmp_path / "norm.safetensors", source="mae"))
