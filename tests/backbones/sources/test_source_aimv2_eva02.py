"""AIMv2 of timm and transformers, EVA-02 of timm: tokens and gradients are the peer's, heads dropped."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Aimv2Config, Aimv2Model, Aimv2VisionConfig, Aimv2VisionModel
from transformers.models.aimv2.modeling_aimv2 import Aimv2RMSNorm

from backbones.config import ViTConfig
from backbones.param_groups import exempt_block_norms_and_position
from backbones.sources import huggingface_towers
from backbones.sources.architecture import infer_architecture
from backbones.sources.huggingface import rename as rename_huggingface
from backbones.sources.source import check_whole
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import OPENAI_CLIP
from backbones.weights.read import read_checkpoint
from tests.backbones.sources.test_source_dinov3 import published, random, same

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 4}
PIXELS = {"mean": list(OPENAI_CLIP.mean), "std": list(OPENAI_CLIP.std)}


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers computes AIMv2's norms in float32 whatever the weights are: here in theirs."""

    def forward(self: Aimv2RMSNorm, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    monkeypatch.setattr(Aimv2RMSNorm, "forward", forward)


@pytest.mark.parametrize("whole", [False, True])
def test_aimv2_of_transformers(tmp_path: Path, whole: bool, exact_norms: None) -> None:
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 28,
        "patch_size": 14,
    }  # fmt: skip
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = random(
        Aimv2Model(Aimv2Config(vision_config=sizes, text_config=text | {"vocab_size": 8, "eos_token_id": 1}))
        if whole
        else Aimv2VisionModel(Aimv2VisionConfig(**sizes))
    )
    model.config.save_pretrained(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface"))
    a = checkpoint.architecture
    assert (a.norm, a.norm_eps, a.bias, a.qkv_bias, a.patch_norm) == ("rms", 1e-5, False, "none", True)
    assert (a.activation, a.mlp_width, a.num_heads, a.image_size) == ("swiglu", 48, 4, (28, 28))
    assert checkpoint.normalisation == OPENAI_CLIP and "cls_token" not in checkpoint.state
    assert sum("pools the tokens by attention" in line for line in checkpoint.dropped) == 5
    tower = model.vision_model if whole else model
    last = tower.encoder.layers[-1].ffn.down_proj.weight
    same(vit_in(checkpoint)[0], lambda image: tower(image).last_hidden_state, last, (28, 28))


def natives(folder: Path, **changes: Any) -> tuple[nn.Module, InitialWeights]:
    """transformers' AIMv2 for native resolution made small, its file, and its config.json."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    model = random(Aimv2VisionModel(Aimv2VisionConfig(**{"is_native": True, "patch_size": 14, **sizes, **changes})))
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors")
    return model, InitialWeights(path=folder / "model.safetensors", source="huggingface")


@pytest.mark.parametrize("size", [(28, 28), (28, 56), (70, 42)])
def test_aimv2_for_native_resolution(tmp_path: Path, size: tuple[int, int], exact_norms: None) -> None:
    model, declared = natives(tmp_path)
    checkpoint = read_checkpoint(declared)
    a = checkpoint.architecture
    assert (a.position, a.norm, a.norm_eps, a.num_heads) == ("computed", "rms", 1e-5, 4)
    assert "pos_embed" not in checkpoint.state and checkpoint.normalisation == OPENAI_CLIP
    assert any("they are computed at every size" in note for note in checkpoint.notes)
    last = model.encoder.layers[-1].ffn.down_proj.weight
    same(vit_in(checkpoint)[0], lambda image: model(image).last_hidden_state, last, size)


def test_native_in_apples_own_names_and_without_a_config(tmp_path: Path, exact_norms: None) -> None:
    model, declared = natives(tmp_path)
    state = read_checkpoint(declared).state
    theirs = {}
    for name, tensor in state.items():
        name = (
            name.replace("norm1", "norm_1").replace("norm2", "norm_2").replace("patch_embed", "preprocessor.patchifier")
        )
        name = name.replace("norm.", "trunk.post_trunk_norm.") if name.startswith("norm.") else name
        if name.endswith("mlp.fc1.weight"):
            theirs[f"trunk.{name}"], theirs[f"trunk.{name.replace('fc1', 'fc3')}"] = (
                t.clone() for t in tensor.chunk(2)
            )
        else:
            theirs[f"trunk.{name}" if name.startswith("blocks") else name] = tensor
    save_file(theirs, declared.path)
    config = {"model_type": "aimv2", "num_attention_heads": 4, "rms_norm_eps": 1e-5, "patch_size": 14}
    (tmp_path / "config.json").write_text(json.dumps(config))  # has no `is_native`
    last = model.encoder.layers[-1].ffn.down_proj.weight
    same(vit_in(read_checkpoint(declared))[0], lambda image: model(image).last_hidden_state, last, (42, 28))
    (tmp_path / "config.json").unlink()
    found = read_checkpoint(replace(declared, num_heads=4))
    assert found.architecture.position == "computed" and any("no table" in note for note in found.notes)


def test_config_and_table_must_agree_on_native_resolution(tmp_path: Path) -> None:
    declared = natives(tmp_path)[1]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: v for name, v in config.items() if name != "is_native"}))
    with pytest.raises(ValueError, match=r"there is no pos_embed, and config\.json beside it does not say is_native"):
        read_checkpoint(declared)
    natives(tmp_path, is_native=False, image_size=28)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has is_native true, and the file has a position table"):
        read_checkpoint(declared)


def test_the_published_shape_of_transformers() -> None:
    """Apple's ViT-L, which is the default of transformers' configuration."""
    with torch.device("meta"):
        state = rename_huggingface(Aimv2VisionModel(Aimv2VisionConfig()).state_dict()).state
    a = replace(infer_architecture(state, num_heads=8)[0], norm_eps=1e-5)
    check_whole(state, a)
    assert (a.embed_dim, a.depth, a.mlp_width, a.grid, a.activation) == (1024, 24, 2816, (16, 16), "swiglu")
    with torch.device("meta"):
        native = rename_huggingface(Aimv2VisionModel(Aimv2VisionConfig(is_native=True)).state_dict())
    check_whole(native.state, replace(infer_architecture(native.state, num_heads=8)[0], **native.untold))


def timms(name: str, folder: Path, size: tuple[int, int] = (28, 56)) -> tuple[nn.Module, InitialWeights]:
    """timm's model of the name made small, and its file with timm's config.json."""
    model = random(timm.create_model(name, num_classes=0, img_size=size, **TINY))
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name, "model_args": TINY, **PIXELS}))
    return model, InitialWeights(path=folder / "model.safetensors", source="timm", image_size=size)


@pytest.mark.parametrize("name", ["aimv2_large_patch14_224", "aimv2_huge_patch14_336"])
def test_aimv2_of_timm(tmp_path: Path, name: str) -> None:
    model, declared = timms(name, tmp_path)
    checkpoint = read_checkpoint(declared)
    a = checkpoint.architecture
    assert (a.norm, a.norm_eps, a.bias, a.qkv_bias, a.patch_norm) == ("rms", 1e-5, False, "none", True)
    same(vit_in(checkpoint)[0], model.forward_features, model.blocks[-1].mlp.fc2.weight, (28, 56))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"timm's AIMv2 ViTs differ in what no tensor shows"):
        read_checkpoint(replace(declared, num_heads=4, mean=OPENAI_CLIP.mean, std=OPENAI_CLIP.std))


def test_aimv2_in_apples_own_names(tmp_path: Path) -> None:
    model, declared = timms("aimv2_large_patch14_224", tmp_path)
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("norm1", "norm_1").replace("norm2", "norm_2")
        name = name.replace("fc1_g", "fc1").replace("fc1_x", "fc3").replace("patch_embed.", "preprocessor.patchifier.")
        name = {"pos_embed": "preprocessor.pos_embed"}.get(name, name)
        name = name.replace("norm.", "trunk.post_trunk_norm.") if name.startswith("norm.") else name
        state[f"trunk.{name}" if name.startswith("blocks") else name] = tensor
    save_file(state, declared.path)
    config = {"num_attention_heads": 4, "intermediate_size": 88, "image_size": [28, 56], "rms_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = read_checkpoint(InitialWeights(path=declared.path, source="huggingface"))
    assert (checkpoint.architecture.norm_eps, checkpoint.normalisation) == (1e-5, OPENAI_CLIP)
    same(vit_in(checkpoint)[0], model.forward_features, model.blocks[-1].mlp.fc2.weight, (28, 56))


def test_aimv2s_heads_are_its_own_where_nothing_tells(tmp_path: Path) -> None:
    """1,024 wide it has 8 heads, and a plain ViT-L 16."""
    for size in ("large", "huge", "1b", "3b"):
        with torch.device("meta"):
            model = timm.create_model(f"aimv2_{size}_patch14_224", depth=1)
        assert huggingface_towers.AIMV2.heads[model.embed_dim] == model.blocks[0].attn.num_heads
    sizes = {"hidden_size": 1024, "num_hidden_layers": 1, "intermediate_size": 8, "image_size": 28, "patch_size": 14}
    save_file(Aimv2VisionModel(Aimv2VisionConfig(**sizes, use_head=False)).state_dict(), tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface"))
    assert checkpoint.architecture.num_heads == 8
    assert "num_heads 8: usual for such names, no config.json beside the file says it" in checkpoint.notes


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "eva02_base_patch14_448", "eva02_large_patch14_clip_224"])
def test_eva02_of_timm(tmp_path: Path, name: str) -> None:
    model, declared = timms(name, tmp_path)
    # timm computes the angles in float32, which holds these rows and columns exactly, and no frequency but 1
    model.rope.bands = 10_000.0 ** -(torch.arange(2, dtype=torch.float64) / 2)
    model.rope.pos_embed = model.rope._build_embed_cat((2, 4), model.rope.bands, dtype=torch.float64)
    checkpoint = read_checkpoint(declared)
    a = checkpoint.architecture
    assert (a.rotary, a.rotary_base, a.rotary_grid) == ("stretched", 10_000, (16, 16))
    assert (a.position, a.activation, a.qkv_bias) == ("learned", "swiglu", "qv")
    assert (a.mlp_norm, a.norm, a.norm_eps) == ("tiny" not in name, "layer", 1e-6)
    assert a.attention_norm == ("clip" in name)
    vit = vit_in(checkpoint)[0]
    assert isinstance(vit.norm, nn.Identity) or "clip" in name  # timm norms the mean of the patches
    same(vit, model.forward_features, model.blocks[-1].mlp.fc2.weight, (28, 56))


def test_eva02_is_told_by_name_or_config_alone(tmp_path: Path) -> None:
    declared = timms("eva02_tiny_patch14_224", tmp_path)[1]
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"there is attn\.q_bias, as in timm's models of class Eva, which differ in"):
        read_checkpoint(replace(declared, num_heads=4, mean=OPENAI_CLIP.mean, std=OPENAI_CLIP.std))
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "eva02_enormous_patch14_clip_224"}))
    with pytest.raises(ValueError, match="no plain ViT: it has blocks of the class EvaBlockPostNorm"):
        read_checkpoint(declared)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [  # width, depth, heads, hidden width: AIMv2's table 1 and timm's entries; EVA-02's table 1
        ("aimv2_large_patch14_224", (1024, 24, 8, 2816)),
        ("aimv2_huge_patch14_448", (1536, 24, 12, 4096)),
        ("aimv2_1b_patch14_224", (2048, 24, 16, 5632)),
        ("aimv2_3b_patch14_336", (3072, 24, 24, 8192)),
        ("eva02_tiny_patch14_336", (192, 12, 3, 512)),
        ("eva02_small_patch14_224", (384, 12, 6, 1024)),
        ("eva02_base_patch14_448", (768, 12, 12, 2048)),
        ("eva02_large_patch14_448", (1024, 24, 16, 2730)),
    ],
)
def test_published_shapes(name: str, numbers: tuple[int, ...]) -> None:
    a = published(name)
    assert (a.embed_dim, a.depth, a.num_heads, a.mlp_width) == numbers


AIMV2 = ViTConfig(
    embed_dim=16, depth=2, num_heads=2, patch_size=4, image_size=(16, 16), position="learned", norm="rms",
    norm_eps=1e-5, bias=False, qkv_bias="none", patch_norm=True, activation="swiglu",
)  # fmt: skip


def test_our_own_file_holds_all_of_it_at_another_size(tmp_path: Path) -> None:
    a = replace(AIMV2, mlp_norm=True, rotary="stretched", rotary_base=10_000.0, rotary_grid=(4, 4))
    write_checkpoint(tmp_path / "own.safetensors", ViT(a, class_token=False), source="test")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "own.safetensors"))
    assert checkpoint.architecture == a
    bigger = ViT(a.at(24, 32), class_token=False)
    assert load_checkpoint(bigger, checkpoint).resized == ("pos_embed: 4x4 -> 6x8 patches, bicubic",)
    assert bigger(torch.zeros(1, 3, 24, 32)).shape == (1, 48, 16)
    windows = replace(a, window_size=3, relative_position="decomposed")  # a window that does not divide the grid
    assert ViT(windows, class_token=False)(torch.zeros(1, 3, 16, 16)).shape == (1, 16, 16)
    said = r"RMS norms, linear layers without biases, rotary positions, no bias of queries"
    with pytest.raises(ValueError, match=said):
        write_as(checkpoint, "timm", tmp_path / "timm.safetensors")
    with pytest.raises(ValueError, match=r"norm rms \(recipe: layer\), bias False \(recipe: True\), patch_norm True"):
        load_checkpoint(ViT(replace(AIMV2, norm="layer", bias=True, patch_norm=False), class_token=False), checkpoint)
    computed = replace(AIMV2, position="computed")
    with pytest.raises(ValueError, match=r"position learned \(recipe: computed\)"):
        load_checkpoint(ViT(computed, class_token=False), checkpoint)
    write_checkpoint(tmp_path / "computed.safetensors", ViT(computed, class_token=False), source="test")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "computed.safetensors"))
    assert checkpoint.architecture == computed
    load_checkpoint(ViT(computed.at(24, 32), class_token=False), checkpoint)
    with pytest.raises(ValueError, match="positions that are computed at every size"):
        write_as(checkpoint, "timm", tmp_path / "timm.safetensors")
    assert exempt_block_norms_and_position("blocks.0.mlp.norm.weight", bigger.blocks[0].mlp.norm.weight)
