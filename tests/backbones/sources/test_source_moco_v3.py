"""MoCo v3's files equal timm's ViT on the same weights, whichever encoder is declared, and come out in DeiT's form."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.position import sincos_table
from backbones.sources import moco_v3
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint

BASE = partial(InitialWeights, source="moco_v3", num_heads=4)
MOMENTUM = partial(InitialWeights, source="moco_v3_momentum", num_heads=4)


def projector(width: int, layers: int) -> nn.Sequential:
    """MoCo v3's MLP: linear layers without bias, a batch norm after each, the last without affine parameters."""
    parts: list[nn.Module] = []
    for layer in range(layers):
        last = layer == layers - 1
        parts += [nn.Linear(width if layer == 0 else 16, 8 if last else 16, bias=False)]
        parts += [nn.BatchNorm1d(8, affine=False)] if last else [nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*parts)


class MoCo(nn.Module):
    """The modules of moco/builder.py by the names that they have in its checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.base_encoder, self.momentum_encoder = encoder(), encoder()
        self.base_encoder.head, self.momentum_encoder.head = projector(32, 3), projector(32, 3)
        self.predictor = projector(8, 2)


def encoder(width: int = 32) -> VisionTransformer:
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=width, depth=2, num_heads=4, num_classes=0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    # the fixed table of vits.py: the halves of MAE's swapped, zeros for the class token
    first, second = sincos_table(width, (4, 4), 1).chunk(2, dim=2)
    model.pos_embed = nn.Parameter(torch.cat([second, first], dim=2), requires_grad=False)
    return model.eval()


def written(folder: Path, state: dict[str, Tensor], *, parallel: bool = True) -> Path:
    """A file as main_moco.py saves it, under DistributedDataParallel or not."""
    path = folder / "vit-b-300ep.pth.tar"
    named = {f"module.{name}": tensor for name, tensor in state.items()} if parallel else state
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    content = {
        "epoch": 300,
        "arch": "vit_base",
        "state_dict": named,
        "optimizer": optimizer,
        "scaler": {"scale": 65536.0},
    }
    torch.save(content, path)
    return path


def assert_equal_networks(checkpoint: Checkpoint, theirs: VisionTransformer) -> None:
    theirs.head = nn.Identity()
    ours = ViT(checkpoint.architecture)
    load_checkpoint(ours, checkpoint)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    # float64: what is left is the order of summing a few hundred numbers of about 1
    made, expected = ours.double()(x), theirs.double().forward_features(x)
    torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("declared", [BASE, MOMENTUM], ids=["base", "momentum"])
def test_declared_encoder_equals_timm(tmp_path: Path, declared: partial[InitialWeights], parallel: bool) -> None:
    moco = MoCo()
    checkpoint = read_checkpoint(declared(path=written(tmp_path, moco.state_dict(), parallel=parallel)))
    theirs, other = moco.base_encoder, moco.momentum_encoder
    if declared is MOMENTUM:
        theirs, other = other, theirs
    assert checkpoint.state["pos_embed"].equal(theirs.pos_embed)  # as stored, not made anew
    assert not checkpoint.state["cls_token"].equal(other.cls_token)
    assert checkpoint.normalisation == Normalisation()
    assert_equal_networks(checkpoint, theirs)


def test_what_is_dropped(tmp_path: Path) -> None:
    moco = MoCo()
    checkpoint = read_checkpoint(BASE(path=written(tmp_path, moco.state_dict())))
    rules: dict[str, list[str]] = {}
    for item in checkpoint.dropped:
        name, rule = item.split(": ")
        rules.setdefault(rule, []).append(name)
    assert sorted(rules["not the entry of the weights"]) == ["arch", "epoch", "optimizer", "scaler"]
    assert sorted(rules["the projector"]) == sorted(
        f"base_encoder.head.{name}" for name in moco.base_encoder.head.state_dict()
    )
    assert len(rules["the other encoder"]) == len(moco.momentum_encoder.state_dict())
    assert len(rules["the predictor"]) == len(moco.predictor.state_dict())
    assert len(checkpoint.state) + len(checkpoint.dropped) == len(moco.state_dict()) + 4


def test_converted_file_and_linear_probe(tmp_path: Path) -> None:
    theirs = encoder()
    state = theirs.state_dict()
    converted = tmp_path / "converted.pth"
    torch.save({"model": state}, converted)
    assert_equal_networks(read_checkpoint(BASE(path=converted)), theirs)
    probe = written(tmp_path, state | {"head.weight": torch.randn(5, 32), "head.bias": torch.randn(5)})
    checkpoint = read_checkpoint(BASE(path=probe))
    assert {"head.weight: a linear probe", "head.bias: a linear probe"} < set(checkpoint.dropped)
    assert checkpoint.state.keys() == state.keys()


@pytest.mark.parametrize(("width", "heads"), [(384, 12), (768, 12)])
def test_heads_are_those_of_vits_py(width: int, heads: int, tmp_path: Path) -> None:
    path = tmp_path / "s.pth"
    architecture = ViTConfig(embed_dim=width, depth=1, num_heads=4, patch_size=8, image_size=(16, 16))
    torch.save({"model": ViT(architecture).state_dict()}, path)
    checkpoint = read_checkpoint(InitialWeights(path=path, source="moco_v3"))
    assert checkpoint.architecture.num_heads == heads
    assert checkpoint.notes == (f"num_heads {heads}: that of the family's ViT {width} wide, not in the file",)
    own = read_checkpoint(InitialWeights(path=path, source="moco_v3", num_heads=6))  # a model of one's own
    assert own.architecture.num_heads == 6


def test_written_in_deits_form(tmp_path: Path) -> None:
    moco = MoCo()
    checkpoint = read_checkpoint(BASE(path=written(tmp_path, moco.state_dict())))
    state = moco_v3.restore(checkpoint)
    assert moco_v3.SOURCE.written_entry == "model"
    theirs = encoder()
    theirs.load_state_dict(state, strict=True)
    assert_equal_networks(checkpoint, theirs)
    again = moco_v3.rename(state)
    assert again.state.keys() == checkpoint.state.keys() and not again.dropped
    assert all(again.state[name].equal(tensor) for name, tensor in checkpoint.state.items())


def test_an_encoder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    state = MoCo().state_dict()
    base_only = {name: tensor for name, tensor in state.items() if not name.startswith("momentum")}
    with pytest.raises(ValueError, match=r"'moco_v3_momentum'.*does not hold the momentum encoder; declare moco_v3,"):
        read_checkpoint(MOMENTUM(path=written(tmp_path, base_only)))
    with pytest.raises(ValueError, match=r"does not hold the momentum encoder; declare moco_v3,"):
        read_checkpoint(MOMENTUM(path=written(tmp_path, encoder().state_dict())))
    momentum_only = {name: tensor for name, tensor in state.items() if name.startswith("momentum")}
    with pytest.raises(ValueError, match=r"does not hold the base encoder; declare moco_v3_momentum"):
        read_checkpoint(BASE(path=written(tmp_path, momentum_only)))


@pytest.mark.parametrize(
    "name", ["base_encoder.patch_embed.proj.0.weight", "queue", "base_encoder.blocks.0.ls1.gamma", "norm.bias"]
)
def test_unknown_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"read as source 'moco_v3' .*1 of \d+ names do not belong .*" + name):
        read_checkpoint(BASE(path=written(tmp_path, MoCo().state_dict() | {name: torch.zeros(2)})))


def test_other_sources_refuse_a_training_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"read as source 'timm' .*base_encoder"):
        read_checkpoint(InitialWeights(path=written(tmp_path, MoCo().state_dict()), source="timm", num_heads=4))


def plain(vit: ViT) -> Checkpoint:
    return Checkpoint(
        path=Path("plain.safetensors"),
        digest=lambda: "0" * 64,
        state=dict(vit.state_dict()),
        architecture=vit.architecture,
        source="mae",
    )


def test_what_moco_has_no_place_for_is_not_written() -> None:
    small = ViTConfig(embed_dim=32, depth=1, num_heads=4, patch_size=8, image_size=(16, 16))
    six = ViT(replace(small, embed_dim=384, num_heads=6))
    with pytest.raises(ValueError, match=r"plain\.safetensors: has 6 heads at width 384, and MoCo v3's ViT .* 12"):
        moco_v3.restore(plain(six))
    with pytest.raises(ValueError, match=r"has no norm\.weight, and MoCo v3's ViT needs it; write another format"):
        moco_v3.restore(plain(ViT(small, final_norm=False)))
    scaled = ViT(replace(small, layer_scale=0.1))
    with pytest.raises(ValueError, match=r"MoCo v3's ViT has no place for 2 tensors: blocks\.0\.gamma_1"):
        moco_v3.restore(plain(scaled))
