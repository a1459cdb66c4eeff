"""BEiT's files equal timm's and mmseg's BEiT on the same weights, and come out as unilm's code reads them."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.interpolate
import torch
from scipy.interpolate import RectBivariateSpline
from timm.models.beit import Beit, gen_relative_position_index
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.sources import beit
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import HALF, Normalisation
from backbones.weights.read import read_checkpoint
from segmentation.host import ConfigDict, build_model

DECLARED = partial(InitialWeights, source="beit", mean=HALF.mean, std=HALF.std)
SHARED = "rel_pos_bias.relative_position_bias_table"


def reference(*, shared: bool, image: int = 32) -> Beit:
    """timm's BEiT of 4 x 4 patches as it is pre-trained (shared, norm) or fine-tuned (a table per block, fc_norm)."""
    model = Beit(
        img_size=image,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=4,
        num_classes=0 if shared else 5,
        global_pool="token" if shared else "avg",
        use_abs_pos_emb=False,
        use_rel_pos_bias=not shared,
        use_shared_rel_pos_bias=shared,
        init_values=0.1,
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def unilm_state(model: Beit) -> dict[str, Tensor]:
    """The state with what unilm's modules hold beside timm's: persistent index buffers, and heads of pre-training."""
    state = dict(model.state_dict())
    index = gen_relative_position_index((4, 4))
    for name in list(state):
        if name.endswith("relative_position_bias_table"):
            state[name.replace("bias_table", "index")] = index.clone()
    if SHARED in state:
        state |= {
            "mask_token": torch.randn(1, 1, 32),
            "lm_head.weight": torch.randn(64, 32),
            "lm_head.bias": torch.randn(64),
        }
    return state


def written(folder: Path, model: Beit, entry: str = "model") -> Path:
    path = folder / "beit_tiny_patch8_32.pth"
    torch.save({entry: unilm_state(model)}, path)
    return path


def loaded(checkpoint: Checkpoint, architecture: ViTConfig | None = None) -> ViT:
    vit = ViT(architecture or checkpoint.architecture, final_norm="norm.weight" in checkpoint.state)
    load_checkpoint(vit, checkpoint)
    return vit.double().eval()


def assert_same(made: Tensor | None, expected: Tensor | None) -> None:
    """Equal in float64 but for what is left of two orders of summing a few hundred numbers of about 1."""
    assert made is not None and expected is not None
    torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-10)


def image(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, dtype=torch.float64)


@pytest.mark.parametrize("entry", ["model", "module"])
@pytest.mark.parametrize("shared", [True, False], ids=["pre-trained", "fine-tuned"])
def test_tokens_maps_and_gradients_equal_timm(tmp_path: Path, shared: bool, entry: str) -> None:
    theirs = reference(shared=shared)
    checkpoint = read_checkpoint(DECLARED(path=written(tmp_path, theirs, entry)))
    assert checkpoint.architecture == ViTConfig(
        embed_dim=32,
        depth=3,
        num_heads=4,
        patch_size=8,
        image_size=(32, 32),
        position="none",
        qkv_bias="qv",
        layer_scale=1.0,
        relative_position="shared_table" if shared else "table",
    )
    assert checkpoint.normalisation == HALF
    ours, theirs = loaded(checkpoint), theirs.double()
    x = image()
    tokens, (expected, expected_maps) = ours(x), theirs.forward_intermediates(x, indices=[0, 2])
    assert_same(tokens, expected)
    for made, wanted in zip(ours.feature_maps(x, (0, 2)), expected_maps, strict=True):
        assert_same(made, wanted)
    weights = torch.randn_like(tokens)
    (tokens * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():  # the tables' among them
        assert_same(parameter.grad, gradients[name])


def test_what_is_dropped(tmp_path: Path) -> None:
    pre_trained = read_checkpoint(DECLARED(path=written(tmp_path, reference(shared=True))))
    assert sorted(pre_trained.dropped) == [
        "lm_head.bias: the head of pre-training",
        "lm_head.weight: the head of pre-training",
        "mask_token: BEiT's token for masked patches",
        "rel_pos_bias.relative_position_index: an index, made anew for every grid",
    ]
    fine_tuned = read_checkpoint(DECLARED(path=written(tmp_path, reference(shared=False))))
    assert [item.split(":")[0] for item in fine_tuned.dropped] == [
        f"blocks.{block}.attn.relative_position_index" for block in range(3)
    ]
    vit = ViT(fine_tuned.architecture, final_norm=False)
    report = load_checkpoint(vit, fine_tuned)
    heads = {
        f"{name}: a head, of another task" for name in ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    }
    assert heads < set(report.dropped) and not report.resized and not report.new
    with pytest.raises(ValueError, match="fc_norm in place of the final norm"):
        load_checkpoint(ViT(fine_tuned.architecture), fine_tuned)


def test_shared_table_goes_to_every_block(tmp_path: Path) -> None:
    theirs = reference(shared=True)
    checkpoint = read_checkpoint(DECLARED(path=written(tmp_path, theirs)))
    architecture = replace(checkpoint.architecture, relative_position="table")
    vit = ViT(architecture)
    report = load_checkpoint(vit, checkpoint)
    assert report.resized == (f"{SHARED}: copied to 3 blocks",)
    x = image()
    assert_same(vit.double()(x), theirs.double().forward_features(x))


def test_one_fused_bias_is_joined_from_two(tmp_path: Path) -> None:
    theirs = reference(shared=True)
    checkpoint = read_checkpoint(DECLARED(path=written(tmp_path, theirs)))
    vit = ViT(replace(checkpoint.architecture, qkv_bias="fused"))
    report = load_checkpoint(vit, checkpoint)
    assert report.resized[0] == "blocks.0.attn.qkv.bias: joined from q_bias and v_bias, zeros for the keys"
    x = image()
    assert_same(vit.double()(x), theirs.double().forward_features(x))


def mmseg_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """unilm's names to mmseg's, as its beit2mmseg.py does."""
    pairs = [
        (r"^blocks\.", "layers."),
        ("norm([12])", r"ln\1"),
        (r"mlp\.fc1", "ffn.layers.0.0"),
        (r"mlp\.fc2", "ffn.layers.1"),
        (r"patch_embed\.proj", "patch_embed.projection"),
    ]
    renamed = {}
    for name, tensor in state.items():
        for old, new in pairs:
            name = re.sub(old, new, name)
        renamed[name] = tensor
    return renamed


def interp2d(
    x: list[float], y: list[float], z: np.ndarray, kind: str
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """SciPy's removed `interp2d` on a grid, by the FITPACK routine that it called."""
    assert kind == "cubic"
    spline = RectBivariateSpline(y, x, z, s=0)
    return lambda wanted_x, wanted_y: spline(wanted_y, wanted_x)


@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
@pytest.mark.parametrize("side", [32, 56, 24])
def test_taps_equal_mmseg_at_other_sizes(tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scipy.interpolate, "interp2d", interp2d)
    theirs = build_model(
        ConfigDict(
            type="BEiT",
            img_size=(side, side),
            patch_size=8,
            embed_dims=32,
            num_layers=3,
            num_heads=4,
            out_indices=(0, 2),
            norm_cfg={"type": "LN", "eps": 1e-6},
        )
    )
    model = reference(shared=False)
    tables = theirs.resize_rel_pos_embed(mmseg_names(dict(model.state_dict())))
    missing, unexpected = theirs.load_state_dict(tables, strict=False)
    assert all(name.endswith("relative_position_index") for name in missing)
    assert sorted(unexpected) == ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]
    checkpoint = read_checkpoint(DECLARED(path=written(tmp_path, model)))
    vit = ViT(checkpoint.architecture.at(side, side), final_norm=False)
    report = load_checkpoint(vit, checkpoint)
    assert len(report.resized) == (0 if side == 32 else 3)
    theirs.double().eval()  # which returns None in mmseg
    x = image(side)
    for made, expected in zip(vit.double().feature_maps(x, (0, 2)), theirs(x), strict=True):
        # its tables are float32 after a spline of float32 values: 1e-7 relative, grown by three random blocks
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False], ids=["pre-trained", "fine-tuned"])
def test_written_as_unilm_reads_it(tmp_path: Path, shared: bool) -> None:
    checkpoint = read_checkpoint(DECLARED(path=written(tmp_path, reference(shared=shared))))
    state = beit.restore(checkpoint)
    expected = unilm_state(reference(shared=shared))  # the names that unilm's modules have
    gone = {"mask_token", "lm_head.weight", "lm_head.bias"}
    assert state.keys() == expected.keys() - gone
    for name in state:
        if name.endswith("relative_position_index"):
            assert state[name].equal(gen_relative_position_index((4, 4))) and state[name].dtype == torch.int64
    again = beit.rename(state)
    assert again.state.keys() == checkpoint.state.keys()
    assert all(again.state[name].equal(tensor) for name, tensor in checkpoint.state.items())
    # timm makes the indices by itself and has no place for them; with it the rest is loaded strictly
    weights = {name: tensor for name, tensor in state.items() if not name.endswith("index")}
    reference(shared=shared).load_state_dict(weights, strict=True)


def plain(vit: ViT) -> Checkpoint:
    return Checkpoint(
        path=Path("plain.safetensors"),
        digest=lambda: "0" * 64,
        state={name: tensor.detach() for name, tensor in vit.state_dict().items()},
        architecture=vit.architecture,
        source="mae",
        normalisation=Normalisation(),
    )


def test_a_fused_bias_is_split_without_a_change_of_what_is_computed() -> None:
    architecture = ViTConfig(embed_dim=32, depth=2, num_heads=4, patch_size=8, image_size=(32, 32))
    vit = ViT(architecture)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs = Beit(
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=4,
        num_classes=0,
        global_pool="token",
        init_values=None,
    )
    theirs.load_state_dict(beit.restore(plain(vit)), strict=True)
    x = image()
    # the bias of the keys, dropped, adds the same to all scores of a query
    assert_same(theirs.double().eval().forward_features(x), vit.double()(x))


def test_what_the_second_version_adds_for_its_loss_is_dropped(tmp_path: Path) -> None:
    """A file of BEiT v2's pre-training: blocks of the same kind behind the class token."""
    theirs = reference(shared=True)
    state = unilm_state(theirs)
    more = {f"cls_pt_layers.{n.removeprefix('blocks.')}": t + 1 for n, t in state.items() if n.startswith("blocks.0.")}
    more |= {"cls_pt_norm.weight": torch.ones(32), "cls_pt_lm_head.bias": torch.zeros(64)}
    path = tmp_path / "beitv2.pth"
    torch.save({"model": state | more}, path)
    checkpoint = read_checkpoint(DECLARED(path=path))
    assert sum("serve the loss of pre-training alone" in line for line in checkpoint.dropped) == len(more) - 1
    x = image()
    assert_same(loaded(checkpoint)(x), theirs.double().forward_features(x))


@pytest.mark.parametrize(
    "name", ["blocks.0.attn.qkv.bias", "cls_pt_blocks.0.norm1.weight", "decoder_pos_embed", "head.0.weight"]
)
def test_unknown_names_are_refused(tmp_path: Path, name: str) -> None:
    state = unilm_state(reference(shared=True)) | {name: torch.zeros(96)}
    path = tmp_path / "other.pth"
    torch.save({"model": state}, path)
    with pytest.raises(ValueError, match=rf"other.pth: read as source 'beit' .*1 of \d+ names .*: {re.escape(name)};"):
        read_checkpoint(DECLARED(path=path))


def test_other_families_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, reference(shared=False))
    with pytest.raises(ValueError, match=r"read as source 'timm' .*blocks\.0\.attn\.relative_position_bias_table"):
        read_checkpoint(InitialWeights(path=path, source="timm"))


def test_what_beit_has_no_place_for_is_not_written() -> None:
    small = ViTConfig(embed_dim=32, depth=1, num_heads=4, patch_size=8, image_size=(32, 32))
    decomposed = ViT(replace(small, relative_position="decomposed"), class_token=False)
    with pytest.raises(ValueError, match=r"BEiT has no place for 2 tensors: blocks\.0\.attn\.rel_pos_h"):
        beit.restore(plain(decomposed))
    with pytest.raises(ValueError, match=r"plain\.safetensors: has no class token, and BEiT needs one; write another"):
        beit.restore(plain(ViT(small, class_token=False)))
