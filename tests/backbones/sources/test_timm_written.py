"""`--to timm` writes a folder that timm opens to equal tokens, and that `--init` opens without a declaration."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint

PLAIN = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=8, image_size=(32, 32), position="learned")
PIXELS = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
# float32 through two blocks in another order of sums; tokens are around 1
TOLERANCE = 1e-5


def checkpoint(
    architecture: ViTConfig, *, class_token: bool = True, final_norm: bool = True, labels: int = 0
) -> Checkpoint:
    torch.manual_seed(3)
    vit = ViT(architecture, class_token=class_token, final_norm=final_norm)
    state = {name: torch.randn_like(tensor) * 0.2 for name, tensor in vit.state_dict().items()}
    if not final_norm:
        state |= {f"fc_norm.{name}": torch.randn(architecture.embed_dim) for name in ("weight", "bias")}
    if labels:
        state |= {"head.weight": torch.randn(labels, architecture.embed_dim), "head.bias": torch.randn(labels)}
    return Checkpoint(
        path=Path("w.safetensors"),
        digest=lambda: "0" * 64,
        state=state,
        architecture=architecture,
        source="mae",
        normalisation=PIXELS,
    )


@pytest.mark.parametrize(
    ("made", "pool"),
    [
        pytest.param(checkpoint(PLAIN), "token", id="plain"),
        pytest.param(checkpoint(PLAIN, labels=3), "token", id="head"),
        pytest.param(checkpoint(PLAIN, final_norm=False, labels=3), "avg", id="fine-tuned with fc_norm"),
        pytest.param(checkpoint(replace(PLAIN, layer_scale=0.1, mlp_ratio=2.0)), "token", id="layer scale"),
        pytest.param(checkpoint(PLAIN, class_token=False), "avg", id="no class token"),
        pytest.param(checkpoint(replace(PLAIN, image_size=(24, 40), in_chans=3)), "token", id="no square"),
    ],
)
def test_timm_opens_the_folder_to_equal_tokens_and_init_needs_no_flag(
    made: Checkpoint, pool: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    write_as(made, "timm", path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["global_pool"] == pool and config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert theirs.pretrained_cfg["std"] == [0.4, 0.5, 0.6] and theirs.num_classes == config["num_classes"]
    size = made.architecture.image_size if made.architecture.image_size != (24, 40) else None
    read = read_checkpoint(InitialWeights(path=path, source="timm", image_size=None if size else (24, 40)))
    assert (read.normalisation, read.architecture.num_heads) == (PIXELS, 4)
    assert read.state.keys() == made.state.keys()
    assert all(torch.equal(read.state[name], tensor) for name, tensor in made.state.items())
    final_norm = "norm.weight" in made.state
    vit = ViT(read.architecture, class_token="cls_token" in read.state, final_norm=final_norm).eval()
    load_checkpoint(vit, read)
    image = torch.randn(2, 3, *read.architecture.image_size)
    with torch.no_grad():
        torch.testing.assert_close(vit(image), theirs.forward_features(image), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("size", "name", "arguments"),
    [
        (ViTConfig(embed_dim=192, depth=12, num_heads=3), "vit_tiny_patch16_224", {}),
        (ViTConfig(embed_dim=384, depth=12, num_heads=6, patch_size=8), "vit_small_patch8_224", {}),
        (PLAIN, "vit_base_patch16_224", {"img_size", "patch_size", "embed_dim", "depth", "num_heads"}),
    ],
)
def test_the_usual_sizes_go_by_their_names(
    size: ViTConfig, name: str, arguments: set[str] | dict[str, int], tmp_path: Path
) -> None:
    said = write_as(checkpoint(size), "timm", tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"], "a config would be that of any file there"
    assert "--out FOLDER/model.safetensors has timm's config.json beside it" in said[0]
    assert said[1].startswith("the file does not tell its pixels; to read it again: --init-mean ")
    write_as(checkpoint(size), "timm", tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == name and config["model_args"].keys() == set(arguments)


def test_a_config_that_says_otherwise_is_kept_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json: is there already and says otherwise"):
        write_as(checkpoint(PLAIN), "timm", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists() and (tmp_path / "config.json").read_text() == "{}"


def test_what_timm_has_no_place_for_is_refused(tmp_path: Path) -> None:
    odd = checkpoint(PLAIN)
    del odd.state["pos_embed"]
    with pytest.raises(ValueError, match="timm's vit_base_patch16_224 has other tensors than these weights: pos_embed"):
        write_as(odd, "timm", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
