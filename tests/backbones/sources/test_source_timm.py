"""timm's and DeiT's files: equal tokens to timm's own models, the same file written back, foreign files refused."""

import json
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.vit import ViT
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import vit_in
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import IMAGENET
from backbones.weights.read import read_checkpoint
from tests.backbones.sources.test_source_dinov3 import random, same

DECLARED = partial(InitialWeights, source="timm", num_heads=4, mean=IMAGENET.mean, std=IMAGENET.std)
# two float64 forwards differ by the order of sums alone: some 1e-15 on tokens around 1
TOLERANCE = 1e-12


def peer(
    kind: type[VisionTransformer] = VisionTransformer, size: int | tuple[int, int] = 32, **changes: object
) -> VisionTransformer:
    """A tiny model of timm in float64, every parameter random, biases and norms too."""
    settings = {"num_classes": 3, "global_pool": "token", **changes}
    model = kind(img_size=size, patch_size=8, embed_dim=32, depth=2, num_heads=4, **settings)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.double().eval()


def image(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens_of(
    path: Path, size: int = 32, *, final_norm: bool = True, declared: partial[InitialWeights] = DECLARED
) -> Tensor:
    """Our ViT's tokens with the weights of the file."""
    checkpoint = read_checkpoint(declared(path=path))
    vit = ViT(
        checkpoint.architecture.at(size, size), class_token=checkpoint.num_prefix_positions > 0, final_norm=final_norm
    )
    load_checkpoint(vit.double(), checkpoint)
    with torch.no_grad():
        return vit(image(size))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(peer(), id="with a head"),
        pytest.param(peer(num_classes=0), id="mae and dino, no head"),
        pytest.param(peer(init_values=0.1), id="layer scale"),
        pytest.param(peer(VisionTransformerDistilled), id="distilled"),
        pytest.param(peer(VisionTransformerDistilled, num_classes=0), id="distilled, no head"),
        pytest.param(peer(class_token=False, global_pool="avg", fc_norm=False), id="no class token"),
    ],
)
def test_tokens_equal_timms_and_the_file_comes_back(tmp_path: Path, model: VisionTransformer) -> None:
    state = model.state_dict()
    save_file(state, tmp_path / "timm.safetensors")
    with torch.no_grad():
        expected = model.forward_features(image())
    torch.testing.assert_close(tokens_of(tmp_path / "timm.safetensors"), expected, rtol=0, atol=TOLERANCE)

    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "timm.safetensors"))
    assert (checkpoint.source, checkpoint.normalisation, checkpoint.dropped) == ("timm", IMAGENET, ())
    write_as(checkpoint, "timm", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    model.load_state_dict(back, strict=True)


def test_average_pooling_has_fc_norm_and_no_norm(tmp_path: Path) -> None:
    model = peer(global_pool="avg")
    assert "norm.weight" not in model.state_dict()
    save_file(model.state_dict(), tmp_path / "avg.safetensors")
    with torch.no_grad():
        expected = model.forward_features(image())
    tokens = tokens_of(tmp_path / "avg.safetensors", final_norm=False)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=TOLERANCE)
    with pytest.raises(ValueError, match=r"Missing 2 \(norm\.bias, norm\.weight\).*fc_norm in place of the final norm"):
        tokens_of(tmp_path / "avg.safetensors")


def test_float32_file_gives_float32_tokens(tmp_path: Path) -> None:
    model = peer().float()
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "timm.safetensors"))
    vit = ViT(checkpoint.architecture)
    load_checkpoint(vit, checkpoint)
    with torch.no_grad():
        # tokens reach about 1; float32 has 1e-7 and two blocks of sums over 128 terms lose some ten times that
        torch.testing.assert_close(vit(image().float()), model.forward_features(image().float()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("made_for", "used_at", "difference"), [(64, 32, 0.044), (32, 64, 0.0064)])
def test_another_size_differs_from_timm_by_its_antialias_alone(
    tmp_path: Path, made_for: int, used_at: int, difference: float
) -> None:
    """Ours is the convention of MAE and DeiT; timm resizes with antialias, which has another cubic too."""
    model, other = peer(size=made_for), peer(size=used_at)
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    tokens = tokens_of(tmp_path / "timm.safetensors", used_at)

    def resized(antialias: bool) -> Tensor:
        state = model.state_dict()
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [used_at // 8] * 2, antialias=antialias)
        other.load_state_dict(state)
        with torch.no_grad():
            return other.forward_features(image(used_at))

    torch.testing.assert_close(tokens, resized(antialias=False), rtol=0, atol=TOLERANCE)
    # on tokens of std 0.26, for a table of noise; 5%: the generator gives the same numbers, kernels may not
    found = (tokens - resized(antialias=True)).abs().max().item()
    assert found == pytest.approx(difference, rel=0.05)


def test_deits_training_checkpoint_gives_model_and_not_the_average(tmp_path: Path) -> None:
    model = peer(VisionTransformerDistilled)
    average = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    content = {
        "model": model.state_dict(),
        "optimizer": {"state": {}, "param_groups": []},
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 3,
        "model_ema": average,
        "scaler": {"scale": 1.0},
        "args": Namespace(lr=1e-3),
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "checkpoint.pth"))
    assert checkpoint.architecture.distilled and checkpoint.num_prefix_positions == 2
    assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in model.state_dict().items())
    beside = [line.partition(":")[0] for line in checkpoint.dropped]
    assert beside == ["optimizer", "lr_scheduler", "epoch", "model_ema", "scaler", "args"]
    with torch.no_grad():
        expected = model.forward_features(image())
    torch.testing.assert_close(tokens_of(tmp_path / "checkpoint.pth"), expected, rtol=0, atol=TOLERANCE)


def test_deit3_has_no_position_for_the_class_token(tmp_path: Path) -> None:
    model = peer(no_embed_class=True, init_values=0.1)
    state = model.state_dict()
    assert state["pos_embed"].shape == (1, 16, 32)
    # Facebook's own spelling of the layer scale
    spelled = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for name, t in state.items()}
    torch.save({"model": spelled}, tmp_path / "deit_3.pth")
    with torch.no_grad():
        expected = model.forward_features(image())
    torch.testing.assert_close(tokens_of(tmp_path / "deit_3.pth"), expected, rtol=0, atol=TOLERANCE)
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "deit_3.pth"))
    assert checkpoint.notes == ("pos_embed: 16 rows taken as 4 x 4 patches, zeros put before them for 1 other tokens",)
    write_as(checkpoint, "timm", tmp_path / "back.safetensors")
    usual = peer(init_values=0.1)
    usual.load_state_dict(load_file(tmp_path / "back.safetensors"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(usual.forward_features(image()), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("source", ["timm", "augreg"])
def test_rows_of_a_square_are_read_by_the_declared_size(tmp_path: Path, source: str) -> None:
    """3 x 5 patches and a class token have the 16 rows of DeiT III's 4 x 4 patches."""
    model = peer(size=(24, 40))
    save_file(model.state_dict(), tmp_path / "oblong.safetensors")
    undeclared = read_checkpoint(DECLARED(path=tmp_path / "oblong.safetensors", source=source))
    assert undeclared.notes == ("pos_embed: 16 rows taken as 4 x 4 patches, zeros put before them for 1 other tokens",)
    declared = partial(DECLARED, source=source, image_size=(24, 40))
    checkpoint = read_checkpoint(declared(path=tmp_path / "oblong.safetensors"))
    assert checkpoint.architecture.grid == (3, 5) and checkpoint.notes == ()
    vit = ViT(checkpoint.architecture).double()
    load_checkpoint(vit, checkpoint)
    pixels = torch.randn(2, 3, 24, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(vit(pixels), model.forward_features(pixels), rtol=0, atol=TOLERANCE)
    with pytest.raises(
        ValueError, match=r"position table has 16 rows, and 40 x 40 pixels in patches of 8 need 1 \+ 25"
    ):
        read_checkpoint(declared(path=tmp_path / "oblong.safetensors", image_size=(40, 40)))


def test_pre_logits_is_dropped_with_the_head_that_reads_it(tmp_path: Path) -> None:
    state = peer().state_dict() | {"pre_logits.fc.weight": torch.ones(32, 32), "pre_logits.fc.bias": torch.ones(32)}
    torch.save(state, tmp_path / "jx_vit.pth")
    checkpoint = read_checkpoint(DECLARED(path=tmp_path / "jx_vit.pth"))
    assert sorted(line.partition(":")[0] for line in checkpoint.dropped) == [
        "head.bias",
        "head.weight",
        "pre_logits.fc.bias",
        "pre_logits.fc.weight",
    ]
    assert "head.weight" not in checkpoint.state


@pytest.mark.parametrize("name", ["deit3_small_patch16_224", "deit3_base_patch16_384"])
def test_deit3_by_its_config(tmp_path: Path, name: str) -> None:
    """The layer scale is there and the class token has no position; gradients too, on an image that is no square."""
    arguments = {"embed_dim": 32, "depth": 2, "num_heads": 4}
    model = random(timm.create_model(name, img_size=(32, 64), num_classes=3, **arguments))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    said = {"architecture": name, "model_args": arguments, "mean": IMAGENET.mean, "std": IMAGENET.std}
    (tmp_path / "config.json").write_text(json.dumps(said))
    path = tmp_path / "model.safetensors"
    checkpoint = read_checkpoint(InitialWeights(path=path, source="timm", image_size=(32, 64)))
    assert checkpoint.architecture.layer_scale and "zeros put before them for 1 other tokens" in checkpoint.notes[-1]
    same(vit_in(checkpoint)[0], model.forward_features, model.blocks[-1].mlp.fc2.weight, (32, 64))


def with_changes(**changes: Tensor | None) -> dict[str, Tensor]:
    """A tiny state of timm with tensors added, or taken out by None; `__` in a name is a dot."""
    named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    state = {name: tensor.float() for name, tensor in peer(init_values=0.1).state_dict().items()} | named
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (with_changes(mask_token=torch.ones(1, 1, 32)), "belong to this kind of file: mask_token"),
        (
            with_changes(blocks__0__attn__q_bias=torch.ones(32)),
            r"there is attn\.q_bias, as in timm's models of class Eva",
        ),
        (
            with_changes(blocks__1__gamma_2=torch.ones(32)),
            r"blocks\.1\.ls2\.gamma becomes blocks\.1\.gamma_2, and so does",
        ),
        (with_changes(pos_embed=None), "no pos_embed; timm's models without one have rotary positions"),
    ],
)
def test_files_that_are_no_plain_vit_are_refused(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(DECLARED(path=tmp_path / "other.safetensors"))


def test_a_decoder_is_not_left_out_in_silence(tmp_path: Path) -> None:
    state = peer(num_classes=0).state_dict() | {"mask_token": torch.ones(1, 1, 8)}
    torch.save({"model": state}, tmp_path / "mae.pth")
    checkpoint = read_checkpoint(InitialWeights(path=tmp_path / "mae.pth", source="mae", num_heads=4))
    with pytest.raises(
        ValueError, match=r"no place for 1 tensors: mask_token; leave decoder and head out \(--encoder-only\)"
    ):
        write_as(checkpoint, "timm", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
