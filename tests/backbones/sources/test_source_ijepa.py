"""I-JEPA's files equal timm's and transformers' models of them: tokens, maps and gradients."""

import json
import math
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import IJepaConfig, IJepaModel

from backbones.config import FAMILY, ViTConfig
from backbones.sources import ijepa
from backbones.sources.architecture import infer_architecture
from backbones.vit import ViT
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint

SIZE = (32, 48)  # 4 x 6 patches of 8
WIDE = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=8, image_size=SIZE, position="learned")


def timms() -> nn.Module:
    tiny = {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 8, "mlp_ratio": 4.0}
    model = timm.create_model("vit_huge_patch14_gap_224", img_size=SIZE, num_classes=0, **tiny)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.eval()


def official(folder: Path, model: nn.Module) -> Path:
    """A training checkpoint as I-JEPA's code writes it: the context encoder has other values."""
    target = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {
        "encoder": {name: tensor + 1 for name, tensor in target.items()},
        "predictor": {"module.predictor_norm.bias": torch.zeros(8)},
        "opt": {"state": {}, "param_groups": []},
        "scaler": None,
        "target_encoder": target,
        "epoch": 300,
        "loss": 0.1,
    }
    torch.save(content, folder / "IN1K-vit.h.14-300e.pth.tar")
    return folder / "IN1K-vit.h.14-300e.pth.tar"


def image() -> Tensor:
    return torch.randn(2, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def ours(path: Path, source: str) -> ViT:
    checkpoint = read_checkpoint(InitialWeights(path=path, source=source, num_heads=4, image_size=SIZE))
    assert checkpoint.normalisation == IMAGENET and checkpoint.num_prefix_positions == 0
    vit = ViT(checkpoint.architecture, class_token=False)
    load_checkpoint(vit, checkpoint)
    return vit.double().eval()


def test_the_target_encoder_is_taken_and_computes_what_timm_does(tmp_path: Path) -> None:
    theirs = timms()
    path = official(tmp_path, theirs)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="ijepa", num_heads=4, image_size=SIZE))
    assert {line.split(":")[0] for line in checkpoint.dropped} == {
        "encoder",
        "predictor",
        "opt",
        "scaler",
        "epoch",
        "loss",
    }
    mine, theirs = ours(path, "ijepa"), theirs.double()
    x, other = image().requires_grad_(), image().requires_grad_()
    made, expected = mine(x), theirs.forward_features(other)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-9)
    for found, wanted in zip(
        mine.feature_maps(x, (0, 1)), theirs.forward_intermediates(other, norm=False)[1], strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    (made**2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wrapped", [False, True])
def test_transformers_file_needs_its_config(tmp_path: Path, wrapped: bool) -> None:
    config = IJepaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=list(SIZE),
        patch_size=8, layer_norm_eps=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = IJepaModel(config, add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    if wrapped:  # as IJepaForImageClassification names its encoder
        path = tmp_path / "pytorch_model.bin"
        torch.save({f"ijepa.{name}": tensor for name, tensor in theirs.state_dict().items()}, path)
    torch.testing.assert_close(
        ours(path, "huggingface")(image()), theirs.double()(image()).last_hidden_state, rtol=0, atol=1e-9
    )
    stated = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stated | {"model_type": "vit"}))
    with pytest.raises(ValueError, match=r"there is no cls_token, which all .* but I-JEPA have, and no config\.json"):
        ours(path, "huggingface")


def test_round_trip(tmp_path: Path) -> None:
    path = official(tmp_path, timms())
    checkpoint = read_checkpoint(InitialWeights(path=path, source="ijepa", num_heads=4, image_size=SIZE))
    write_as(checkpoint, "ijepa", tmp_path / "again.pth")
    again = read_checkpoint(InitialWeights(path=tmp_path / "again.pth", source="ijepa", num_heads=4, image_size=SIZE))
    assert again.architecture == checkpoint.architecture
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in checkpoint.state.items())


def test_a_class_token_has_no_place(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in ViT(WIDE).state_dict().items()}
    torch.save({"target_encoder": state}, tmp_path / "x.pth.tar")
    with pytest.raises(ValueError, match=r"x\.pth\.tar: read as source 'ijepa' .*1 of \d+ names .*: cls_token;"):
        read_checkpoint(InitialWeights(path=tmp_path / "x.pth.tar", source="ijepa", num_heads=4, image_size=SIZE))


@pytest.mark.parametrize(
    ("name", "side"), [("vit_huge_patch14", 224), ("vit_huge_patch16", 448), ("vit_giant_patch16", 224)]
)
def test_the_published_shapes(name: str, side: int) -> None:
    with torch.device("meta"):
        vit = ViT(FAMILY[name].at(side, side), class_token=False)
    found, _ = infer_architecture(vit.state_dict(), usual_heads=ijepa.HEADS)
    assert (found.embed_dim, found.depth, found.num_heads, found.image_size) == (
        FAMILY[name].embed_dim, FAMILY[name].depth, 16, (side, side),
    )  # fmt: skip
    assert math.isclose(found.mlp_ratio, FAMILY[name].mlp_ratio)
