"""DINOv2's official files are read; OpenCLIP's towers of timm and hierarchical networks are named, not supported."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from backbones.sources import SOURCES
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint
from tools.convert_checkpoint import main


def dinov2() -> dict[str, Tensor]:
    """The tensors of the official `dinov2_vits14_pretrain.pth`: timm's, and a mask token."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return {**model.state_dict(), "mask_token": torch.zeros(1, 384)}


def test_the_official_file_of_dinov2_is_read(tmp_path: Path) -> None:
    state, path = dinov2(), tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save(state, path)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="dinov2"))
    assert (checkpoint.normalisation, checkpoint.architecture.num_heads) == (IMAGENET, 6)
    assert checkpoint.architecture.image_size == (518, 518)
    assert checkpoint.dropped == ("mask_token: DINOv2's token for masked patches",)
    vit = ViT(checkpoint.architecture.at(28, 28)).eval()
    load_checkpoint(vit, checkpoint)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=28).eval()
    del state["mask_token"]
    model.load_state_dict({**state, "pos_embed": vit.state_dict()["pos_embed"]})
    image = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(vit(image), model.forward_features(image), rtol=0, atol=1e-4)


def test_another_file_than_dinov2s_is_refused(tmp_path: Path) -> None:
    torch.save({name: t for name, t in dinov2().items() if "gamma" not in name}, tmp_path / "v1.pth")
    with pytest.raises(ValueError, match=r"there is no blocks\.0\.gamma_1, which every file of this family has"):
        read_checkpoint(InitialWeights(path=tmp_path / "v1.pth", source="dinov2"))


def openclip(timms: str) -> dict[str, Tensor]:
    """OpenCLIP's file of a tower that is timm's."""
    tower = timm.create_model(timms, depth=1, embed_dim=8, num_heads=2).state_dict()
    return {f"visual.trunk.{name}": tensor for name, tensor in tower.items()} | {"logit_scale": torch.ones(())}


FOREIGN = {
    "CLIP of OpenCLIP on timm's ViT": lambda: openclip("vit_xsmall_patch16_clip_224"),
    "SigLIP of OpenCLIP": lambda: openclip("vit_base_patch16_siglip_224"),
    "a Swin Transformer": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=8
    ).state_dict(),
    "a Hiera": lambda: timm.create_model("hiera_tiny_224", embed_dim=32).state_dict(),
    "a ConvNeXt": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1)).state_dict(),
}


@pytest.mark.parametrize("family", FOREIGN)
def test_layouts_that_are_not_supported_are_named(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(FOREIGN[family](), path)
    assert main(["inspect", str(path)]) == 1
    error = capsys.readouterr().err
    said = f"weights.pth: is {family} by its tensor"
    assert said in error and "not supported" in error and "SigLIP, CLIP, SAM and ViTDet are" in error
    for source in ("timm", "huggingface", "mae"):
        with pytest.raises(ValueError, match=f"is {family}"):
            read_checkpoint(InitialWeights(path=path, source=source, num_heads=2, mean=IMAGENET.mean, std=IMAGENET.std))


def test_no_supported_family_is_called_unsupported(samples: dict[str, object]) -> None:
    from backbones.sources.unsupported import unsupported

    assert [name for name in SOURCES if name in samples and unsupported(samples[name].tensors)] == []  # type: ignore[attr-defined]
