"""CLIP in the layout of OpenAI and OpenCLIP: timm reads the same file to the same tokens and gradients."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import _convert_openai_clip
from torch import Tensor

from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.normalisation import HALF, OPENAI_CLIP
from backbones.weights.read import read_checkpoint
from tests.backbones.sources.test_source_dinov3 import same

SIZE = (32, 48)
TEXT = {
    "positional_embedding": (77, 8), "text_projection": (8, 8), "logit_scale": (), "token_embedding.weight": (9, 8),
    "ln_final.weight": (8,), "transformer.resblocks.0.ln_1.weight": (8,),
}  # fmt: skip


def visual() -> dict[str, Tensor]:
    """The tower of a tiny CLIP, 2 x 3 patches of 16, with the names and shapes of `clip/model.py`."""
    shapes: dict[str, tuple[int, ...]] = {
        "class_embedding": (128,), "positional_embedding": (7, 128), "proj": (128, 8), "conv1.weight": (128, 3, 16, 16),
        **{f"{norm}.{leaf}": (128,) for norm in ("ln_pre", "ln_post") for leaf in ("weight", "bias")},
    }  # fmt: skip
    for i in range(2):
        block = f"transformer.resblocks.{i}."
        for layer, rows, columns in (("attn.out_proj", 128, 128), ("mlp.c_fc", 256, 128), ("mlp.c_proj", 128, 256)):
            shapes |= {f"{block}{layer}.weight": (rows, columns), f"{block}{layer}.bias": (rows,)}
        shapes |= {f"{block}attn.in_proj_weight": (384, 128), f"{block}attn.in_proj_bias": (384,)}
        shapes |= {f"{block}ln_{n}.{leaf}": (128,) for n in (1, 2) for leaf in ("weight", "bias")}
    generator = torch.Generator().manual_seed(7)
    # float32: our file of weights holds no more
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def written(folder: Path, state: dict[str, Tensor], **model: object) -> InitialWeights:
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    config = {"model_cfg": {"vision_cfg": {"width": 128, "layers": 2, "patch_size": 16}, **model}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return InitialWeights(path=folder / "open_clip_pytorch_model.bin", source="openclip", image_size=SIZE)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_tokens_are_timms(tmp_path: Path, whole: bool, quick: bool) -> None:
    tower = {f"visual.{name}": tensor for name, tensor in visual().items()}
    text = {name: torch.ones(shape) for name, shape in TEXT.items()}
    state = tower | text if whole else visual()
    checkpoint = read_checkpoint(written(tmp_path, state, quick_gelu=quick))
    a = checkpoint.architecture
    assert (a.num_heads, a.norm_eps, a.pre_norm, a.image_size) == (2, 1e-5, True, SIZE)
    assert checkpoint.normalisation == OPENAI_CLIP and len(checkpoint.dropped) == (7 if whole else 1)
    name = f"vit_base_patch16_clip_{'quickgelu_' if quick else ''}224"
    model = timm.create_model(
        name, img_size=SIZE, patch_size=16, embed_dim=128, depth=2, num_heads=2, mlp_ratio=2, num_classes=8
    ).double()
    model.load_state_dict(_convert_openai_clip(dict(tower), model))
    same(vit_in(checkpoint)[0], model.eval().forward_features, model.blocks[-1].mlp.fc2.weight, SIZE)


def test_what_the_configuration_must_say(tmp_path: Path) -> None:
    declared = written(tmp_path, visual(), quick_gelu=True)
    path = tmp_path / "open_clip_config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"head_width": 48}, "has head_width 48, which does not divide the width of 128"),
        ({"qk_norm": True}, "has qk_norm in vision_cfg, which may change what it computes"),
        ({"width": 64}, "has width 64, and the weights show 128"),
    ):
        changed = {"model_cfg": config["model_cfg"] | {"vision_cfg": config["model_cfg"]["vision_cfg"] | change}}
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            read_checkpoint(declared)
    path.write_text(json.dumps(config | {"preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    assert read_checkpoint(declared).normalisation == HALF
    path.unlink()
    with pytest.raises(ValueError, match=r"an exact one, and no tensor tells heads\. Put OpenCLIP's open_clip_config"):
        read_checkpoint(replace(declared, num_heads=2))


def test_names_of_no_clip_are_refused(tmp_path: Path) -> None:
    tower = {f"visual.{name}": tensor for name, tensor in visual().items()}
    with pytest.raises(ValueError, match=r"decoder\.weight belongs to no CLIP of OpenAI or OpenCLIP"):
        read_checkpoint(written(tmp_path, tower | {"decoder.weight": torch.ones(2)}))
    del tower["visual.ln_pre.weight"]
    with pytest.raises(ValueError, match=r"there is no norm_pre\.weight, which every file of this family has"):
        read_checkpoint(written(tmp_path, tower))
