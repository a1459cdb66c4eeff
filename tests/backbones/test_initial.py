"""The architecture of the weights in place of the recipe's."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from timm.models._manipulate import adapt_input_conv

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import normalisation_of, read_initial, start_from, with_architecture
from backbones.weights.loader import inflate
from backbones.weights.normalisation import IMAGENET, Normalisation

RECIPE = ViTConfig(
    embed_dim=64, depth=2, num_heads=2, patch_size=8, image_size=(64, 64), window_size=4, global_blocks=(1,),
    relative_position="decomposed",
)  # fmt: skip
PLAIN = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=8, image_size=(32, 32))
BEIT = ViTConfig(
    embed_dim=32, depth=3, num_heads=4, patch_size=16, image_size=(32, 32), position="none", qkv_bias="qv",
    layer_scale=0.1, relative_position="table",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    backbone: ViTConfig


def declared(path: Path, architecture: ViTConfig, normalisation: Normalisation | None = None) -> InitialWeights:
    write_checkpoint(path / "b.safetensors", ViT(architecture), source="beit", normalisation=normalisation)
    return InitialWeights(path=path / "b.safetensors", architecture="file")


def test_the_files_vit_at_the_recipes_size(tmp_path: Path) -> None:
    init = declared(tmp_path, BEIT)
    assert with_architecture(Config(RECIPE), None).backbone == RECIPE
    assert with_architecture(Config(RECIPE), replace(init, architecture="recipe")).backbone == RECIPE
    plain = replace(RECIPE, window_size=0, global_blocks=())
    found = with_architecture(Config(plain), init).backbone
    # what a header rounds or leaves open is not compared: the first value of the layer scale
    assert replace(found, layer_scale=0.1) == BEIT.at(64, 64)


def test_windows_and_positions_that_the_file_has_not_stay(tmp_path: Path) -> None:
    scaled = ViTConfig(embed_dim=32, depth=3, num_heads=4, patch_size=16, image_size=(32, 32), layer_scale=1e-5)
    found = with_architecture(Config(RECIPE), declared(tmp_path, scaled)).backbone
    assert (found.window_size, found.global_blocks, found.relative_position) == (4, (2,), "decomposed")
    assert found.layer_scale == 1e-5 and found.depth == 3 and found.image_size == (64, 64)


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    grey = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=8, image_size=(32, 32), in_chans=1)
    with pytest.raises(ValueError, match=r"weights for images of 1 channels.*--in-chans 3 --inflate sum"):
        with_architecture(Config(RECIPE), declared(tmp_path, grey, Normalisation((0.5,), (0.5,))))
    coarse = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=24, image_size=(48, 48))
    with pytest.raises(ValueError, match=r"does not go with the recipe's: image_size \(64, 64\) is no multiple"):
        with_architecture(Config(RECIPE), declared(tmp_path, coarse))


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (32, (7, 15, 23, 31)), (6, (1, 2, 4, 5)), (1, (0,))],
)
def test_whole_image_blocks_are_at_the_same_shares_of_the_depth(
    depth: int, blocks: tuple[int, ...], tmp_path: Path
) -> None:
    """ViTDet's are the last of each quarter (arXiv 2203.16527): its own for L and H are what B's become."""
    recipe = replace(RECIPE, depth=12, global_blocks=(2, 5, 8, 11))
    found = with_architecture(Config(recipe), declared(tmp_path, replace(PLAIN, depth=depth))).backbone
    assert found.global_blocks == blocks


def test_a_task_that_asks_for_the_normalisation_first_reads_the_file_once(tmp_path: Path) -> None:
    init = declared(tmp_path, BEIT, Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    checkpoint = read_initial(init)
    init.path.unlink()
    report, normalisation = start_from(ViT(BEIT), init, checkpoint)
    assert normalisation == normalisation_of(init, checkpoint) == Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert len(report.loaded) == len(ViT(BEIT).state_dict())
    assert read_initial(None) is None and normalisation_of(None, None) == IMAGENET


@dataclass(frozen=True)
class Task(Config):
    """What classification and segmentation have besides."""

    class_token: bool = True
    reads_class_token: bool = False


def test_weights_without_a_class_token_make_a_vit_without(tmp_path: Path) -> None:
    """I-JEPA's: the mean of the patches and the maps of dense tasks need none."""
    gap = ViT(PLAIN, class_token=False)
    write_checkpoint(tmp_path / "gap.safetensors", gap, source="timm")
    init = InitialWeights(path=tmp_path / "gap.safetensors")
    assert not with_architecture(Task(PLAIN), init).class_token
    assert not with_architecture(Task(PLAIN), replace(init, architecture="file")).class_token
    assert with_architecture(Task(PLAIN, reads_class_token=True), init).class_token  # refused when it is loaded
    assert with_architecture(Task(PLAIN), replace(declared(tmp_path, PLAIN), architecture="recipe")).class_token
    assert with_architecture(Task(PLAIN), None).class_token


REGISTERED = ViTConfig(
    embed_dim=32, depth=2, num_heads=4, patch_size=8, image_size=(32, 32), position="learned", registers=4,
    activation="quick_gelu", pre_norm=True, norm_eps=1e-5,
)  # fmt: skip


def test_registers_stay_where_tokens_have_a_place(tmp_path: Path) -> None:
    init = declared(tmp_path, REGISTERED)
    plain = with_architecture(Task(replace(PLAIN, image_size=(64, 64))), init).backbone
    assert plain == REGISTERED.at(64, 64)
    vitdet = with_architecture(Config(RECIPE), init).backbone
    assert (vitdet.registers, vitdet.window_size, vitdet.activation, vitdet.pre_norm) == (0, 4, "quick_gelu", True)
    report, _ = start_from(ViT(vitdet, class_token=False, final_norm=False), init)
    assert "reg_token: the task's ViT has none" in report.dropped
    table = replace(PLAIN, image_size=(64, 64), relative_position="table")
    with pytest.raises(ValueError, match=r"registers 4 have no place in .*'table'.* Give --relative-position none"):
        with_architecture(Task(table), init)
    assert with_architecture(Task(replace(table, relative_position="none")), init).backbone == plain


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 6, 13])
def test_the_patch_projection_is_inflated_as_by_timm(channels: int) -> None:
    """One channel by `sum`, others by `repeat`: channel c is that of c modulo 3, times 3 / channels."""
    kernel = torch.randn(5, 3, 4, 4)
    theirs = adapt_input_conv(channels, kernel.clone())
    # 3 / channels is rounded in the one and in the other
    torch.testing.assert_close(inflate(kernel, channels, "sum" if channels == 1 else "repeat"), theirs)
    if channels == 5:
        assert torch.allclose(inflate(kernel, 5, "repeat")[:, 4], kernel[:, 1] * 0.6)


@pytest.mark.parametrize("channels, said", [(1, "their sum"), (5, "the 3 in turn, times 3 / 5")])
def test_rgb_weights_take_the_channels_of_the_run(tmp_path: Path, channels: int, said: str) -> None:
    init = declared(tmp_path, PLAIN)
    rgb, vit = read_initial(init), ViT(replace(PLAIN, in_chans=channels))
    assert rgb is not None
    report, normalisation = start_from(vit, init)
    kernel = rgb.state["patch_embed.proj.weight"]
    torch.testing.assert_close(vit.patch_embed.proj.weight.data, adapt_input_conv(channels, kernel.clone()))
    assert f"patch_embed.proj.weight: 3 -> {channels} channels" in report.resized[0] and len(report.resized) == 1
    assert report.notes[-1] == (
        f"patch projection: the kernels of {channels} channel(s) are {said}, as timm's adapt_input_conv has it"
    )
    assert normalisation == IMAGENET  # of RGB: the run declares its own
    found = with_architecture(Task(replace(PLAIN, in_chans=channels)), init).backbone
    assert found == replace(PLAIN, in_chans=channels)


def test_six_equal_channels_give_what_three_gave(tmp_path: Path) -> None:
    init = declared(tmp_path, PLAIN)
    three, six = ViT(PLAIN), ViT(replace(PLAIN, in_chans=6))
    start_from(three, init), start_from(six, init)
    grey = torch.randn(1, 1, 32, 32)
    # another order of sums
    torch.testing.assert_close(six(grey.expand(-1, 6, -1, -1)), three(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_other_channels_are_not_guessed(tmp_path: Path) -> None:
    four = declared(tmp_path, replace(PLAIN, in_chans=4), Normalisation((0.5,) * 4, (0.5,) * 4))
    for channels in (3, 5):
        with pytest.raises(ValueError, match=rf"in_chans 4 \(recipe: {channels}\).*or --in-chans 4 reads such images"):
            start_from(ViT(replace(PLAIN, in_chans=channels)), four)
