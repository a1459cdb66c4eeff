"""DINOv2, plain, with registers and with SwiGLU: tokens and gradients are those of timm and transformers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from backbones.config import ViTConfig
from backbones.param_groups import exempt_vectors_and_embeddings, layer_of
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint

SIZE = (28, 42)  # 2 x 3 patches of 14
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 4}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 14,
    "image_size": list(SIZE),
}
PIXELS = {"mean": IMAGENET.mean, "std": IMAGENET.std}


def random(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.double().eval()


def timms(registers: int = 4) -> nn.Module:
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    return random(timm.create_model(name, img_size=SIZE, num_classes=0, **TINY))


def official(registers: int) -> tuple[dict[str, Tensor], nn.Module]:
    """A file of DINOv2's code, whose table has the class token's position, and timm's model of it, which has not."""
    model = timms(registers)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()} | {"mask_token": torch.zeros(1, 32)}
    if registers:
        state["register_tokens"] = state.pop("reg_token")
        row = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(1)).double()
        state["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
        model.cls_token.data += row
    return state, model


def same(ours: ViT, theirs: Callable[[Tensor], Tensor], model: nn.Module) -> None:
    """Tokens, and gradients with respect to pixels and the first and last MLP, to 1e-9 in float64."""
    ours.double().eval()
    image = torch.randn(2, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine, other = image.clone().requires_grad_(), image.clone().requires_grad_()
    made, expected = ours(mine), theirs(other)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-9)
    weight = torch.randn(made.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (made * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)
    last = [p.grad for name, p in model.named_parameters() if name.endswith(("fc2.weight", "down_proj.weight"))]
    torch.testing.assert_close(ours.blocks[-1].mlp.fc2.weight.grad, last[-1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("registers", [0, 4])
def test_timms_file(tmp_path: Path, registers: int) -> None:
    model, path = timms(registers), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="timm", num_heads=4, image_size=SIZE, **PIXELS))
    assert checkpoint.architecture.registers == registers
    vit, report = vit_in(checkpoint)
    assert len(report.loaded) == len(model.state_dict()) and not report.resized
    same(vit, model.forward_features, model)


def test_timms_config_tells_the_rest(tmp_path: Path) -> None:
    save_file(timms().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"architecture": "vit_small_patch14_reg4_dinov2", "model_args": {"embed_dim": 32, "depth": 2, "num_heads": 4},'
        ' "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
    )
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="timm", image_size=SIZE))
    assert (checkpoint.architecture.num_heads, checkpoint.normalisation) == (4, IMAGENET)


@pytest.mark.parametrize("registers", [0, 4])
def test_official_file(tmp_path: Path, registers: int) -> None:
    path = tmp_path / f"dinov2_vits14{'_reg4' if registers else ''}_pretrain.pth"
    state, model = official(registers)
    torch.save(state, path)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="dinov2", num_heads=4, image_size=SIZE))
    assert checkpoint.dropped == ("mask_token: DINOv2's token for masked patches",)
    same(vit_in(checkpoint)[0], model.forward_features, model)


def version_4(name: str) -> str:
    for part in ("query", "key", "value"):
        name = name.replace(f"attention.{part[0]}_proj", f"attention.attention.{part}")
    return name.replace("attention.o_proj", "attention.output.dense")


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("version", [4, 5])
def test_transformers_file(tmp_path: Path, registers: int, version: int) -> None:
    model = random(
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=4, **SIZES))
        if registers
        else Dinov2Model(Dinov2Config(**SIZES))
    )
    table = model.embeddings.position_embeddings
    # Dinov2 resamples its table as a square's whenever the image is none; the table here is for the image
    model.embeddings.interpolate_pos_encoding = lambda *_: table
    model.config.save_pretrained(tmp_path)
    state = {version_4(name) if version == 4 else name: tensor for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface"))
    assert (checkpoint.architecture.registers, checkpoint.architecture.image_size) == (registers, SIZE)
    assert checkpoint.dropped == ("embeddings.mask_token: DINOv2's token for masked patches",)
    same(vit_in(checkpoint)[0], lambda image: model(image).last_hidden_state, model)


def timms_giant() -> nn.Module:
    return random(timm.create_model("vit_giant_patch14_reg4_dinov2", img_size=SIZE, num_classes=0, **TINY))


def assert_gated(architecture: ViTConfig) -> None:
    assert (architecture.activation, architecture.registers) == ("swiglu", 4)


def test_timms_giant(tmp_path: Path) -> None:
    model, path = timms_giant(), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    (tmp_path / "config.json").write_text(
        '{"architecture": "vit_giant_patch14_reg4_dinov2", "model_args": {"embed_dim": 32, "depth": 2, "num_heads": 4},'
        ' "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
    )
    checkpoint = read_checkpoint(InitialWeights(path=path, source="timm", image_size=SIZE))
    assert_gated(checkpoint.architecture)
    assert checkpoint.architecture.mlp_width == 85  # of 32 * 5.33334 = 170 in the first layer
    same(vit_in(checkpoint)[0], model.forward_features, model)


def test_official_giant(tmp_path: Path) -> None:
    model, path = timms_giant(), tmp_path / "dinov2_vitg14_reg4_pretrain.pth"
    names = (("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3"), ("reg_token", "register_tokens"))
    state = {"mask_token": torch.zeros(1, 32)}
    for name, tensor in model.state_dict().items():
        for timms_name, official_name in names:
            name = name.replace(timms_name, official_name)
        state[name] = tensor
    state["pos_embed"] = torch.nn.functional.pad(state["pos_embed"], (0, 0, 1, 0))
    torch.save(state, path)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="dinov2", num_heads=4, image_size=SIZE))
    assert_gated(checkpoint.architecture)
    same(vit_in(checkpoint)[0], model.forward_features, model)


@pytest.mark.parametrize("version", [4, 5])
def test_transformers_giant(tmp_path: Path, version: int) -> None:
    model = random(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(use_swiglu_ffn=True, **SIZES)))
    table = model.embeddings.position_embeddings
    model.embeddings.interpolate_pos_encoding = lambda *_: table
    model.config.save_pretrained(tmp_path)
    state = dict(model.state_dict())
    if version == 4:
        for i in range(2):
            for leaf in ("weight", "bias"):
                gate, up = (state.pop(f"encoder.layer.{i}.mlp.{part}_proj.{leaf}") for part in ("gate", "up"))
                state[f"encoder.layer.{i}.mlp.weights_in.{leaf}"] = torch.cat([gate, up])
                state[f"encoder.layer.{i}.mlp.weights_out.{leaf}"] = state.pop(
                    f"encoder.layer.{i}.mlp.down_proj.{leaf}"
                )
    save_file({version_4(name) if version == 4 else name: t for name, t in state.items()}, tmp_path / "m.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "m.safetensors", source="huggingface"))
    assert_gated(checkpoint.architecture)
    same(vit_in(checkpoint)[0], lambda image: model(image).last_hidden_state, model)


def test_the_giant_has_24_heads_where_nothing_tells() -> None:
    from backbones.sources.dinov2 import SOURCE

    model = timm.models.vision_transformer.vit_giant_patch14_dinov2
    with torch.device("meta"):
        giant = model(depth=1)
    assert (giant.embed_dim, giant.blocks[0].attn.num_heads) == (1536, SOURCE.heads[1536])


def test_a_file_of_two_versions_or_without_a_part_is_refused(tmp_path: Path) -> None:
    state = random(Dinov2Model(Dinov2Config(**SIZES))).state_dict()
    name = "encoder.layer.0.attention.q_proj.weight"
    declared = InitialWeights(path=tmp_path / "model.safetensors", source="huggingface", num_heads=4)
    save_file(state | {version_4(name): state[name].clone()}, declared.path)
    with pytest.raises(ValueError, match=r"are the same part of blocks\.0\.attn\.qkv\.weight; the file mixes two"):
        read_checkpoint(declared)
    save_file({key: tensor for key, tensor in state.items() if key != name}, declared.path)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv\.weight cannot be joined: of 3 parts there are 2"):
        read_checkpoint(declared)


REGISTERED = ViTConfig(
    embed_dim=16, depth=2, num_heads=2, patch_size=4, image_size=(16, 16), position="learned", registers=3
)


def test_another_activation_is_another_architecture(tmp_path: Path) -> None:
    gated = replace(REGISTERED, activation="swiglu", mlp_ratio=2.5)
    write_checkpoint(tmp_path / "own.safetensors", ViT(gated), source="test")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors"))
    assert checkpoint.architecture == gated and checkpoint.state["blocks.0.mlp.fc1.weight"].shape == (80, 16)
    with pytest.raises(ValueError, match=r"activation swiglu \(recipe: gelu\)"):
        load_checkpoint(ViT(REGISTERED), checkpoint)
    with pytest.raises(ValueError, match="activation is 'relu'; there are: gelu, gelu_tanh, quick_gelu, swiglu"):
        replace(REGISTERED, activation="relu")


def test_our_own_file_holds_registers_at_another_size(tmp_path: Path) -> None:
    vit = ViT(REGISTERED)
    write_checkpoint(tmp_path / "own.safetensors", vit, source="test")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors"))
    assert checkpoint.architecture == REGISTERED
    bigger = ViT(REGISTERED.at(24, 32), class_token=False)
    report = load_checkpoint(bigger, checkpoint)
    assert torch.equal(bigger.reg_token, vit.reg_token)
    assert report.resized == ("pos_embed: 4x4 -> 6x8 patches, bicubic",)
    assert bigger(torch.zeros(1, 3, 24, 32)).shape == (1, 3 + 48, 16)
    with pytest.raises(ValueError, match=r"the ViT has 3 registers, which is written in the format `own` alone"):
        write_as(checkpoint, "timm", tmp_path / "timm.safetensors")


def test_another_number_of_registers_is_another_architecture_but_where_no_token_has_a_place(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "own.safetensors", ViT(REGISTERED), source="test")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors"))
    plain = replace(REGISTERED, registers=0)
    with pytest.raises(ValueError, match=r"registers 3 \(recipe: 0\).*--init-architecture file"):
        load_checkpoint(ViT(plain), checkpoint)
    vitdet = ViT(replace(plain, relative_position="decomposed", window_size=2), class_token=False, final_norm=False)
    report = load_checkpoint(vitdet, checkpoint)
    assert "reg_token: the task's ViT has none" in report.dropped


def test_registers_work_in_maps_checkpointing_masking_and_layer_decay() -> None:
    vit = ViT(REGISTERED, class_token=True)
    image = torch.randn(1, 3, 16, 24)
    (maps,) = vit.feature_maps(image, [1])
    assert maps.shape == (1, 16, 4, 6)
    assert torch.equal(vit.norm(maps.flatten(2).transpose(1, 2)), vit(image)[:, 4:])
    saving = ViT(REGISTERED, activation_checkpointing=True)
    saving.load_state_dict(vit.state_dict())
    for model in (vit, saving):
        model(image).square().sum().backward()
    assert vit.reg_token.grad.abs().sum() > 0 and torch.equal(vit.reg_token.grad, saving.reg_token.grad)
    assert vit.encode_visible(image, torch.tensor([[5, 0]])).shape == (1, 4 + 2, 16)
    assert layer_of("reg_token", depth=2) == 0 and exempt_vectors_and_embeddings("reg_token", vit.reg_token)


def test_registers_have_no_place_in_windows_and_relative_positions() -> None:
    with pytest.raises(ValueError, match="registers 3 have no place in windows"):
        replace(REGISTERED, window_size=2)
    with pytest.raises(ValueError, match="registers 3 have no place in relative_position 'table'"):
        replace(REGISTERED, relative_position="table")
