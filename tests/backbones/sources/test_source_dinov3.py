"""DINOv3 of timm and transformers: tokens and gradients are the peer's, at the size of pre-training and at others."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from backbones.config import ViTConfig
from backbones.rotary import patch_angles
from backbones.sources.architecture import infer_architecture
from backbones.sources.huggingface import rename as rename_huggingface
from backbones.sources.source import check_whole
from backbones.sources.timm import rename
from backbones.sources.timm_config import _plain
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint

# powers of two: the peers compute coordinates in float32, which holds those of 2, 4 and 8 patches exactly
SIZES = ((32, 64), (128, 32))
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 4}
NAMES = ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb", "vit_huge_plus_patch16_dinov3_qkvb")


def random(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.double().eval()


def published(name: str) -> ViTConfig:
    """The architecture that is read of timm's model of the name, at its real size and without memory."""
    with torch.device("meta"):
        state = rename(timm.create_model(name, num_classes=0).state_dict()).state
    heads, _, untold = _plain(name, "its name")
    a = replace(infer_architecture(state, num_heads=heads)[0], **untold)
    check_whole(state, a)
    return a


def same(ours: ViT, theirs: Callable[[Tensor], Tensor], last: nn.Parameter, size: tuple[int, int]) -> None:
    """Tokens, and gradients with respect to pixels and the last MLP, to 1e-9 in float64."""
    ours.double().eval()
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine, other = image.clone().requires_grad_(), image.clone().requires_grad_()
    made, expected = ours(mine), theirs(other)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-9)
    weight = torch.randn(made.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    wanted = torch.autograd.grad((expected * weight).sum(), (other, last))
    found = torch.autograd.grad((made * weight).sum(), (mine, ours.blocks[-1].mlp.fc2.weight))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def timms(name: str, folder: Path) -> tuple[nn.Module, InitialWeights]:
    """timm's model of the name made small, its frequencies in float64, and its file with timm's config.json."""
    model = random(timm.create_model(name, num_classes=0, **TINY))
    # timm computes them in float32
    model.rope.periods = 100.0 ** (torch.arange(2, dtype=torch.float64) / 2)
    save_file(model.state_dict(), folder / "model.safetensors")
    said = {"architecture": name, "model_args": TINY, "mean": list(IMAGENET.mean), "std": list(IMAGENET.std)}
    (folder / "config.json").write_text(json.dumps(said))
    return model, InitialWeights(path=folder / "model.safetensors", source="timm")


@pytest.mark.parametrize("name", NAMES)
def test_timms_file(tmp_path: Path, name: str) -> None:
    model, declared = timms(name, tmp_path)
    checkpoint = read_checkpoint(declared)
    a = checkpoint.architecture
    assert (a.rotary, a.rotary_base, a.norm_eps, a.registers, a.position) == ("centred", 100, 1e-5, 4, "none")
    assert a.qkv_bias == ("qv" if "qkvb" in name else "none")
    assert a.activation == ("swiglu" if "plus" in name else "gelu")
    vit, report = vit_in(checkpoint)
    assert not report.resized and not report.dropped
    for size in SIZES:
        same(vit, model.forward_features, model.blocks[-1].mlp.fc2.weight, size)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("version", [4, 5])
def test_transformers_file(tmp_path: Path, gated: bool, version: int) -> None:
    config = DINOv3ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=64,
        num_register_tokens=0 if gated else 4, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu",
        rope_theta=50.0,
    )  # fmt: skip
    model = random(DINOv3ViTModel(config))
    model.rope_embeddings.inv_freq = 50.0 ** -(torch.arange(2, dtype=torch.float64) / 2)
    config.save_pretrained(tmp_path)
    state = model.state_dict()
    if version == 4:
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface"))
    a = checkpoint.architecture
    assert (a.rotary, a.rotary_base, a.norm_eps, a.qkv_bias) == ("centred", 50, 1e-5, "qv")
    assert (a.registers, a.activation, a.mlp_width) == ((0, "swiglu", 48) if gated else (4, "gelu", 48))
    assert checkpoint.dropped == ("embeddings.mask_token: DINOv3's token for masked patches",)
    for size in SIZES:
        last = model.model.layer[-1].mlp.down_proj.weight
        same(vit_in(checkpoint)[0], lambda image: model(image).last_hidden_state, last, size)


def test_what_config_json_may_not_say(tmp_path: Path) -> None:
    config = DINOv3ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    save_file(DINOv3ViTModel(config).state_dict(), tmp_path / "model.safetensors")
    declared = InitialWeights(path=tmp_path / "model.safetensors", source="huggingface", num_heads=4)
    notes = read_checkpoint(declared).notes
    assert "activation gelu: usual for such names, no config.json beside the file says it" in notes
    (tmp_path / "config.json").write_text('{"hidden_act": "silu"}')
    with pytest.raises(ValueError, match="hidden_act 'silu'; the ViT here has gelu or gelu_pytorch_tanh or quick_gelu"):
        read_checkpoint(declared)


def test_timms_file_without_a_word_is_refused(tmp_path: Path) -> None:
    declared = timms(NAMES[0], tmp_path)[1]
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"timm's models without one have rotary positions, .* put that beside it"):
        read_checkpoint(replace(declared, num_heads=4, mean=IMAGENET.mean, std=IMAGENET.std))
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit_small_patch16_224", "model_args": TINY, "mean": [0.5] * 3, "std": [0.5] * 3})
    )
    with pytest.raises(ValueError, match=r"encoder are not whole\. Missing 1 \(pos_embed\)"):
        read_checkpoint(declared)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_small_patch16_rope_224"}))
    with pytest.raises(
        ValueError, match=r"no plain ViT: it has .*rotary positions of the class RotaryEmbeddingCat that"
    ):
        read_checkpoint(declared)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [  # width, depth, heads, hidden width: DINOv3's table 1 and its hub's entries
        ("vit_small_patch16_dinov3", (384, 12, 6, 1536)),
        ("vit_small_plus_patch16_dinov3", (384, 12, 6, 1536)),
        ("vit_base_patch16_dinov3", (768, 12, 12, 3072)),
        ("vit_large_patch16_dinov3_qkvb", (1024, 24, 16, 4096)),
        ("vit_huge_plus_patch16_dinov3_qkvb", (1280, 32, 20, 5120)),
        ("vit_7b_patch16_dinov3", (4096, 40, 32, 8192)),
    ],
)
def test_published_shapes(name: str, numbers: tuple[int, ...]) -> None:
    a = published(name)
    assert (a.embed_dim, a.depth, a.num_heads, a.mlp_width) == numbers


@pytest.mark.parametrize("gated", [False, True])
def test_published_shapes_of_transformers(gated: bool) -> None:
    """ViT-S, the default of transformers' configuration, and ViT-S+."""
    config = DINOv3ViTConfig(num_register_tokens=4, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu")
    with torch.device("meta"):
        renamed = rename_huggingface(DINOv3ViTModel(config).state_dict())
    a = replace(infer_architecture(renamed.state, num_heads=6)[0], **renamed.untold)
    check_whole(renamed.state, a)
    assert (a.embed_dim, a.depth, a.mlp_width, a.registers, a.qkv_bias) == (384, 12, 1536, 4, "qv")
    assert a.activation == ("swiglu" if gated else "gelu")


def test_angles_by_hand() -> None:
    a = ViTConfig(embed_dim=8, depth=1, num_heads=1, patch_size=4, image_size=(8, 8), rotary="centred")
    like = torch.zeros(1, dtype=torch.float64)
    # two patches side by side: rows at the centre 0, columns at -1/2 and 1/2; frequencies 1 and 1/10
    expected = [[0, 0, -math.pi, -math.pi / 10], [0, 0, math.pi, math.pi / 10]]
    torch.testing.assert_close(patch_angles(a, (1, 2), like=like), torch.tensor(expected, dtype=torch.float64))
    stretched = replace(a, rotary="stretched", rotary_base=10_000.0, rotary_grid=(4, 6))
    # rows 0 and 1 of 2 become 0 and 2 of 4; the one column stays 0; frequencies 1 and 1/100
    expected = [[0, 0, 0, 0], [2, 0.02, 0, 0]]
    torch.testing.assert_close(patch_angles(stretched, (2, 1), like=like), torch.tensor(expected, dtype=torch.float64))
    assert patch_angles(a, (1, 2), like=torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32


ROTARY = ViTConfig(
    embed_dim=16, depth=2, num_heads=2, patch_size=4, image_size=(16, 16), position="none", rotary="centred",
    registers=2, layer_scale=1.0, qkv_bias="qv", norm_eps=1e-5,
)  # fmt: skip


def test_our_own_file_holds_all_of_it(tmp_path: Path) -> None:
    vit = ViT(ROTARY)
    write_checkpoint(tmp_path / "own.safetensors", vit, source="test")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors"))
    assert checkpoint.architecture == ROTARY
    bigger = ViT(ROTARY.at(24, 32))
    assert not load_checkpoint(bigger, checkpoint).resized
    image = torch.randn(1, 3, 24, 32)
    assert torch.equal(bigger(image), vit(image))  # positions know no size
    with pytest.raises(ValueError, match=r"rotary positions, norms with an epsilon of 1e-05, which is written in the"):
        write_as(checkpoint, "timm", tmp_path / "timm.safetensors")
    plain = replace(ROTARY, rotary="none")
    with pytest.raises(ValueError, match=r"rotary centred \(recipe: none\).*--init-architecture file"):
        load_checkpoint(ViT(plain), checkpoint)


def test_masked_images_keep_the_angles_of_the_patches() -> None:
    vit = ViT(ROTARY).double().eval()
    image = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    order = torch.stack([torch.randperm(24), torch.randperm(24)])
    every, whole = vit.encode_visible(image, order), vit(image)
    patches = every[:, 3:].gather(1, order.argsort(1)[:, :, None].expand(-1, -1, 16))
    torch.testing.assert_close(torch.cat([every[:, :3], patches], dim=1), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rotary", ["centred", "stretched"])
def test_a_window_has_the_angles_of_an_image_of_its_size(rotary: str) -> None:
    """A windowed ViT gives, of an image of one window, what one over the whole does; of four, four times that."""
    grid = (16, 16) if rotary == "stretched" else None
    a = replace(ROTARY, registers=0, image_size=(8, 8), rotary=rotary, rotary_grid=grid)
    whole, windowed = (ViT(one, class_token=False).double().eval() for one in (a, replace(a, window_size=2)))
    windowed.load_state_dict(whole.state_dict())
    part = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(windowed(part), whole(part), rtol=0, atol=1e-12)
    (four,), (one,) = windowed.feature_maps(part.repeat(1, 1, 2, 2), [1]), whole.feature_maps(part, [1])
    torch.testing.assert_close(four, one.repeat(1, 1, 2, 2), rtol=0, atol=1e-12)
    mixed = ViT(replace(a, window_size=2, global_blocks=(1,)), class_token=False).double().eval()
    mixed.load_state_dict(whole.state_dict())
    (after_windows,) = mixed.feature_maps(part.repeat(1, 1, 2, 2), [1])
    assert not torch.allclose(after_windows, four)  # the second block sees the angles of the image
    assert windowed(torch.randn(1, 3, 12, 20, dtype=torch.float64)).shape == (1, 15, a.embed_dim)  # filled up


def test_rotary_positions_in_maps_and_checkpointing() -> None:
    vit, saving = ViT(ROTARY), ViT(ROTARY, activation_checkpointing=True)
    saving.load_state_dict(vit.state_dict())
    image = torch.randn(1, 3, 16, 24)
    (maps,) = vit.feature_maps(image, [1])
    assert torch.equal(vit.norm(maps.flatten(2).transpose(1, 2)), vit(image)[:, 3:])
    for model in (vit, saving):
        model(image).square().sum().backward()
    for mine, other in zip(vit.parameters(), saving.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)
    with torch.autocast("cpu", torch.bfloat16):
        assert (vit(image) - vit.float()(image)).abs().max() < 0.1
