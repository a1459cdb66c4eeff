"""AugReg's files: Google's .npz as timm's own loader reads it, and timm's safetensors of it, with pixels of 0.5."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer, _load_weights

from backbones.vit import ViT
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import HALF
from backbones.weights.read import read_checkpoint

AUGREG = partial(InitialWeights, source="augreg")
D, HEADS, PATCH, CLASSES = 32, 4, 8, 3


def jax_arrays(depth: int = 2) -> dict[str, np.ndarray]:
    """A tiny ViT in the layout of Google's files, every array random."""
    d = D // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, D),
        "embedding/kernel": (PATCH, PATCH, 3, D),
        "embedding/bias": (D,),
        "Transformer/posembed_input/pos_embedding": (1, 17, D),
        "Transformer/encoder_norm/scale": (D,),
        "Transformer/encoder_norm/bias": (D,),
        "head/kernel": (D, CLASSES),
        "head/bias": (CLASSES,),
    }
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}/"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}{norm}/scale": (D,), f"{block}{norm}/bias": (D,)}
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for part in ("query", "key", "value"):
            shapes |= {f"{attention}{part}/kernel": (D, HEADS, d), f"{attention}{part}/bias": (HEADS, d)}
        shapes |= {f"{attention}out/kernel": (HEADS, d, D), f"{attention}out/bias": (D,)}
        for dense, (inner, outer) in {"Dense_0": (D, 4 * D), "Dense_1": (4 * D, D)}.items():
            shapes |= {f"{block}MlpBlock_3/{dense}/kernel": (inner, outer), f"{block}MlpBlock_3/{dense}/bias": (outer,)}
    random = np.random.default_rng(3)
    return {name: random.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in shapes.items()}


def by_timm(path: Path) -> VisionTransformer:
    """timm's model with the weights that its own loader took from the .npz."""
    model = VisionTransformer(
        img_size=32,
        patch_size=PATCH,
        embed_dim=D,
        depth=2,
        num_heads=HEADS,
        num_classes=CLASSES,
        global_pool="token",
    )
    with torch.no_grad():
        _load_weights(model, str(path))
    return model.eval()


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "S_16-i21k.npz", **jax_arrays())
    return tmp_path / "S_16-i21k.npz"


def test_npz_equals_what_timms_loader_makes_of_it(npz: Path) -> None:
    expected = by_timm(npz)
    checkpoint = read_checkpoint(AUGREG(path=npz))  # no number of heads declared: the file has it
    assert (checkpoint.architecture.num_heads, checkpoint.normalisation, checkpoint.notes) == (HEADS, HALF, ())
    assert checkpoint.dropped == ()
    state = expected.state_dict()
    assert checkpoint.state.keys() == state.keys()
    assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in state.items())

    vit = ViT(checkpoint.architecture).double()
    load_checkpoint(vit, checkpoint)
    image_BCHW = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # float64: the order of sums alone
        torch.testing.assert_close(vit(image_BCHW), expected.double().forward_features(image_BCHW), rtol=0, atol=1e-12)


def test_npz_is_written_in_timms_names(npz: Path, tmp_path: Path) -> None:
    write_as(read_checkpoint(AUGREG(path=npz)), "augreg", tmp_path / "timm.safetensors")
    state = by_timm(npz).state_dict()
    back = load_file(tmp_path / "timm.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    by_timm(npz).load_state_dict(back, strict=True)


def test_timms_file_of_it_has_the_same_pixels(npz: Path, tmp_path: Path) -> None:
    state = by_timm(npz).state_dict()
    save_file(state, tmp_path / "augreg.safetensors")
    declared = AUGREG(path=tmp_path / "augreg.safetensors", num_heads=HEADS)
    checkpoint = read_checkpoint(declared)
    assert (checkpoint.source, checkpoint.normalisation) == ("augreg", HALF)
    assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in state.items())
    with pytest.raises(ValueError, match="no published ViT of the family is that wide; declare it"):
        read_checkpoint(AUGREG(path=tmp_path / "augreg.safetensors"))  # one fused projection: heads cannot be read


def test_representation_layer_is_dropped_with_its_head(tmp_path: Path) -> None:
    arrays = jax_arrays() | {
        "pre_logits/kernel": np.ones((D, D), np.float32),
        "pre_logits/bias": np.ones(D, np.float32),
    }
    np.savez(tmp_path / "pre_logits.npz", **arrays)
    checkpoint = read_checkpoint(AUGREG(path=tmp_path / "pre_logits.npz"))
    assert "head.weight" not in checkpoint.state
    assert sorted(line.partition(":")[0] for line in checkpoint.dropped) == [
        "head.bias",
        "head.weight",
        "pre_logits.fc.bias",
        "pre_logits.fc.weight",
    ]


ATTENTION = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_root/kernel": (7, 7, 3, 64)}, r"1 of 41 names do not belong .* layout: conv_root/kernel; hybrids"),
        ({"head.weight": (CLASSES, D)}, r"do not belong to a ViT's \.npz in JAX's layout: head\.weight"),
        (
            {"Transformer/encoderblock_0/LayerNorm_1/scale": (D,)},
            "layout: Transformer/encoderblock_0/LayerNorm_1/scale",
        ),
        ({f"{ATTENTION}key/bias": None}, r"blocks\.1\.attn\.qkv\.bias cannot be joined: key of its block is not in"),
        ({f"{ATTENTION}out/kernel": (D, D)}, r"out/kernel has the shape \(32, 32\), and JAX's layout has 3 axes there"),
        ({f"{ATTENTION}query/kernel": (D, D)}, r"query/kernel has the shape \(32, 32\), and JAX's layout has 3 axes"),
        ({"embedding/kernel": (192, D)}, r"embedding/kernel has the shape \(192, 32\), and JAX's layout has 4 axes"),
        (
            {f"{ATTENTION}{part}/kernel": (D, 2, 16) for part in ("query", "key", "value")}
            | {f"{ATTENTION}{part}/bias": (2, 16) for part in ("query", "key", "value")},
            r"the blocks have different numbers of heads: \[2, 4\]",
        ),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, changes: dict[str, tuple[int, ...] | None], message: str) -> None:
    arrays = jax_arrays()
    for name, shape in changes.items():
        if shape is None:
            del arrays[name]
        else:
            arrays[name] = np.ones(shape, np.float32)
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(AUGREG(path=tmp_path / "other.npz"))


def test_npz_declared_as_timm_is_refused(npz: Path) -> None:
    with pytest.raises(
        ValueError, match=r"read as source 'timm' .*: 40 of 40 names do not belong to this kind of file"
    ):
        read_checkpoint(InitialWeights(path=npz, source="timm"))
