"""mmsegmentation's backbones: maps and gradients equal to its MAE, BEiT and VisionTransformer, and strict ways back."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.sources.mmseg import rename
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.convert import write_as
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.read import read_checkpoint
from segmentation.host import MODELS

DECLARED = partial(InitialWeights, source="mmseg", num_heads=4)
OUT_INDICES = (0, 2, 3)
TINY = {
    "patch_size": 8,
    "embed_dims": 32,
    "num_layers": 4,
    "num_heads": 4,
    "out_indices": OUT_INDICES,
    "norm_cfg": {"type": "LN", "eps": 1e-6},
}
# float64 forwards and gradients of float32 weights: two orders of summing, relative to the largest value
TOLERANCE = 1e-12


def mae(**changes: object) -> nn.Module:
    return randomised(MODELS.build({**TINY, "type": "MAE", "img_size": 32, **changes}))


def beit(**changes: object) -> nn.Module:
    return randomised(MODELS.build({**TINY, "type": "BEiT", "img_size": 32, **changes}))


def plain(**changes: object) -> nn.Module:
    return randomised(
        MODELS.build({**TINY, "type": "VisionTransformer", "img_size": 32, "patch_bias": True, **changes})
    )


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    model.eval()  # mmseg's returns None
    return model


class Segmentor(nn.Module):
    """A segmentor's names around a backbone, stand-ins for what lies behind it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Linear(2, 2)
        self.decode_head = nn.Linear(2, 2)
        self.auxiliary_head = nn.ModuleList([nn.Linear(2, 2)])


def runner_file(backbone: nn.Module, folder: Path) -> Path:
    """A checkpoint as mmengine's Runner writes it, of a whole segmentor."""
    content = {"meta": {"iter": 3}, "state_dict": Segmentor(backbone).state_dict(), "optimizer": {"state": {}}}
    torch.save(content, folder / "iter_3.pth")
    return folder / "iter_3.pth"


def ours_of(checkpoint: Checkpoint) -> ViT:
    ours = ViT(checkpoint.architecture, final_norm=False)
    load_checkpoint(ours, checkpoint)
    return ours.double()


def picture(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def assert_same(made: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(made, expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))


def assert_maps_equal(ours: ViT, theirs: nn.Module, image: Tensor, tolerance: float = TOLERANCE) -> None:
    with torch.no_grad():
        for made, expected in zip(ours.feature_maps(image, OUT_INDICES), theirs(image), strict=True):
            assert_same(made, expected, tolerance)


@pytest.mark.parametrize("make", [mae, beit, plain])
def test_maps_and_gradients_equal(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    theirs = make()
    ours = ours_of(read_checkpoint(DECLARED(path=runner_file(theirs, tmp_path))))
    made, expected = ours.feature_maps(picture(), OUT_INDICES), theirs.double()(picture())
    generator = torch.Generator().manual_seed(2)
    for one, other in zip(made, expected, strict=True):
        assert_same(one, other)
        weights = torch.randn(one.shape, dtype=one.dtype, generator=generator)
        (one * weights).sum().backward(retain_graph=True)
        (other * weights).sum().backward(retain_graph=True)
    gradients = rename({name: p.grad for name, p in theirs.named_parameters()}).state
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert_same(parameter.grad, gradients[name])


@pytest.mark.parametrize("make", [mae, beit])
def test_grid_that_is_no_square(make: Callable[..., nn.Module], tmp_path: Path) -> None:
    theirs = make(img_size=(24, 40))
    checkpoint = read_checkpoint(DECLARED(path=runner_file(theirs, tmp_path), image_size=(24, 40)))
    assert checkpoint.architecture.grid == (3, 5)
    assert_maps_equal(ours_of(checkpoint), theirs.double(), picture(24, 40))


@pytest.mark.parametrize("size", [(48, 24), (64, 64), (37, 50)])  # the last is no multiple of the patch
def test_other_image_sizes_of_vision_transformer(size: tuple[int, int], tmp_path: Path) -> None:
    theirs = plain()
    ours = ours_of(read_checkpoint(DECLARED(path=runner_file(theirs, tmp_path))))
    # ours resamples the positions in float32 whatever the weights are: some 1e-7 of a value
    assert_maps_equal(ours, theirs.double(), picture(*size), tolerance=1e-6)


def test_patch_projection_without_a_bias(tmp_path: Path) -> None:
    theirs = plain(patch_bias=False)
    checkpoint = read_checkpoint(DECLARED(path=runner_file(theirs, tmp_path)))
    assert torch.equal(checkpoint.state["patch_embed.proj.bias"], torch.zeros(32))
    assert checkpoint.notes == ("patch_embed.proj.bias: 0, the file has none (patch_bias=False)",)
    assert_maps_equal(ours_of(checkpoint), theirs.double(), picture())


def test_dropped_by_rule(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(DECLARED(path=runner_file(beit(num_layers=1, out_indices=[0]), tmp_path)))
    head = "a neck or head, of another task"
    assert checkpoint.dropped == (
        "backbone.layers.0.attn.relative_position_index: an index, made anew for every grid",
        *(
            f"{name}.{kind}: {head}"
            for name in ("neck", "decode_head", "auxiliary_head.0")
            for kind in ("weight", "bias")
        ),
        "meta: not the entry of the weights",
        "optimizer: not the entry of the weights",
    )


def restored(checkpoint: Checkpoint, folder: Path) -> dict[str, Tensor]:
    write_as(checkpoint, "mmseg", folder / "out.pth")
    return torch.load(folder / "out.pth", weights_only=True)["state_dict"]


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("make", [mae, beit, plain])
def test_round_trip(make: Callable[..., nn.Module], final_norm: bool, tmp_path: Path) -> None:
    theirs = make(final_norm=final_norm)
    torch.save(theirs.state_dict(), tmp_path / "bare.pth")  # a backbone by itself, without an entry and a prefix
    again = make(final_norm=final_norm, img_size=32)
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    again.load_state_dict(restored(read_checkpoint(DECLARED(path=tmp_path / "bare.pth")), tmp_path), strict=True)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def our_checkpoint(folder: Path, **changes: object) -> tuple[ViT, Checkpoint]:
    """Random weights of ours."""
    settings = {"embed_dim": 32, "depth": 4, "num_heads": 4, "patch_size": 8, "image_size": (32, 32), **changes}
    ours = ViT(ViTConfig(**settings), final_norm=False)
    randomised(ours)
    checkpoint = Checkpoint(
        path=folder / "own",
        digest=lambda: "0" * 64,
        state=ours.state_dict(),
        architecture=ours.architecture,
        source="own",
    )
    return ours.double(), checkpoint


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (plain, {}),
        (plain, {"qkv_bias": "qv"}),  # joined, zeros for the keys
        (mae, {"layer_scale": 1.0}),  # zero tables
        (mae, {"relative_position": "table"}),  # a layer scale of 1
        (mae, {"relative_position": "shared_table", "layer_scale": 1.0, "qkv_bias": "qv"}),
        (beit, {"relative_position": "shared_table", "layer_scale": 1.0, "qkv_bias": "qv", "position": "none"}),
        (beit, {"relative_position": "table", "position": "none"}),  # the bias of the keys, which softmax does not see
        (beit, {"layer_scale": 1.0, "qkv_bias": "qv", "position": "none"}),
    ],
)
def test_ours_becomes_mmsegs(make: Callable[[], nn.Module], changes: dict[str, object], tmp_path: Path) -> None:
    ours, checkpoint = our_checkpoint(tmp_path, **changes)
    theirs = make()
    theirs.load_state_dict(restored(checkpoint, tmp_path), strict=True)
    assert_maps_equal(ours, theirs.double(), picture())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.ln_pre.weight": torch.ones(32)}, r"1 of \d+ names .*backbone\.ln_pre\.weight"),
        ({"backbone.patch_embed.norm.weight": torch.ones(32)}, r"backbone\.patch_embed\.norm\.weight"),
        ({"backbone.blocks.0.mlp.fc3.weight": torch.ones(32)}, r"backbone\.blocks\.0\.mlp\.fc3\.weight"),
        ({"layers.0.ln1.weight": torch.ones(32)}, "the file mixes two spellings"),
    ],
)
def test_refused_names(changes: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {**Segmentor(plain()).state_dict(), **changes}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(DECLARED(path=tmp_path / "model.pth"))


def test_a_file_of_another_source_is_refused(tmp_path: Path) -> None:
    _, checkpoint = our_checkpoint(tmp_path)
    torch.save({"state_dict": checkpoint.state}, tmp_path / "timm.pth")
    with pytest.raises(ValueError, match=r"read as source 'mmseg'.*blocks\.0\.attn\.proj\.bias"):
        read_checkpoint(DECLARED(path=tmp_path / "timm.pth"))
    with pytest.raises(ValueError, match="read as source 'timm'"):
        read_checkpoint(InitialWeights(path=runner_file(plain(), tmp_path), source="timm", num_heads=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_position": "decomposed"}, "mmseg's VisionTransformer has no place for 8 tensors"),
        ({"window_size": 2}, "attend within windows of 2 patches, and mmseg's VisionTransformer has none"),
    ],
)
def test_refused_to_write(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    settings = {"embed_dim": 32, "depth": 4, "num_heads": 4, "patch_size": 8, "image_size": (32, 32), **changes}
    ours = ViT(ViTConfig(**settings), class_token=False, final_norm=False)
    checkpoint = Checkpoint(
        path=tmp_path / "own",
        digest=lambda: "0" * 64,
        state=ours.state_dict(),
        architecture=ours.architecture,
        source="own",
    )
    with pytest.raises(ValueError, match=message):
        write_as(checkpoint, "mmseg", tmp_path / "out.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cls_token", "has no cls_token, and mmseg's VisionTransformer needs it"),
        ("pos_embed", "has no pos_embed, and mmseg's VisionTransformer needs it"),
    ],
)
def test_refused_without(name: str, message: str, tmp_path: Path) -> None:
    _, checkpoint = our_checkpoint(tmp_path)
    del checkpoint.state[name]
    with pytest.raises(ValueError, match=message):
        write_as(checkpoint, "mmseg", tmp_path / "out.pth")
