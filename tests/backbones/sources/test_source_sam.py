"""SAM's image encoder of transformers and of Meta's own names: tokens and gradients are the peer's."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import SamVisionConfig, SamVisionModel

from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint
from tests.backbones.sources.test_source_dinov3 import random

VISION = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_dim": 48, "image_size": 20,
    "patch_size": 4, "window_size": 3, "global_attn_indexes": [1], "output_channels": 8,
}  # fmt: skip


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SamVisionModel:
    """transformers' encoder of 5 x 5 patches in windows of 3, which are padded; its softmax in float64."""
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: x.softmax(dim))
    return random(SamVisionModel(SamVisionConfig(**VISION)))


def assert_same(vit: ViT, model: SamVisionModel) -> None:
    """The last block's map, which the neck takes, and gradients, to 1e-9 in float64."""
    encoder = model.vision_encoder
    kept: list[Tensor] = []
    encoder.layers[-1].register_forward_hook(
        lambda _module, _given, made: kept.append(made[0] if isinstance(made, tuple) else made)
    )
    pixels = torch.randn(2, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine, other = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    (made,) = vit.double().eval().feature_maps(mine, [2])
    encoder(other)
    expected = kept[-1].permute(0, 3, 1, 2)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-9)
    weight = torch.randn(made.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (made * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)
    theirs = encoder.layers[1].attn.rel_pos_h.grad
    torch.testing.assert_close(vit.blocks[1].attn.rel_pos_h.grad, theirs, rtol=1e-9, atol=1e-9)


def assert_windowed(vit: ViT) -> None:
    a = vit.architecture
    assert (a.window_size, a.global_blocks, a.relative_position, a.num_heads) == (3, (1,), "decomposed", 4)
    assert (a.image_size, a.grid, vit.cls_token) == ((20, 20), (5, 5), None)


def test_transformers_is_the_same_network(model: SamVisionModel, tmp_path: Path) -> None:
    model.config.save_pretrained(tmp_path)
    others = {
        "mask_decoder.iou_token.weight": torch.ones(2),
        "shared_image_embedding.positional_embedding": torch.ones(2),
    }
    save_file({**model.state_dict(), **others}, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface"))
    rules = {item.partition(": ")[2] for item in checkpoint.dropped}
    assert rules == {"SAM's neck, which its mask decoder reads", "SAM's prompts and masks"}
    assert checkpoint.normalisation == IMAGENET
    vit = vit_in(checkpoint)[0]
    assert_windowed(vit)
    assert_same(vit, model)


def metas(model: SamVisionModel) -> dict[str, Tensor]:
    """The parameters in the names of Meta's own files."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("vision_encoder.", "image_encoder.").replace("layers.", "blocks.")
        name = name.replace("projection.", "proj.") if "patch_embed" in name else name
        state[re.sub(r"(blocks\.\d+\.)layer_norm", r"\1norm", name)] = tensor
    return state | {
        "prompt_encoder.no_mask_embed.weight": torch.ones(2),
        "mask_decoder.iou_token.weight": torch.ones(2),
    }


def test_metas_own_file_is_the_same_network(model: SamVisionModel, tmp_path: Path) -> None:
    torch.save(metas(model), tmp_path / "sam_vit_b_01ec64.pth")
    declared = InitialWeights(path=tmp_path / "sam_vit_b_01ec64.pth", source="sam")
    vit = vit_in(read_checkpoint(declared))[0]
    assert_windowed(vit)
    assert_same(vit, model)


def test_timms_file_is_the_same_network(tmp_path: Path) -> None:
    """5 x 5 patches in windows of 3; the last block's map and the gradient of the pixels, to 1e-9 in float64.

    timm's blocks have LayerNorm's own epsilon of 1e-5; Meta's code, which trained the weights, has 1e-6.
    """
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 4, "window_size": 3, "global_attn_indexes": (1,)}
    theirs = random(timm.create_model("samvit_base_patch16", img_size=80, neck_chans=8, **sizes))
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="sam"))
    assert {item.partition(": ")[2] for item in checkpoint.dropped} == {"SAM's neck, which its mask decoder reads"}
    vit = vit_in(checkpoint)[0].double().eval()
    a = vit.architecture
    assert (a.window_size, a.global_blocks, a.relative_position, a.num_heads) == (3, (1,), "decomposed", 4)
    assert (a.image_size, vit.cls_token, checkpoint.normalisation) == ((80, 80), None, IMAGENET)
    kept: list[Tensor] = []
    theirs.blocks[-1].register_forward_hook(lambda _module, _given, made: kept.append(made))
    pixels = torch.randn(2, 3, 80, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine, other = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    (made,) = vit.feature_maps(mine, [2])
    theirs.forward_features(other)
    expected = kept[-1].permute(0, 3, 1, 2)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-9)
    made.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)


def test_timms_file_without_positions_is_refused(tmp_path: Path) -> None:
    sizes = {"embed_dim": 32, "depth": 1, "num_heads": 4, "window_size": 3, "global_attn_indexes": (0,)}
    theirs = timm.create_model("samvit_base_patch16_224", num_classes=0, **sizes)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="there is no pos_embed, which every file of this family has"):
        read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="sam"))


def test_positions_are_resized_for_another_size(model: SamVisionModel, tmp_path: Path) -> None:
    torch.save(metas(model), tmp_path / "sam.pth")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "sam.pth", source="sam"))
    bigger = ViT(checkpoint.architecture.at(24, 32), class_token=False, final_norm=False)
    report = load_checkpoint(bigger, checkpoint)
    assert "pos_embed: 5x5 -> 6x8 patches, bicubic" in report.resized
    assert "blocks.1.attn.rel_pos_w: 9 -> 15 distances, linear" in report.resized
    assert bigger.feature_maps(torch.zeros(1, 3, 24, 32), [2])[0].shape == (1, 32, 6, 8)
    other = replace(checkpoint.architecture, window_size=0, global_blocks=())
    assert load_checkpoint(ViT(other, class_token=False, final_norm=False), checkpoint).loaded


def test_another_file_is_refused(model: SamVisionModel, tmp_path: Path) -> None:
    state = metas(model)
    torch.save({name: t for name, t in state.items() if name != "image_encoder.pos_embed"}, tmp_path / "sam.pth")
    with pytest.raises(ValueError, match="there is no pos_embed, which every file of this family has"):
        read_checkpoint(InitialWeights(path=tmp_path / "sam.pth", source="sam"))
    (tmp_path / "config.json").write_text(json.dumps(VISION | {"hidden_size": 48}))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="hidden_size 48, and the weights show 32"):
        read_checkpoint(InitialWeights(path=tmp_path / "model.safetensors", source="huggingface"))


@pytest.mark.parametrize(
    ("size", "width", "depth", "heads"), [("b", 768, 12, 12), ("l", 1024, 24, 16), ("h", 1280, 32, 16)]
)
def test_real_shapes_are_read(size: str, width: int, depth: int, heads: int) -> None:
    from backbones.sources.architecture import infer_architecture
    from backbones.sources.huggingface_towers import SAM, rename_as
    from backbones.sources.source import check_whole

    globals_ = {"b": [2, 5, 8, 11], "l": [5, 11, 17, 23], "h": [7, 15, 23, 31]}[size]
    config = SamVisionConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, global_attn_indexes=globals_
    )
    with torch.device("meta"):
        renamed = rename_as(SAM, SamVisionModel(config).state_dict())
    a, _ = infer_architecture(renamed.state, image_size=renamed.image_size)
    check_whole(renamed.state, a)
    assert (a.window_size, list(a.global_blocks), a.num_heads, a.image_size) == (14, globals_, heads, (1024, 1024))
