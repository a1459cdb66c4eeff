"""DINO's files equal timm's ViT on the same weights, teacher or student as declared, and come out flat again."""

from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.position import resize_position, sincos_table
from backbones.sources import dino
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import load_checkpoint
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint

TEACHER = partial(InitialWeights, source="dino", num_heads=4)
STUDENT = partial(InitialWeights, source="dino_student", num_heads=4)


def backbone(patch: int = 16) -> VisionTransformer:
    model = VisionTransformer(img_size=64, patch_size=patch, embed_dim=32, depth=2, num_heads=4, num_classes=0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def wrapped(model: VisionTransformer, prefix: str) -> dict[str, Tensor]:
    """The state of DINO's MultiCropWrapper: the backbone, and the head with its weight norm."""
    state = {f"{prefix}backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    for layer in (0, 2, 4):
        state |= {
            f"{prefix}head.mlp.{layer}.weight": torch.randn(4, 4),
            f"{prefix}head.mlp.{layer}.bias": torch.randn(4),
        }
    return state | {
        f"{prefix}head.last_layer.weight_g": torch.ones(6, 1),
        f"{prefix}head.last_layer.weight_v": torch.randn(6, 4),
    }


def training_file(folder: Path, student: VisionTransformer, teacher: VisionTransformer) -> Path:
    """A file as main_dino.py saves it: the student is in DistributedDataParallel, a ViT teacher is not."""
    path = folder / "dino_full_checkpoint.pth"
    content = {
        "student": wrapped(student, "module."),
        "teacher": wrapped(teacher, ""),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "epoch": 100,
        "args": Namespace(arch="vit_base", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 6)},
    }
    torch.save(content, path)
    return path


def assert_equal_networks(checkpoint: Checkpoint, theirs: VisionTransformer) -> None:
    ours = ViT(checkpoint.architecture)
    report = load_checkpoint(ours, checkpoint)
    assert len(report.loaded) == len(theirs.state_dict()) and not report.resized
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    # float64: what is left is the order of summing a few hundred numbers of about 1
    made, expected = ours.double()(x), theirs.double().forward_features(x)
    torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("patch", [8, 16])
def test_backbone_file_equals_timm(tmp_path: Path, patch: int) -> None:
    theirs = backbone(patch)
    path = tmp_path / f"dino_vitbase{patch}_pretrain.pth"
    torch.save(theirs.state_dict(), path)
    checkpoint = read_checkpoint(TEACHER(path=path))
    assert checkpoint.architecture == ViTConfig(
        embed_dim=32, depth=2, num_heads=4, patch_size=patch, image_size=(64, 64), position="learned"
    )
    assert checkpoint.normalisation == Normalisation() and not checkpoint.dropped
    assert_equal_networks(checkpoint, theirs)


@pytest.mark.parametrize("declared", [TEACHER, STUDENT], ids=["teacher", "student"])
def test_declared_network_of_a_training_checkpoint(tmp_path: Path, declared: partial[InitialWeights]) -> None:
    student, teacher = backbone(), backbone()
    checkpoint = read_checkpoint(declared(path=training_file(tmp_path, student, teacher)))
    rules = [item.split(": ") for item in checkpoint.dropped]
    assert sum(rule == "DINO's projection head" for _, rule in rules) == 8
    assert len(rules) == 8 + 5  # the other network, the optimiser, ...
    assert_equal_networks(checkpoint, teacher if declared is TEACHER else student)


def test_flat_names_may_be_wrapped(tmp_path: Path) -> None:
    theirs = backbone()
    path = tmp_path / "teacher.pth"
    torch.save({"teacher": wrapped(theirs, "module.")}, path)  # a teacher with batch norms is in parallel, too
    assert_equal_networks(read_checkpoint(TEACHER(path=path)), theirs)


def test_heads_are_timms(tmp_path: Path) -> None:
    path = tmp_path / "dino_deitsmall16_pretrain.pth"
    model = VisionTransformer(img_size=32, patch_size=16, embed_dim=384, depth=1, num_heads=6, num_classes=0)
    torch.save(model.state_dict(), path)
    assert read_checkpoint(InitialWeights(path=path, source="dino")).architecture.num_heads == 6


def test_written_flat_as_dino_reads_it(tmp_path: Path) -> None:
    student, teacher = backbone(), backbone()
    checkpoint = read_checkpoint(TEACHER(path=training_file(tmp_path, student, teacher)))
    state = dino.restore(checkpoint)
    assert dino.SOURCE.written_entry == ""
    backbone().load_state_dict(state, strict=True)  # DINO's VisionTransformer has timm's names
    assert state.keys() == teacher.state_dict().keys()
    assert all(state[name].equal(tensor) for name, tensor in teacher.state_dict().items())
    assert dino.rename(state).state.keys() == checkpoint.state.keys()


def test_a_backbone_file_is_not_the_student(tmp_path: Path) -> None:
    path = tmp_path / "dino_vitbase16_pretrain.pth"
    torch.save(backbone().state_dict(), path)
    with pytest.raises(ValueError, match=r"16_pretrain\.pth: read as source 'dino_student' .*declare dino, or give"):
        read_checkpoint(STUDENT(path=path))


@pytest.mark.parametrize("name", ["cls_pos_embed", "layer1.0.conv1.weight", "blocks.0.ls1.gamma"])
def test_unknown_names_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "other.pth"
    torch.save(dict(backbone().state_dict()) | {name: torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=rf"read as source 'dino' .*1 of \d+ names do not belong .*{name}"):
        read_checkpoint(TEACHER(path=path))


def test_what_dino_has_no_place_for_is_not_written() -> None:
    distilled = ViT(ViTConfig(embed_dim=32, depth=1, num_heads=4, patch_size=8, image_size=(16, 16), distilled=True))
    checkpoint = Checkpoint(
        path=Path("deit.safetensors"),
        digest=lambda: "0" * 64,
        state=dict(distilled.state_dict()),
        architecture=distilled.architecture,
        source="timm",
    )
    with pytest.raises(ValueError, match=r"deit\.safetensors: DINO's ViT has no place for 1 tensors: dist_token"):
        dino.restore(checkpoint)


def dinos_resize(table_1ND: Tensor, old: int, new: int) -> Tensor:
    """What DINO's `interpolate_pos_encoding` computes: by a factor of (new + 0.1) / old."""
    map_1Dhw = table_1ND.unflatten(1, (old, old)).permute(0, 3, 1, 2)
    factor = (new + 0.1) / old
    return F.interpolate(map_1Dhw, scale_factor=(factor, factor), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)


@pytest.mark.parametrize(("old", "new", "moved"), [(14, 32, 0.043), (28, 64, 0.046), (28, 32, 0.090)])
def test_positions_differ_from_dinos_by_what_is_said(old: int, new: int, moved: float) -> None:
    table = sincos_table(768, (old, old), 0)
    ours = resize_position(table, (old, old), (new, new), 0)
    theirs = dinos_resize(table, old, new)
    assert (ours - theirs).abs().max().item() == pytest.approx(moved, abs=5e-4)  # the docstring's last digit
    exact = F.interpolate(table.unflatten(1, (old, old)).permute(0, 3, 1, 2), scale_factor=new / old, mode="bicubic")
    # without the 0.1 the two are one, but for the rounding of the factor in float32
    torch.testing.assert_close(ours, exact.permute(0, 2, 3, 1).flatten(1, 2), rtol=0, atol=1e-5)
