"""BEiT-3's vision expert as timm writes it: norms in attention and MLP, an epsilon of 1e-5, the mean of the patches."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from backbones.weights.convert import write_as
from backbones.weights.initial import vit_in
from backbones.weights.normalisation import OPENAI_CLIP
from backbones.weights.read import read_checkpoint
from tests.backbones.sources.test_source_aimv2_eva02 import timms
from tests.backbones.sources.test_source_dinov3 import published, same

NAME = "beit3_base_patch16_224"


def test_beit3_of_timm(tmp_path: Path) -> None:
    model, declared = timms(NAME, tmp_path, size=(32, 64))
    checkpoint = read_checkpoint(declared)
    a = checkpoint.architecture
    assert (a.attention_norm, a.mlp_norm, a.norm, a.norm_eps, a.num_heads) == (True, True, "layer", 1e-5, 4)
    vit = vit_in(checkpoint)[0]
    assert isinstance(vit.norm, nn.Identity)  # timm norms the mean of the patches
    same(vit, model.forward_features, model.blocks[-1].mlp.fc2.weight, (32, 64))
    with pytest.raises(ValueError, match=r"a norm in attention, a norm in the MLP"):
        write_as(checkpoint, "timm", tmp_path / "timm.safetensors")


def test_beit3_is_told_by_name_or_config_alone(tmp_path: Path) -> None:
    declared = timms(NAME, tmp_path, size=(32, 64))[1]
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"timm's ViTs with a norm in attention \(BEiT-3, .*no known name tells which"):
        read_checkpoint(replace(declared, num_heads=4, mean=OPENAI_CLIP.mean, std=OPENAI_CLIP.std))


@pytest.mark.parametrize(
    ("name", "numbers"),
    [  # width, depth, heads, hidden width
        (NAME, (768, 12, 12, 3072)),
        ("beit3_large_patch16_224", (1024, 24, 16, 4096)),
        ("beit3_giant_patch14_336", (1408, 40, 16, 6144)),
    ],
)
def test_published_shapes(name: str, numbers: tuple[int, ...]) -> None:
    a = published(name)
    assert (a.embed_dim, a.depth, a.num_heads, a.mlp_width, a.norm_eps) == (*numbers, 1e-5)
