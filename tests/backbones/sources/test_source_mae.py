"""Files of the official MAE code: equal tokens to timm's ViT, on which that code is built, and the same file back."""

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint
from pretraining.mae.model import MaskedAutoencoder

Module = TypeVar("Module", bound=nn.Module)

DECLARED = partial(InitialWeights, source="mae", num_heads=4)
# two float64 forwards differ by the order of sums alone: some 1e-15 on tokens around 1
TOLERANCE = 1e-12


class OfficialDecoder(nn.Module):
    """The decoder of models_mae.py under its names, with its order of tokens: class token, visible, mask tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.decoder_embed = nn.Linear(32, 16)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 17, 16))
        self.decoder_blocks = nn.ModuleList(
            TimmBlock(16, num_heads=2, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6)) for _ in range(2)
        )
        self.decoder_norm = nn.LayerNorm(16, eps=1e-6)
        self.decoder_pred = nn.Linear(16, 8 * 8 * 3)

    def forward(self, visible_BTD: Tensor, ids_restore_BN: Tensor) -> Tensor:
        x = self.decoder_embed(visible_BTD)
        masks = self.mask_token.repeat(x.shape[0], ids_restore_BN.shape[1] + 1 - x.shape[1], 1)
        together = torch.cat([x[:, 1:], masks], dim=1)
        together = together.gather(1, ids_restore_BN.unsqueeze(-1).repeat(1, 1, x.shape[2]))
        x = torch.cat([x[:, :1], together], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]


def randomised(module: Module) -> Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return module.double().eval()


def encoder(**changes: object) -> VisionTransformer:
    settings = {"num_classes": 0, "global_pool": "token", **changes}
    return randomised(VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, **settings))


def image() -> Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens_of(checkpoint: Checkpoint, *, final_norm: bool = True) -> Tensor:
    vit = ViT(checkpoint.architecture, final_norm=final_norm).double()
    load_checkpoint(vit, checkpoint)
    with torch.no_grad():
        return vit(image())


def assert_comes_back(checkpoint: Checkpoint, state: dict[str, Tensor], folder: Path) -> None:
    """The official format written from the checkpoint holds `state` bit for bit."""
    write_as(checkpoint, "mae", folder / "back.pth")
    back = torch.load(folder / "back.pth", weights_only=True)
    assert back.keys() == {"model"}
    assert back["model"].keys() == state.keys()
    assert all(torch.equal(back["model"][name], tensor) for name, tensor in state.items())


def test_pretrained_file_gives_the_tokens_and_comes_back(tmp_path: Path) -> None:
    model = encoder()
    torch.save({"model": model.state_dict()}, tmp_path / "mae_pretrain.pth")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "mae_pretrain.pth"))
    assert (checkpoint.source, checkpoint.normalisation, checkpoint.dropped) == ("mae", IMAGENET, ())
    with torch.no_grad():
        torch.testing.assert_close(tokens_of(checkpoint), model.forward_features(image()), rtol=0, atol=TOLERANCE)
    assert_comes_back(checkpoint, model.state_dict(), tmp_path)
    write_as(checkpoint, "timm", tmp_path / "timm.safetensors")
    assert read_checkpoint(
        InitialWeights(
            path=tmp_path / "timm.safetensors", source="timm", num_heads=4, mean=IMAGENET.mean, std=IMAGENET.std
        )
    ).state.keys() == (model.state_dict().keys())


def test_full_file_gives_encoder_and_decoder(tmp_path: Path) -> None:
    model, decoder = encoder(), randomised(OfficialDecoder())
    state = model.state_dict() | decoder.state_dict()
    torch.save({"model": state}, tmp_path / "mae_visualize.pth")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "mae_visualize.pth"))
    assert_comes_back(checkpoint, state, tmp_path)
    report = load_checkpoint(ViT(checkpoint.architecture).double(), checkpoint)
    assert len(report.dropped) == len(decoder.state_dict())
    assert {line.partition(": ")[2] for line in report.dropped} == {"MAE's decoder"}

    ours = MaskedAutoencoder(
        ViT(checkpoint.architecture),
        mask_ratio=0.75,
        decoder_dim=16,
        decoder_depth=2,
        decoder_heads=2,
        normalise_target=False,
    ).double()
    names = {name if name in decoder.state_dict() else f"encoder.{name}": tensor for name, tensor in state.items()}
    ours.load_state_dict(names, strict=True)
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
    ids_shuffle = noise.argsort(dim=1)
    with torch.no_grad():
        x = model.patch_embed(image()) + model.pos_embed[:, 1:]
        x = x.gather(1, ids_shuffle[:, :4, None].repeat(1, 1, 32))
        x = torch.cat([(model.cls_token + model.pos_embed[:, :1]).expand(2, -1, -1), x], dim=1)
        expected = decoder(model.norm(model.blocks(x)), ids_shuffle.argsort(dim=1))
        found = ours.reconstruct(image(), noise).prediction_BNP
    # reconstruct() gives float32
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)


def test_fine_tuned_file_has_fc_norm_and_no_norm(tmp_path: Path) -> None:
    model = encoder(num_classes=5, global_pool="avg")
    torch.save({"model": model.state_dict()}, tmp_path / "mae_finetuned.pth")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "mae_finetuned.pth"))
    assert {"fc_norm.weight", "head.weight"} <= checkpoint.state.keys()
    with torch.no_grad():
        expected = model.forward_features(image())
    torch.testing.assert_close(tokens_of(checkpoint, final_norm=False), expected, rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match=r"Missing 2 .*which has fc_norm in place of the final norm"):
        tokens_of(checkpoint)
    assert_comes_back(checkpoint, model.state_dict(), tmp_path)


@pytest.mark.parametrize("parallel", ["", "module."])
def test_a_run_of_ones_own_holds_more_beside_the_weights(tmp_path: Path, parallel: str) -> None:
    state = encoder().state_dict()
    content = {
        "model": {f"{parallel}{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 7,
        "scaler": {"scale": 65536.0},
        "args": Namespace(model="mae_vit_tiny", output_dir=Path("out")),
    }
    torch.save(content, tmp_path / "checkpoint-7.pth")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "checkpoint-7.pth"))
    assert checkpoint.state.keys() == state.keys()
    assert [line.partition(":")[0] for line in checkpoint.dropped] == ["optimizer", "epoch", "scaler", "args"]
    assert_comes_back(checkpoint, state, tmp_path)


def test_the_head_of_a_linear_probe_is_dropped(tmp_path: Path) -> None:
    probe = nn.Sequential(nn.BatchNorm1d(32, affine=False, eps=1e-6), nn.Linear(32, 5))
    state = encoder().state_dict() | {f"head.{name}": tensor for name, tensor in probe.state_dict().items()}
    torch.save({"model": state}, tmp_path / "linear.pth")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "linear.pth"))
    assert checkpoint.state.keys() == encoder().state_dict().keys()
    assert len(checkpoint.dropped) == 5
    assert "head.0.running_mean: the head of a linear probe, behind a batch norm" in checkpoint.dropped


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"vit.embeddings.cls_token": (1, 1, 32)}, r"1 of 31 names do not belong .*: vit\.embeddings\.cls_token"),
        ({"decoder_pred2.weight": (3, 3)}, r"do not belong to this kind of file: decoder_pred2\.weight"),
        (
            {"blocks.0.gamma_1": (32,), "blocks.0.attn.q_bias": (32,)},
            r"file: blocks\.0\.attn\.q_bias, blocks\.0\.gamma_1",
        ),
        ({"module.cls_token": (1, 1, 32)}, r"do not belong to this kind of file: module\.cls_token"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, names: dict[str, tuple[int, ...]], message: str) -> None:
    state = encoder().state_dict() | {name: torch.ones(shape) for name, shape in names.items()}
    torch.save({"model": state}, tmp_path / "mixed.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(DECLARED(path=tmp_path / "mixed.pth"))


def test_a_hugging_face_file_declared_as_mae_says_what_it_was_read_as(tmp_path: Path) -> None:
    names = ("vit.embeddings.cls_token", "vit.layernorm.weight", "decoder.mask_token")
    save_file({name: torch.ones(1, 1, 32) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError,
        match=r"model\.safetensors: read as source 'mae' \(official MAE: .*\): 3 of 3 names do not belong to this kind "
        r"of file: decoder\.mask_token, vit\.embeddings\.cls_token, vit\.layernorm\.weight; .*inspect FILE",
    ):
        read_checkpoint(DECLARED(path=tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("architecture", "class_token", "message"),
    [
        ({"layer_scale": 1.0}, True, r"no place for 2 tensors: blocks\.0\.gamma_1, blocks\.0\.gamma_2"),
        ({"window_size": 2}, False, "attend within windows of 2 patches, and the official MAE model has none"),
        ({}, False, "has no class token, and the official MAE model needs one"),
    ],
)
def test_what_the_official_model_is_not_is_not_written(
    tmp_path: Path, architecture: dict[str, float], class_token: bool, message: str
) -> None:
    config = ViTConfig(embed_dim=32, depth=1, num_heads=4, patch_size=8, image_size=(32, 32), **architecture)
    state = ViT(config, class_token=class_token).state_dict()
    checkpoint = Checkpoint(
        path=tmp_path / "ours.safetensors", digest=lambda: "", state=state, architecture=config, source="own"
    )
    with pytest.raises(ValueError, match=message):
        write_as(checkpoint, "mae", tmp_path / "out.pth")
