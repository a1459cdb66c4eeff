"""SigLIP's and CLIP's towers of timm and transformers: tokens and gradients are the peer's, heads and text dropped."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from backbones.config import ViTConfig
from backbones.param_groups import layer_of
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint, write_checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import HALF, OPENAI_CLIP
from backbones.weights.read import read_checkpoint

SIZE = (8, 12)  # 2 x 3 patches of 4
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
TEXT = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 10,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def random(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.double().eval()


def same(ours: ViT, theirs: Callable[[Tensor], Tensor], model: nn.Module) -> None:
    """Tokens, and gradients with respect to pixels and the last MLP, to 1e-9 in float64."""
    ours.double().eval()
    size = ours.architecture.image_size
    image = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine, other = image.clone().requires_grad_(), image.clone().requires_grad_()
    made, expected = ours(mine), theirs(other)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-9)
    weight = torch.randn(made.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (made * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)
    found = {name: p.grad for name, p in model.named_parameters() if ".1." in name and name.endswith("fc2.weight")}
    (last,) = (gradient for name, gradient in found.items() if "head" not in name and "text" not in name)
    torch.testing.assert_close(ours.blocks[-1].mlp.fc2.weight.grad, last, rtol=1e-9, atol=1e-9)


def wide(tower: nn.Module, prefix: int) -> None:
    """Give the tower a table for SIZE, which its configuration has no words for."""
    embeddings = tower.embeddings
    rows = prefix + 6
    table = torch.randn(rows, 32, generator=torch.Generator().manual_seed(5)).double()
    embeddings.position_embedding = nn.Embedding.from_pretrained(table, freeze=False)
    embeddings.interpolate_pos_encoding = lambda *_: embeddings.position_embedding.weight[None]


def written(model: PreTrainedModel, folder: Path) -> Path:
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.get("vision_config", config)["image_size"] = list(SIZE)
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("whole", [False, True])
def test_siglip_of_transformers(tmp_path: Path, whole: bool) -> None:
    model = random(
        SiglipModel(SiglipConfig(text_config=TEXT, vision_config=SIZES))
        if whole
        else SiglipVisionModel(SiglipVisionConfig(**SIZES))
    )
    tower = model.vision_model if whole else model
    wide(tower, 0)
    checkpoint = read_checkpoint(InitialWeights(path=written(model, tmp_path), source="huggingface"))
    a = checkpoint.architecture
    assert (a.activation, a.norm_eps, a.pre_norm, a.num_heads) == ("gelu_tanh", 1e-6, False, 4)
    assert checkpoint.normalisation == HALF and "cls_token" not in checkpoint.state
    pool = [item for item in checkpoint.dropped if item.endswith("head, which pools the tokens by attention")]
    assert len(pool) == 11 and (len(checkpoint.dropped) > 11) == whole
    same(vit_in(checkpoint)[0], lambda x: tower(x, interpolate_pos_encoding=True).last_hidden_state, model)


@pytest.mark.parametrize(("whole", "activation"), [(False, "quick_gelu"), (True, "quick_gelu"), (False, "gelu")])
def test_clip_of_transformers(tmp_path: Path, whole: bool, activation: str) -> None:
    sizes = SIZES | {"hidden_act": activation}
    model = random(
        CLIPModel(CLIPConfig(text_config=TEXT, vision_config=sizes))
        if whole
        else CLIPVisionModel(CLIPVisionConfig(**sizes))
    )
    tower = model.vision_model if whole else model
    wide(tower, 1)
    checkpoint = read_checkpoint(InitialWeights(path=written(model, tmp_path), source="huggingface"))
    a = checkpoint.architecture
    assert (a.activation, a.norm_eps, a.pre_norm, a.num_heads) == (activation, 1e-5, True, 4)
    assert checkpoint.normalisation == OPENAI_CLIP and bool(checkpoint.dropped) == whole

    def tokens(image: Tensor) -> Tensor:  # transformers norms the class token alone
        return tower.post_layernorm(tower(image, interpolate_pos_encoding=True).last_hidden_state)

    same(vit_in(checkpoint)[0], tokens, model)


def test_what_no_tensor_tells_is_told_by_config_json(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(CLIPVisionModel(CLIPVisionConfig(**SIZES)).state_dict(), path)
    declared = InitialWeights(path=path, source="huggingface", num_heads=4)
    with pytest.raises(ValueError, match=r"those of OpenCLIP under the same names an exact one; no config\.json"):
        read_checkpoint(declared)
    save_file(SiglipVisionModel(SiglipVisionConfig(**SIZES)).state_dict(), path)
    notes = read_checkpoint(declared).notes
    assert "activation gelu_tanh: usual for such names, no config.json beside the file says it" in notes
    (tmp_path / "config.json").write_text('{"hidden_act": "relu"}')
    with pytest.raises(ValueError, match="hidden_act 'relu'; the ViT here has gelu or gelu_pytorch_tanh or quick_gelu"):
        read_checkpoint(declared)


def test_siglip2s_linear_patches_are_the_same_network(tmp_path: Path) -> None:
    """transformers is given pixels by patch; at the size of its table, 2 x 2 patches, it resamples nothing."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = random(Siglip2VisionModel(Siglip2VisionConfig(**sizes, patch_size=4, num_patches=4)))
    model.config.save_pretrained(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface"))
    a = checkpoint.architecture
    assert (a.activation, a.patch_size, a.image_size, a.num_heads) == ("gelu_tanh", 4, (8, 8), 4)

    def theirs(image: Tensor) -> Tensor:
        pixels = image.unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 3, 5, 1)  # B, h, w, rows, columns, C
        count = len(image)
        mask, shapes = torch.ones(count, 4, dtype=torch.long), torch.tensor([[2, 2]] * count)
        return model(pixels.flatten(3).flatten(1, 2), mask, shapes).last_hidden_state

    same(vit_in(checkpoint)[0], theirs, model)


@pytest.mark.parametrize("columns", [47, 64])
def test_linear_patches_of_another_shape_are_refused(columns: int, tmp_path: Path) -> None:
    state = SiglipVisionModel(SiglipVisionConfig(**SIZES)).state_dict()
    state["embeddings.patch_embedding.weight"] = torch.zeros(32, columns)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"the patch projection has {columns} columns, which are no square of pixels"):
        read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface", num_heads=4))


def timms(name: str, folder: Path, **said: object) -> tuple[nn.Module, InitialWeights]:
    """timm's model of the name made small, and its file with timm's config.json beside it."""
    arguments = {"embed_dim": 32, "depth": 2, "num_heads": 4}
    model = random(timm.create_model(name, img_size=(32, 48), patch_size=16, num_classes=0, **arguments))
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": name, "model_args": arguments | {"patch_size": 16}, "pretrained_cfg": said}
    (folder / "config.json").write_text(json.dumps(config))
    return model, InitialWeights(path=folder / "model.safetensors", source="timm", image_size=(32, 48))


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("vit_base_patch16_siglip_224", "gelu"),
        ("vit_so400m_patch14_siglip_378", "gelu"),
        ("vit_giantopt_patch16_siglip_256", "gelu_tanh"),
        ("vit_base_patch32_siglip_gap_256", "gelu_tanh"),
    ],
)
def test_siglip_of_timm(tmp_path: Path, name: str, activation: str) -> None:
    model, declared = timms(name, tmp_path, mean=[0.5] * 3, std=[0.5] * 3)
    checkpoint = read_checkpoint(declared)
    assert (checkpoint.architecture.activation, checkpoint.normalisation) == (activation, HALF)
    assert len(checkpoint.dropped) == sum(key.startswith("attn_pool.") for key in model.state_dict())
    same(vit_in(checkpoint)[0], model.forward_features, model)


@pytest.mark.parametrize("name", ["vit_base_patch16_clip_224", "vit_base_patch16_clip_quickgelu_224"])
def test_clip_of_timm(tmp_path: Path, name: str) -> None:
    model, declared = timms(name, tmp_path, mean=list(OPENAI_CLIP.mean), std=list(OPENAI_CLIP.std))
    a = read_checkpoint(declared).architecture
    assert (a.activation, a.norm_eps, a.pre_norm) == ("quick_gelu" if "quick" in name else "gelu", 1e-5, True)
    same(vit_in(read_checkpoint(declared))[0], model.forward_features, model)


def test_openais_tag_of_timm_is_trained_with_a_quick_gelu(tmp_path: Path) -> None:
    said = {"tag": "openai", "mean": list(OPENAI_CLIP.mean), "std": list(OPENAI_CLIP.std)}
    plain, declared = timms("vit_base_patch16_clip_224", tmp_path, **said)
    checkpoint = read_checkpoint(declared)
    assert checkpoint.architecture.activation == "quick_gelu"
    assert any(note.startswith("activation quick_gelu: timm's notes on vit_base") for note in checkpoint.notes)
    (tmp_path / "quick").mkdir()
    quick = timms("vit_base_patch16_clip_quickgelu_224", tmp_path / "quick")[0]
    quick.load_state_dict(plain.state_dict())
    same(vit_in(checkpoint)[0], quick.forward_features, quick)


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "vit_base_patch16_clip_224"])
def test_timms_towers_are_told_by_name_or_config_alone(tmp_path: Path, name: str) -> None:
    declared = timms(name, tmp_path)[1]
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"towers and Perception Encoders differ in .* no config\.json of timm"):
        read_checkpoint(InitialWeights(path=declared.path, source="timm", num_heads=4, mean=HALF.mean, std=HALF.std))


TOWER = ViTConfig(
    embed_dim=16, depth=2, num_heads=2, patch_size=4, image_size=(16, 16), position="learned", pre_norm=True,
    norm_eps=1e-5, activation="quick_gelu",
)  # fmt: skip


def own(folder: Path) -> tuple[ViT, Checkpoint]:
    vit = ViT(TOWER)
    write_checkpoint(folder / "own.safetensors", vit, source="test", normalisation=OPENAI_CLIP)
    return vit, read_checkpoint(InitialWeights(path=folder / "own.safetensors"))


def test_our_own_file_holds_all_of_it_at_another_size(tmp_path: Path) -> None:
    vit, checkpoint = own(tmp_path)
    assert checkpoint.architecture == TOWER and "patch_embed.proj.bias" not in checkpoint.state
    dense = ViT(TOWER.at(24, 32), class_token=False, final_norm=False, activation_checkpointing=True)
    load_checkpoint(dense, checkpoint)
    (maps,) = dense.feature_maps(torch.randn(1, 3, 24, 32), [1])
    assert maps.shape == (1, 16, 6, 8)
    maps.sum().backward()
    assert dense.norm_pre.weight.grad.abs().sum() > 0 and layer_of("norm_pre.weight", depth=2) == 0
    assert vit.encode_visible(torch.randn(1, 3, 16, 16), torch.tensor([[5, 0]])).shape == (1, 3, 16)
    with pytest.raises(ValueError, match="the activation quick_gelu, a norm before the first block, norms with an eps"):
        write_as(checkpoint, "timm", tmp_path / "timm.safetensors")


def test_a_plain_recipe_refuses_it(tmp_path: Path) -> None:
    plain = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=4, image_size=(16, 16))
    said = r"activation quick_gelu \(recipe: gelu\), pre_norm True \(recipe: False\), norm_eps 1e-05 \(recipe: 1e-06\)"
    with pytest.raises(ValueError, match=said):
        load_checkpoint(ViT(plain), own(tmp_path)[1])


def test_windows_take_it_without_tokens(tmp_path: Path) -> None:
    vitdet = replace(TOWER, relative_position="decomposed", window_size=2)
    vit = ViT(vitdet, class_token=False, final_norm=False)
    report = load_checkpoint(vit, own(tmp_path)[1])
    assert "cls_token: the task's ViT has none" in report.dropped
    assert vit(torch.zeros(1, 3, 16, 16)).shape == (1, 16, 16)
