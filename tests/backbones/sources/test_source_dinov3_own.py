"""DINOv3's own files: tokens and gradients are those of timm's model; what else is in a file is told or refused."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.normalisation import IMAGENET, SAT_493M
from backbones.weights.read import read_checkpoint
from tests.backbones.sources.test_source_dinov3 import random, same

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 4}
# 2 x 4, 4 x 2 and 4 x 4 patches: places and periods (1 and 10) are exact in float32, in which timm has them
EXACT = ((8, 16), (16, 8), (16, 16))
NAMES = (
    "vit_small_patch16_dinov3",  # no bias of queries, keys and values
    "vit_small_patch16_dinov3_qkvb",
    "vit_small_plus_patch16_dinov3",  # SwiGLU of two layers
    "vit_huge_plus_patch16_dinov3_qkvb",
)


def timms(name: str) -> nn.Module:
    model = random(timm.create_model(name, num_classes=0, **TINY))
    model.rope.periods = torch.tensor([1.0, 10.0], dtype=torch.float64)
    return model


def official(model: nn.Module, *, width: int = 32) -> dict[str, Tensor]:
    """DINOv3's own file of timm's model, with what its code registers besides."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = (
            name.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        )
        name = name.replace("fc1_g", "w1").replace("fc1_x", "w2")
        name = name.replace("mlp.fc2", "mlp.w3") if any("fc1_g" in key for key in model.state_dict()) else name
        if name.endswith("q_bias"):
            block, other = name.removesuffix("q_bias"), model.state_dict()[name.replace("q_bias", "v_bias")]
            state[f"{block}qkv.bias"] = torch.cat([tensor, torch.ones_like(tensor), other])
            state[f"{block}qkv.bias_mask"] = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
        elif not name.endswith("v_bias"):
            state[name] = tensor
    periods = torch.tensor([1.0, 10.0]).bfloat16()
    local = {f"local_cls_norm.{leaf}": torch.ones(width) for leaf in ("weight", "bias")}
    return state | local | {"mask_token": torch.zeros(1, width), "rope_embed.periods": periods}


@pytest.mark.parametrize("name", NAMES)
def test_its_own_file_is_the_same_network(name: str, tmp_path: Path) -> None:
    model = timms(name)
    path = tmp_path / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
    torch.save(official(model), path)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="dinov3", num_heads=4))
    assert checkpoint.normalisation == IMAGENET
    for size in EXACT:
        same(vit_in(checkpoint)[0], model.forward_features, model.blocks[-1].mlp.fc2.weight, size)
    rules = {item.partition(": ")[2] for item in checkpoint.dropped}
    assert "periods of the rotary positions, made anew" in rules
    assert len(checkpoint.dropped) == 4 + 2 * name.endswith("qkvb")


def test_satellites_pixels_are_told_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth"
    torch.save(official(timms(NAMES[0])), path)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="dinov3", num_heads=4))
    assert checkpoint.normalisation == SAT_493M
    assert "mean and std of the pixels by the name, which says sat493m" in checkpoint.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_embed.periods": torch.tensor([1.0, 100.0])}, r"periods are \[1.0, 100.0\], \.\.\., and DINOv3's are"),
        ({"blocks.0.attn.qkv.bias_mask": None}, r"blocks\.0\.attn\.qkv\.bias gives keys a bias, which DINOv3's files"),
        ({"blocks.1.attn.qkv.bias": torch.ones(7)}, r"shape \(7,\) and its mask \(96,\); it is three vectors in one"),
        ({"storage_tokens": None}, "there is no reg_token, which every file of this family has"),
        ({"pos_embed": torch.ones(1, 17, 32)}, "names do not belong to this kind of file: pos_embed"),
    ],
)
def test_another_file_is_refused(change: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    state = official(timms(NAMES[1])) | change
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(InitialWeights(path=tmp_path / "x.pth", source="dinov3", num_heads=4))


def test_half_a_gate_is_refused(tmp_path: Path) -> None:
    state = official(timms(NAMES[2]))
    torch.save({name: t for name, t in state.items() if ".w2." not in name}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.fc1\.weight cannot be joined: of 2 parts there are 1"):
        read_checkpoint(InitialWeights(path=tmp_path / "x.pth", source="dinov3", num_heads=4))


def test_heads_are_those_of_dinov3_where_nothing_tells() -> None:
    """1,280 wide it has 20 heads, and a plain ViT-H 16."""
    from backbones.sources.dinov3 import SOURCE

    for name in ("vit_small_patch16_dinov3", "vit_huge_plus_patch16_dinov3", "vit_7b_patch16_dinov3"):
        with torch.device("meta"):
            model = timm.create_model(name, depth=1)
        assert SOURCE.heads[model.embed_dim] == model.blocks[0].attn.num_heads
