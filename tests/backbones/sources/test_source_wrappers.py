"""What training code puts before names: any nesting gives the tensors of the plain file, mixtures are refused."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.sources import SOURCES
from backbones.sources.wrappers import rename_unwrapped

FOREIGN = [name for name in SOURCES if name != "own"]
NESTINGS = ["".join(chosen) for n in (1, 2, 3) for chosen in product(("_orig_mod.", "module.", "model."), repeat=n)]


def wrapped(sample: Any, before: str) -> Any:
    return sample.with_tensors({before + name: tensor for name, tensor in sample.tensors.items()})


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("source", [name for name in FOREIGN if name != "augreg"])
def test_every_nesting(source: str, samples: dict[str, Any]) -> None:
    sample, rename = samples[source], SOURCES[source].rename
    plain = rename_unwrapped(rename, sample.tensors).state
    for before in NESTINGS:
        assert_same(rename_unwrapped(rename, wrapped(sample, before).tensors).state, plain)


@pytest.mark.parametrize("source", ["mae", "timm", "augreg", "beit", "moco_v3", "dino", "huggingface"])
@pytest.mark.parametrize("before", ["backbone.", "encoder.", "model.backbone.", "module.encoder._orig_mod."])
def test_a_backbone_within_another_model(source: str, before: str, samples: dict[str, Any]) -> None:
    sample = samples["timm"] if source in ("augreg", "moco_v3") else samples[source]
    rename = SOURCES[source].rename
    assert_same(
        rename_unwrapped(rename, wrapped(sample, before).tensors).state, rename_unwrapped(rename, sample.tensors).state
    )


def test_torch_compile_names_them_so(samples: dict[str, Any]) -> None:
    """Of the whole model, and of a part of it."""
    model = nn.Module()
    model.blocks = nn.ModuleList([torch.compile(nn.Linear(2, 2))])
    assert list(model.state_dict()) == ["blocks.0._orig_mod.weight", "blocks.0._orig_mod.bias"]
    sample, rename = samples["mae"], SOURCES["mae"].rename
    parts = {name.replace("blocks.1.", "blocks.1._orig_mod."): tensor for name, tensor in sample.tensors.items()}
    assert_same(rename_unwrapped(rename, parts).state, rename(sample.tensors).state)
    with pytest.raises(ValueError, match=r"_orig_mod\.cls_token is there with _orig_mod .* and without"):
        rename_unwrapped(rename, sample.tensors | {"_orig_mod.cls_token": sample.tensors["cls_token"]})


def test_an_averaged_model(samples: dict[str, Any]) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(1, 1)).state_dict()
    assert sorted(averaged) == ["module.bias", "module.weight", "n_averaged"]
    tensors = wrapped(samples["timm"], "module.").tensors | {"n_averaged": torch.tensor(3)}
    rename = SOURCES["timm"].rename
    assert_same(rename_unwrapped(rename, tensors).state, rename(samples["timm"].tensors).state)


@pytest.mark.parametrize("source", ["mae", "timm", "beit", "dino", "huggingface", "mmpretrain"])
def test_a_checkpoint_of_lightning(source: str, samples: dict[str, Any], tmp_path: Path) -> None:
    sample = samples[source]
    expected = sample.read(sample.write(tmp_path / "plain")).state
    content = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": 3,
        "state_dict": wrapped(sample, "model.").tensors,
        "optimizer_states": [],
    }
    torch.save(content, tmp_path / "last.ckpt")
    found = sample.read(tmp_path / "last.ckpt")
    assert_same(found.state, expected)
    assert "epoch: not the entry of the weights" in found.dropped


def test_what_lies_beside_the_model_has_to_go(samples: dict[str, Any], tmp_path: Path) -> None:
    sample = wrapped(samples["mae"], "model.")
    mixed = sample.with_tensors(sample.tensors | {"criterion.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"30 names begin with 'model\.' and 1 do not \(criterion\.weight\): save the"):
        mixed.read(mixed.write(tmp_path / "mixed"))


def test_teacher_and_student_in_one_state(samples: dict[str, Any], tmp_path: Path) -> None:
    plain = samples["timm"].tensors
    both = {f"teacher.backbone.{n}": t for n, t in plain.items()}
    both |= {f"student.backbone.{n}": t + 1 for n, t in plain.items()}
    sample = samples["dino"]
    torch.save({"state_dict": both}, tmp_path / "both.ckpt")
    teacher, student = (sample.read(tmp_path / "both.ckpt", source) for source in ("dino", "dino_student"))
    assert torch.equal(teacher.state["cls_token"], plain["cls_token"])
    assert torch.equal(student.state["cls_token"], plain["cls_token"] + 1)
    assert "student.backbone.cls_token: the other network" in teacher.dropped
    torch.save({"state_dict": {n: t for n, t in both.items() if n.startswith("student.")}}, tmp_path / "one.ckpt")
    with pytest.raises(ValueError, match=r"one\.ckpt.*30 of 30 names are not of the teacher"):
        sample.read(tmp_path / "one.ckpt", "dino")
